"""Whether a workflow runs: Snakemake holds a lock on a file among the results for as long as it lives.

Its own locks stay when it is killed, and are gone once another one in the same folder has ended.
"""

import fcntl
import os
from pathlib import Path
from typing import IO

_held: list[IO] = []  # the kernel frees the lock of a file that nothing refers to


def hold(path: Path) -> None:
    """Say that this process runs a workflow, until it ends. The file's time is the begin of the first that runs.

    Raises:
        OSError: the file system has no locks, or may not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.utime(path)
    except BlockingIOError:  # another one runs, as `make tables` does beside `make run`
        pass
    fcntl.flock(file, fcntl.LOCK_SH)
    _held.append(file)


def since(path: Path) -> float | None:
    """When the workflow that runs began, in seconds since the epoch; None where none runs."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return path.stat().st_mtime
    return None
