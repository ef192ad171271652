"""Copies of one's own images in a folder per class."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metantk.runtime.files import DISK_ERRORS, InputError, WriteError

OUTSIDE = "out of distribution"  # the folder of images that are of no class
REFUSED = '/\\:*?"<>|'  # by some file system
LONGEST = 200  # bytes of a folder's name; most file systems take 255


@contextlib.contextmanager
def sorted_copies(target: Path, names: list[str], files: list[Path], chosen: list[int | None]) -> Iterator[None]:
    """Copy files into a new folder, which gets its name when the block ends without an error: whole, or not at all.

    Each class has a folder, though it be empty. Of files with equal names, all but the first get a number.

    Args:
        names: of the classes.
        chosen: class of each file; None is out of distribution.

    Raises:
        InputError: there is something of the folder's name.
        WriteError: it cannot be written.
    """
    require_new(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as unfinished:
            folder = Path(unfinished, "sorted")
            _copy(folder, names, files, chosen)
            yield
            folder.rename(target)
    except OSError as error:
        if error.errno in DISK_ERRORS or isinstance(error, PermissionError | NotADirectoryError):
            raise WriteError(target, error) from None
        raise


def require_new(target: Path) -> None:
    """Raises `InputError` where there is something of the folder's name."""
    if target.is_symlink() or target.exists():
        raise InputError(f"--sort-into {target}: is there already; name a new folder")


def _copy(folder: Path, names: list[str], files: list[Path], chosen: list[int | None]) -> None:
    *of_classes, outside = distinct([_plain(name) for name in (*names, OUTSIDE)])
    for name in of_classes:
        (folder / name).mkdir(parents=True)
    for way in dict.fromkeys(chosen):
        place = folder / (outside if way is None else of_classes[way])
        place.mkdir(exist_ok=True)
        own = [file for file, given in zip(files, chosen, strict=True) if given == way]
        for file, name in zip(own, distinct([file.name for file in own]), strict=True):
            shutil.copy2(file, place / name)


def _plain(name: str) -> str:
    """A class as the name of a folder that any file system takes, within its folder and not hidden."""
    plain = "".join(sign if sign.isprintable() and sign not in REFUSED else "_" for sign in name)
    plain = plain.encode()[:LONGEST].decode(errors="ignore").strip(" .")
    return plain or "_"


def distinct(names: list[str]) -> list[str]:
    """The names with a number where one stands there already; capitals do not tell apart."""
    found: dict[str, str] = {}
    given = {name.casefold() for name in names}
    for name in names:
        free, number = name, 1
        while free.casefold() in found or (number > 1 and free.casefold() in given):
            number += 1
            free = f"{Path(name).stem} ({number}){Path(name).suffix}"
        found[free.casefold()] = free
    return list(found.values())
