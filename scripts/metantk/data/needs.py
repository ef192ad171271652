"""Whether a data set has what the rows of a configuration take from it.

Said before its images are read, or, of one that is prepared, before any job. Imports no numpy.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from metantk.data.layouts import NoClassesError, published_files, watched_files
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
    """Of a split: classes, images of the smallest and of all, pixels of the shorter side, name of the smallest."""

    classes: int
    smallest: int
    images: int
    side: int
    name: str | None


def counts_of_splits(splits: dict) -> dict[str, Counts]:
    """Of splits as they are streamed, none of whose images is read yet."""
    counts = {}
    for name, split in splits.items():
        images = Counter(split.labels.tolist())
        counts[name] = _count(split.class_names, [images[k] for k in sorted(images)], min(split.shape[:2]))
    return counts


def _count(names: list[str], images: list[int], side: int) -> Counts:
    """Counts of a split, of the numbers of images of its classes."""
    smallest = min(images)
    return Counts(len(names), smallest, sum(images), side, names[images.index(smallest)])


def counts_of_manifest(manifest: Manifest) -> dict[str, Counts]:
    entries = {name: getattr(manifest.splits, name) for name in ("train", "val", "test")}
    return {
        name: Counts(
            len(entry.classes),
            entry.smallest_class,
            entry.images,
            min(entry.shape[:2]),
            entry.smallest_class_name,
        )
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
        smallest = f"its smallest class {found.name!r}" if found.name else "its smallest class"
        checks = (
            (found.classes, need.classes, f"{found.classes} classes"),
            (found.smallest, need.each, f"{found.smallest} images in {smallest}"),
            (found.images, need.images, f"{found.images} images"),
            (found.side, need.side, f"images of {found.side} pixels"),
        )
        problems += [
            f"{need.split} has {text}, {needed} are needed by {need.of}"
            for there, needed, text in checks
            if there < needed
        ]
    if problems:
        raise InputError(f"{where}: too little data: {'; '.join(problems[:3])}" + _others(len(problems) - 3))


def check_data(folder: Path, options: DatasetOptions, needs: list[tuple[str, Need]]) -> None:
    """Compare needs with the data of a configuration before any job: as they are prepared, or as their folder is.

    Args:
        folder: of the prepared data.
        options: of the data set; other ones than the manifest's, or newer files, prepare it anew.

    Raises:
        InputError: as of `check_needs`; or the folder is no source, as its preparation would say.
    """
    manifest = _valid_manifest(folder / "manifest.json", options)
    counts = counts_of_manifest(manifest) if manifest else _counts_of_folder(options)
    if counts:
        where = folder if manifest else options.source
        check_needs(counts, needs_from_json(needs_to_json(needs)), where=where)


def _valid_manifest(path: Path, options: DatasetOptions) -> Manifest | None:
    """The manifest of data that a run would not prepare anew."""
    if not path.is_file():
        return None
    try:
        manifest = read_record(path, Manifest, stage="prepare_dataset")
    except InputError:
        return None  # who reads it says so; here it would be in the way of preparing it again
    is_other = manifest.model_extra.get("options") != options.model_dump() or _is_edited(options.source, path)
    return None if is_other else manifest


def _counts_of_folder(options: DatasetOptions) -> dict[str, Counts] | None:
    """Of class folders that are not prepared yet; None of other sources, and of a folder that is not here."""
    source = Path(options.source)
    if options.source in NAMED_SOURCES or not source.exists():
        return None
    if source.is_dir() and published_files(source):
        return None
    # Imported here: NumPy splits the classes, and whoever has no such folder does without it.
    from metantk.data.folder import SIZE, find_images

    try:
        splits = find_images(source, seed=options.seed, ways=options.ways, split_by_group=options.split_by_group)
    except NoClassesError as error:
        raise InputError(f"{error}; expected a folder per class, or the files of a published data set") from None
    most, side = options.images_per_class, options.image_size or SIZE
    return {
        split: _count(list(classes), [len(files[:most]) for files in classes.values()], side)
        for split, classes in splits.items()
    }


def _is_edited(source: str, manifest: Path) -> bool:
    """Whether a file of a folder, or a folder in it, is newer than its manifest."""
    if source in NAMED_SOURCES:
        return False
    files = [Path(file) for file in watched_files(Path(source))]
    places = {Path(source), *(parent for file in files for parent in (file.parent, file.parent.parent))}
    return any(place.stat().st_mtime > manifest.stat().st_mtime for place in [*files, *places])


def _others(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
