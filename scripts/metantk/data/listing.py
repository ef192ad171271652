"""What is read of a folder of images, and what is passed over: the same for who reads and for who watches.

Passed over are names that begin with a dot, what operating systems and copying leave behind, text and tables beside
images, and all files beside class folders. Links are followed. Imports no numpy: the workflow looks here for files
that changed.
"""

import os
import unicodedata
from pathlib import Path

from metantk.runtime.files import InputError

# Of Windows, macOS and of network storage.
LEFT_BEHIND = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "system volume information",
}
ZONE = "zone.identifier"  # Windows' note of where a file came from, a file of its own once it is copied elsewhere
# Text and tables that describe images, and lie beside them.
DESCRIPTIONS = {".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".htm", ".html"}


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and counts, in order of name.

    Raises:
        InputError: the folder cannot be read, or a name is no text.
    """
    found = entries_of_any_name(folder)
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{entry}: its name has bytes that are no UTF-8; rename it") from None
    return found


def entries_of_any_name(folder: Path) -> list[Path]:
    """As `entries`, where names may be no text: of most of these entries nothing may be wanted."""
    try:
        return sorted(entry for entry in folder.iterdir() if counts(entry.name))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be read ({reason}); expected a folder of images") from None


def counts(name: str) -> bool:
    lower = name.lower()
    return not lower.startswith(".") and lower not in LEFT_BEHIND and not lower.endswith(ZONE)


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
        if has_control_characters(entry.name):
            raise InputError(f"{entry}: its name has a line break or another control character; rename it")
    return found


def has_control_characters(name: str) -> bool:
    """Whether a name has line breaks and the like, which no table can hold."""
    return any(unicodedata.category(sign) == "Cc" for sign in name)


def without_descriptions(found: list[Path]) -> list[Path]:
    """Entries of a folder without text and tables."""
    return [entry for entry in found if not is_description(entry)]


def is_description(entry: Path) -> bool:
    return entry.suffix.lower() in DESCRIPTIONS and not entry.is_dir()


def images_in(folder: Path) -> list[Path]:
    """The files of a class, all of which have to be images, in order of name.

    Raises:
        InputError: there are none, or a folder is among them; or as of `entries`.
    """
    every = entries(folder)
    found = without_descriptions(every)
    if not found:
        what = f"holds {len(every)} text files and no images" if every else "is empty"
        raise InputError(f"{folder}: {what}; expected the images of a class")
    for entry in found:
        if entry.is_dir():
            raise InputError(f"{entry}: is a folder in a class folder; expected images only")
    return found


def check_readable(files: list[Path]) -> dict[Path, str]:
    """Files that cannot be opened, or of which opening might wait for ever, and why; the others are not opened."""
    wrong = {}
    for file in files:
        if not file.is_file():  # a link to nowhere or to itself, a pipe, a socket, a device
            wrong[file] = "not a file"
        elif not os.access(file, os.R_OK):
            wrong[file] = "permission denied"
    return wrong
