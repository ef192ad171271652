"""The split lists of Ravi and Larochelle (2017) for miniImageNet: train.csv, val.csv, test.csv.

Each has the columns `filename` and `label`. The images lie in images/ (as the data set is passed around), beside
the lists, or in a folder per class.
"""

import csv
from pathlib import Path

from metantk.data.folder import Classes
from metantk.runtime.files import InputError

PLACES = ("images/{filename}", "{filename}", "{label}/{filename}", "images/{label}/{filename}")


def find_listed_images(lists: dict[str, Path]) -> dict[str, Classes]:
    """The files of each part by class; classes in order of name, files in the order of the lists.

    Raises:
        InputError: a list is damaged, or images that it names are missing.
    """
    return {split: _find_part(path) for split, path in lists.items()}


def _find_part(path: Path) -> Classes:
    rows = _read_rows(path)
    place = next((place for place in PLACES if _at(path, place, rows[0]).is_file()), None)
    if place is None:
        tried = ", ".join(PLACES)
        raise InputError(f"{path}: its first image, {rows[0]['filename']!r}, is not there; looked for {tried}")
    classes: Classes = {label: [] for label in sorted({row["label"] for row in rows})}
    for row in rows:
        classes[row["label"]].append(_at(path, place, row))
    missing = [file.name for files in classes.values() for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{path}: {len(missing)} of {len(rows)} images are missing, the first is {missing[0]}")
    return classes


def _at(path: Path, place: str, row: dict[str, str]) -> Path:
    return path.parent / place.format(**row)


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not rows or not {"filename", "label"} <= set(rows[0]):
        raise InputError(f"{path}: has no rows, or lacks the columns 'filename' and 'label'; download it again")
    for index, row in enumerate(rows, start=2):
        if not all(_is_plain_name(row[column]) for column in ("filename", "label")):
            raise InputError(f"{path}, line {index}: 'filename' and 'label' must be names, without folders")
    return rows


def _is_plain_name(name: str | None) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")
