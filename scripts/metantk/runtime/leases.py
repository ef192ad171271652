"""One GPU for one process. Snakemake hands out no devices, so processes on a machine agree by file locks.

A lease is a lock on a file named by the GPU's UUID, in a folder of the machine itself. It is held by the open file
for as long as the process lives: the kernel frees it, however the process ends.
"""

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from metantk.runtime.files import InputError

log = logging.getLogger("metantk")
POLL_SECONDS = 1.0
_held: list[FileLock] = []  # a lock that nothing refers to is released


def is_needed(devices: int) -> bool:
    """Whether a process that sees so many devices must choose: a single one under SLURM is the job's own."""
    return devices > 1 or (devices == 1 and "SLURM_JOB_ID" not in os.environ)


def take(uuids: list[str]) -> int:
    """Lease one of the devices for the life of this process, waiting until one is free; its number in the list.

    Raises:
        InputError: the folder of the leases cannot be used.
    """
    folder = _folder()
    waiting_since = None
    while True:
        for index, uuid in enumerate(uuids):
            lock = FileLock(folder / uuid, fallback_to_soft=False)
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                _held.append(lock)
                if waiting_since is not None:
                    log.info("waited %.0f s for a device", time.monotonic() - waiting_since)
                return index
        if waiting_since is None:
            log.info("all %d devices are in use: waiting for one (leases in %s)", len(uuids), folder)
            waiting_since = time.monotonic()
        time.sleep(POLL_SECONDS)


def _folder() -> Path:
    """Made on first use; another user's folder of this name is refused, since its owner could hold every lease."""
    folder = Path(tempfile.gettempdir()) / f"metantk-leases-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); set TMPDIR to another") from None
    if owner != os.getuid():
        raise InputError(f"{folder}: belongs to another user; remove it, or set TMPDIR to a folder of your own")
    return folder
