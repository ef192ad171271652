"""Which folders of a source are its splits and which are its classes, in every layout that is read.

    SOURCE/CLASS/image                      to be split by class
    SOURCE/{train,val,test}/CLASS/image     split already; Training/, valid/, Validation/ and the like, too
    SOURCE/{train,test}/CLASS/image         validation classes are then taken from those of training

SOURCE may be one folder further in. Classes may be nested, as GROUP/CLASS, and their images may lie in an inner
folder that has the same name in every class, as CLASS/images. Imports no numpy: the workflow reads layouts, too.
"""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from metantk.data import listing
from metantk.runtime.files import InputError

SPLITS = ("train", "val", "test")
SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# Files of published data sets and of split lists, which lie in the source itself.
PUBLISHED_SUFFIXES = {".pickle", ".pkl", ".npz"}
LISTS = {"train.csv", "val.csv", "test.csv"}
# What the folders of ImageNet's classes are called, and the files that give their names in words.
WORDNET_ID = re.compile(r"n\d{8}")
NAME_FILES = ("words.txt", "LOC_synset_mapping.txt", "synset_words.txt")
LARGEST_NAME_FILE = 16 << 20  # bytes

Folders = dict[str, Path]  # of classes, by the classes' names


class Layout(NamedTuple):
    """What a source holds.

    Attributes:
        source: the folder as it was named.
        splits: class folders by split, each of which has some; empty where the source is not split.
        classes: class folders of a source that is not split.
    """

    source: Path
    splits: dict[str, Folders]
    classes: Folders

    def every_folder(self) -> list[Path]:
        """All class folders."""
        return [folder for folders in (*self.splits.values(), self.classes) for folder in folders.values()]


class NoClassesError(InputError):
    """The folder holds no folders; the message ends before what was expected."""


def find_layout(source: Path) -> Layout:
    """The class folders of a source, by split where it is split.

    Raises:
        InputError: it cannot be read, has only some of the splits, has one of them twice, or has a class in two of
            them; or as of `class_folders`.
        NoClassesError: it holds no folders.
    """
    root = _root(source)
    given = _split_folders(root)
    if not given:
        classes = class_folders(root)
        if not classes:
            raise NoClassesError(f"{source}: {_contents(source)}")
        return Layout(source, {}, classes)
    missing = [split for split in SPLITS if split not in given]
    if missing and missing != ["val"]:
        present, absent = given[min(given, key=SPLITS.index)].name, " and ".join(f"{split}/" for split in missing)
        raise InputError(
            f"{root}: has {present}/ with class folders, but no {absent}; expected all three, or train/ and test/; "
            f"to split the classes of {present}/ at random, name {root / present}"
        )
    splits = {split: _classes_of_split(given[split]) for split in SPLITS if split in given}
    _check_apart(root, given, splits)
    return Layout(source, splits, {})


def class_folders(folder: Path) -> Folders:
    """The folders of classes in a folder, by name; of a folder that holds only folders those, by `folder/name`.

    Raises:
        InputError: as of `listing.folders`; or folders that are named like splits lie deeper in.
    """
    found = _leaves(folder)
    inner = {name.rpartition("/")[2] for name in found}
    outer = [name.rpartition("/")[0] for name in found]
    if len(found) > 1 and len(inner) == 1 and all(outer):  # CLASS/images
        return dict(zip(outer, found.values(), strict=True))
    return found


def _leaves(folder: Path) -> Folders:
    found = {}
    for inner in listing.folders(folder):
        held = listing.without_descriptions(listing.entries(inner))
        if not held or not all(entry.is_dir() for entry in held):
            found[inner.name] = inner
            continue
        like_splits = {SPELLINGS.get(entry.name.lower()) for entry in held}
        if len(like_splits) > 1 and None not in like_splits:
            names = " and ".join(f"{entry.name}/" for entry in held)
            raise InputError(
                f"{inner}: holds {names}, which are named like splits; name it as the source, or put all images of "
                "a class into one folder"
            )
        found |= {f"{inner.name}/{name}": path for name, path in _leaves(inner).items()}
    return found


def _root(source: Path) -> Path:
    """The source, or the only folder in it where that holds the splits."""
    found = [entry for entry in listing.entries_of_any_name(source) if entry.is_dir()]
    if len(found) == 1 and found[0].name.lower() not in SPELLINGS and len(_named_like_splits(found[0])) > 1:
        return found[0]
    return source


