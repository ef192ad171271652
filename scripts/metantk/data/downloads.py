"""Archives of named sources: looked up, fetched and unpacked by one process at a time."""

import contextlib
import http.client
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from metantk.runtime.files import InputError, WriteError

log = logging.getLogger("metantk")


class Archive(NamedTuple):
    """An archive as torchvision knows it.

    Attributes:
        url: where it is fetched from.
        name: of the file.
        md5: its checksum.
        top: the one folder that it holds.
    """

    url: str
    name: str
    md5: str
    top: str


def fetch(archive: Archive, folder: Path, is_there: Callable[[], bool]) -> None:
    """Unpack an archive into a folder where what it holds is not there; what is missing is downloaded.

    Processes side by side wait for each other, so that each archive is fetched and unpacked once. A folder is only
    replaced when the archive is unpacked whole.

    Args:
        folder: where the archive lies, or is downloaded to, and where its folder lies.
        is_there: whether all that it holds is.

    Raises:
        InputError: it is not there and cannot be fetched.
        WriteError: the folder cannot be written.
    """
    if is_there():  # needs no lock, so that a folder that others keep may be read-only
        return
    # Imported here: it takes seconds, and most sources do without.
    from torchvision.datasets.utils import download_url, extract_archive

    with alone(folder / f".{archive.name}.lock"):
        if is_there():
            return
        log.info("fetching %s into %s, unless it is there", archive.name, folder)
        try:
            download_url(archive.url, folder, archive.name, archive.md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise InputError(
                f"{folder / archive.top}: is not there or not whole, and {archive.url} cannot be fetched "
                f"({error or type(error).__name__}); place {archive.name} (md5 {archive.md5}) in {folder}; the "
                "next start unpacks it"
            ) from None
        unpacked = folder / f".{archive.name}.unpacked"
        try:
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
            extract_archive(folder / archive.name, unpacked)
            shutil.rmtree(folder / archive.top, ignore_errors=True)
            (unpacked / archive.top).rename(folder / archive.top)
        except OSError as error:
            raise WriteError(folder / archive.top, error) from None
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file, waiting for it. The system frees it when this process ends, however it ends.

    Raises:
        WriteError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path, fallback_to_soft=False).acquire()
    except OSError as error:
        raise WriteError(path.parent, error) from None
    with held:
        yield
