"""Whether a data set has what the rows of a configuration take from it.

Said before its images are read, or, of one that is prepared, before any job. Imports no numpy.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from metantk.data.listing import watched_files
from metantk.data.manifest import Manifest
from metantk.options.base import Need, Options, explain_all
from metantk.options.dataset import NAMED_SOURCES, DatasetOptions
from metantk.runtime.files import InputError, canonical_json, parse_json
from metantk.runtime.typed_files import read_record


class NamedNeed(Options):
    """A need, and who has it."""

    of: str = Field(max_length=300)
    split: str = Field(pattern="^(train|val|test)$")
    classes: int = Field(ge=1)
    each: int = Field(ge=1)
    images: int = Field(ge=1)
    side: int = Field(ge=1)


NEEDS = TypeAdapter(list[NamedNeed])


def needs_to_json(needs: list[tuple[str, Need]]) -> str:
    """Of equal needs one stands for all, so that another row that needs no more changes nothing."""
    first: dict[Need, str] = {}
    for of, need in needs:
        first.setdefault(need, of)
    return canonical_json([{"of": of, **need._asdict()} for need, of in sorted(first.items())])


def needs_from_json(text: str) -> list[NamedNeed]:
    """Raises `InputError` where it is something else."""
    try:
        return NEEDS.validate_python(parse_json(text))
    except ValidationError as error:
        raise InputError(f"--needs: is no list of needs ({explain_all(error.errors())})") from None
    except ValueError as error:
        raise InputError(f"--needs: is not JSON ({error})") from None


class Counts(NamedTuple):
    """Of a split: classes, images of the smallest, images of all, pixels of the shorter side."""

    classes: int
    smallest: int
    images: int
    side: int


def counts_of_splits(splits: dict) -> dict[str, Counts]:
    """Of splits as they are streamed, none of whose images is read yet."""
    return {
        name: Counts(
            len(split.class_names),
            min(Counter(split.labels.tolist()).values()),
            len(split.labels),
            min(split.shape[:2]),
        )
        for name, split in splits.items()
    }


def counts_of_manifest(manifest: Manifest) -> dict[str, Counts]:
    entries = {name: getattr(manifest.splits, name) for name in ("train", "val", "test")}
    return {
        name: Counts(len(entry.classes), entry.smallest_class, entry.images, min(entry.shape[:2]))
        for name, entry in entries.items()
    }


def check_needs(counts: dict[str, Counts], needs: list[NamedNeed], *, where: Path | str) -> None:
    """Compare needs with what there is, by split.

    Raises:
        InputError: naming what is too little, and for what; the first three, and how many others there are.
    """
    problems = []
    for need in needs:
        found = counts[need.split]
        checks = (
            (found.classes, need.classes, "has {} classes, {} are needed"),
            (found.smallest, need.each, "has {} images in its smallest class, {} are needed"),
            (found.images, need.images, "has {} images, {} are needed"),
            (found.side, need.side, "has images of {} pixels, {} are needed"),
        )
        problems += [
            f"{need.split} {text.format(there, needed)} by {need.of}"
            for there, needed, text in checks
            if there < needed
        ]
    if problems:
        raise InputError(f"{where}: too little data: {'; '.join(problems[:3])}" + _others(len(problems) - 3))


def check_prepared(folder: Path, options: DatasetOptions, needs: list[tuple[str, Need]]) -> None:
    """Compare needs with data that are prepared already; data that a run would prepare anew are passed over.

    Args:
        options: of the data set; other ones than the manifest's, or newer files, prepare it anew.

    Raises:
        InputError: as of `check_needs`.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return
    try:
        manifest = read_record(path, Manifest, stage="prepare_dataset")
    except InputError:
        return  # who reads it says so; here it would be in the way of preparing it again
    if manifest.model_extra.get("options") != options.model_dump() or _is_edited(options.source, path):
        return
    check_needs(counts_of_manifest(manifest), needs_from_json(needs_to_json(needs)), where=folder)


def _is_edited(source: str, manifest: Path) -> bool:
    """Whether a file of a folder, or a folder in it, is newer than its manifest."""
    if source in NAMED_SOURCES:
        return False
    files = [Path(file) for file in watched_files(Path(source))]
    places = {Path(source), *(parent for file in files for parent in (file.parent, file.parent.parent))}
    return any(place.stat().st_mtime > manifest.stat().st_mtime for place in [*files, *places])


def _others(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