def _named_like_splits(folder: Path) -> dict[str, Path]:
    """Folders by the split that their name stands for.

    Raises:
        InputError: two stand for the same.
    """
    found: dict[str, Path] = {}
    for inner in listing.entries_of_any_name(folder):
        split = SPELLINGS.get(inner.name.lower())
        if not split or not inner.is_dir():
            continue
        if (other := found.setdefault(split, inner)) != inner and listing.folders(inner):
            raise InputError(f"{folder}: has {other.name}/ and {inner.name}/; keep one of them")
    return found


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits. A class may be called "train" like any other: then no folders lie in it."""
    found = _named_like_splits(root)
    if len(found) == len(SPLITS):
        return found
    return {split: folder for split, folder in found.items() if listing.folders(folder)}


def _classes_of_split(folder: Path) -> Folders:
    classes = class_folders(folder)
    if not classes:
        raise InputError(f"{folder}: {_contents(folder)}; expected a folder per class")
    return classes


def _check_apart(root: Path, given: dict[str, Path], splits: dict[str, Folders]) -> None:
    first: dict[str, str] = {}
    for split, folders in splits.items():
        shared = [name for name in folders if first.setdefault(name, split) != split]
        # As val/images and test/images of Tiny ImageNet.
        if shared and len(folders) == len(splits[first[shared[0]]]) == 1:
            train = given["train"]
            raise InputError(
                f"{root}: {given[split].name}/ holds one folder, {shared[0]!r}, instead of one for each class; to "
                f"split the classes of {train.name}/ at random, name {train}"
            )
        if shared:
            other = given[first[shared[0]]].name
            more = f" and {len(shared) - 1} others" if len(shared) > 1 else ""
            raise InputError(
                f"{root}: class {shared[0]!r}{more} stands in {other}/ and in {given[split].name}/, but few-shot "
                "learning splits classes, not images: put all images of a class into one folder, SOURCE/CLASS/image"
            )


def _contents(folder: Path) -> str:
    count = len(listing.entries(folder))
    return f"holds {count} files and no folders" if count else "is empty"


def describe_passed_over(source: Path, class_folders: set[Path]) -> list[str]:
    """One line on the text and tables in class folders and around them, or none."""
    around = {parent for folder in class_folders for parent in folder.parents if parent.is_relative_to(source)}
    found = [
        entry
        for folder in sorted(class_folders | around - {source})
        for entry in listing.entries(folder)
        if listing.is_description(entry)
    ]
    if not found:
        return []
    return [f"{len(found)} text files beside images are passed over, e.g. {found[0].relative_to(source)}"]


def names_file(source: Path, classes: list[str]) -> Path | None:
    """A file of names in words in the source, or beside it, where classes are called by their WordNet ids."""
    if not classes or not all(WORDNET_ID.fullmatch(name.rpartition("/")[2]) for name in classes):
        return None
    places = (folder / name for folder in (source, source.absolute().parent) for name in NAME_FILES)
    return next((place for place in places if place.is_file()), None)


def read_names(path: Path) -> dict[str, str]:
    """From WordNet ids to the first of their names, of lines such as `n01443537<TAB>goldfish, Carassius auratus`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read(LARGEST_NAME_FILE).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as names of classes ({error})") from None
    pairs = (line.split(maxsplit=1) for line in lines)
    names = {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
    return {wordnet_id: name for wordnet_id, name in names.items() if name}


def in_words(classes: list[str], names: dict[str, str]) -> dict[str, str]:
    """New names of classes; those that two classes would share keep the id behind them."""
    words = {name: names.get(name.rpartition("/")[2], name) for name in classes}
    times = Counter(words.values())
    return {name: word if times[word] == 1 else f"{word} ({name})" for name, word in words.items()}


def watched_files(source: Path) -> list[str]:
    """All files that a preparation may read from a source: an edit of one of them prepares it again.

    Published files and split lists in the folder itself, names of classes, and the images of its classes. Pipes,
    sockets, devices and links to nowhere are not listed; the preparation names them.

    Raises:
        InputError: as of `find_layout`, unless the source has published files, or no class folders.
    """
    if not source.is_dir():
        return []
    published = published_files(source)
    try:
        layout = find_layout(source)
    except NoClassesError:
        return sorted(map(str, published))
    except InputError:
        if not published:
            raise
        return sorted(map(str, published))
    names = names_file(source, [name for folders in (*layout.splits.values(), layout.classes) for name in folders])
    images = [file for folder in layout.every_folder() for file in _watched_in(folder)]
    return sorted(map(str, [*published, *([names] if names else []), *images]))


def _watched_in(folder: Path) -> list[Path]:
    return [entry for entry in listing.without_descriptions(listing.entries(folder)) if entry.is_file()]


def published_files(source: Path) -> list[Path]:
    """Files in the folder itself by which published data sets are recognised."""
    return [
        entry
        for entry in source.iterdir()
        if (entry.suffix.lower() in PUBLISHED_SUFFIXES or entry.name in LISTS) and entry.is_file()
    ]
