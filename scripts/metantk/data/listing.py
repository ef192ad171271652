"""What is read of a folder of images, and what is passed over: the same for who reads and for who watches.

Passed over are names that begin with a dot, what operating systems leave behind, and files beside class folders.
Links are followed. Imports no numpy: the workflow looks here for files that changed.
"""

import os
import unicodedata
from pathlib import Path

from metantk.runtime.files import InputError

LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
# Files of published data sets, which lie in the folder itself.
PUBLISHED_SUFFIXES = {".pickle", ".pkl", ".npz"}
PARTS = ("train", "val", "test")
LISTS = {"train.csv", "val.csv", "test.csv"}


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and counts, in order of name.

    Raises:
        InputError: the folder cannot be read, or a name is no text.
    """
    try:
        found = sorted(entry for entry in folder.iterdir() if counts(entry.name))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be read ({reason}); expected a folder of images") from None
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{entry}: its name has bytes that are no UTF-8; rename it") from None
    return found


def counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def folders(folder: Path) -> list[Path]:
    """Folders in a folder; links to folders are such.

    Raises:
        InputError: as of `entries`; or a link leads nowhere, which may have been a class, or a folder's name has
            line breaks and the like, which no table can hold.
    """
    every = entries(folder)
    for entry in every:
        if entry.is_symlink() and not entry.exists():
            raise InputError(f"{entry}: is a link to nothing; mend or remove it")
    found = [entry for entry in every if entry.is_dir()]
    for entry in found:
        if any(unicodedata.category(sign) == "Cc" for sign in entry.name):
            raise InputError(f"{entry}: its name has a line break or another control character; rename it")
    return found


def class_folders(folder: Path) -> dict[str, Path]:
    """The folders of classes in a folder, by name; of a folder that holds only folders those, by `folder/name`.

    Raises:
        InputError: as of `entries`.
    """
    found = {}
    for inner in folders(folder):
        if (held := entries(inner)) and all(entry.is_dir() for entry in held):
            found |= {f"{inner.name}/{name}": path for name, path in class_folders(inner).items()}
        else:
            found[inner.name] = inner
    return found


def watched_files(source: Path) -> list[str]:
    """All files that a preparation may read from a source: an edit of one of them prepares it again.

    Published files and split lists in the folder itself, and what lies in its class folders, however deep these
    are. Pipes, sockets, devices and links to nowhere are not listed; the preparation names them.

    Raises:
        InputError: as of `entries`.
    """
    if not source.is_dir():
        return []
    given = [source / split for split in PARTS]
    roots = given if all(split.is_dir() for split in given) else [source]
    found = [file for root in roots for folder in class_folders(root).values() for file in _files(folder)]
    return sorted(map(str, [*_published(source), *found]))


def _files(folder: Path) -> list[Path]:
    return [entry for entry in entries(folder) if entry.is_file()]


def _published(source: Path) -> list[Path]:
    """Files in the folder itself by which published data sets are recognised."""
    return [
        entry
        for entry in source.iterdir()
        if (entry.suffix.lower() in PUBLISHED_SUFFIXES or entry.name in LISTS) and entry.is_file()
    ]


def check_readable(files: list[Path]) -> dict[Path, str]:
    """Files that cannot be opened, or of which opening might wait for ever, and why; the others are not opened."""
    wrong = {}
    for file in files:
        if not file.is_file():  # a link to nowhere or to itself, a pipe, a socket, a device
            wrong[file] = "not a file"
        elif not os.access(file, os.R_OK):
            wrong[file] = "permission denied"
    return wrong
