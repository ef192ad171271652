"""Splits by lists, as Ravi and Larochelle (2017) made them for miniImageNet: train.csv, val.csv, test.csv.

Each has the columns `filename` and `label`. The images lie in images/ (as the data set is passed around), beside
the lists, or in a folder per class or split; a filename may be a path below these.
"""

import csv
from pathlib import Path

from metantk.data.folder import Classes
from metantk.data.listing import has_control_characters
from metantk.runtime.files import InputError

PLACES = (
    "images/{filename}",
    "{filename}",
    "{label}/{filename}",
    "images/{label}/{filename}",
    "{split}/{filename}",
    "{split}/{label}/{filename}",
)
COLUMNS = {"filename", "label"}


def find_listed_images(lists: dict[str, Path]) -> dict[str, Classes]:
    """The files of each part by class; classes in order of name, files in the order of the lists.

    Raises:
        InputError: a list is damaged, or images that it names are missing.
    """
    return {split: _find_part(path) for split, path in lists.items()}


def are_other_tables(lists: dict[str, Path]) -> bool:
    """Whether none of the lists has the columns of a split list: tables of something else, by the same names."""
    return not any(set(_read_csv(path)[0]) >= COLUMNS for path in lists.values())


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
    named = {column: row[column] for column in COLUMNS}
    return path.parent / place.format(split=path.stem, **named)


def _read_rows(path: Path) -> list[dict[str, str]]:
    columns, rows = _read_csv(path)
    if not rows or not set(columns) >= COLUMNS:
        raise InputError(f"{path}: has no rows, or lacks the columns 'filename' and 'label' in its first line")
    for index, row in enumerate(rows, start=2):
        if not (_is_name(row["label"]) and all(map(_is_name, (row["filename"] or "").split("/")))):
            raise InputError(
                f"{path}, line {index}: 'filename' and 'label' must be names or paths below the folder"
            )
        if row["label"] != row["label"].strip() or has_control_characters(row["label"]):
            raise InputError(
                f"{path}, line {index}: label {row['label']!r} has spaces around it, or a line break or"
                " another control character, which no table shows; take them out"
            )
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and the rows."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return list(reader.fieldnames or []), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _is_name(name: str | None) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")
