"""Whether a prepared data set has what the rows of a configuration take from it. Imports no numpy."""

from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from metantk.datasets.listing import watched_files
from metantk.datasets.manifest import Manifest
from metantk.options.base import Need, Options
from metantk.options.dataset import NAMED_SOURCES, DatasetOptions
from metantk.storage import InputError, canonical_json, parse_json
from metantk.typed_files import read_record


class NamedNeed(Options):
    """A need, and who has it."""

    of: str = Field(max_length=300)
    part: str = Field(pattern="^(train|val|test)$")
    classes: int = Field(ge=1)
    each: int = Field(ge=1)
    pictures: int = Field(ge=1)
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
    except (ValueError, ValidationError) as error:
        raise InputError(f"--needs: is no list of needs ({str(error).splitlines()[0]})") from None


def check_needs(manifest: dict, needs: list[NamedNeed], *, where: Path | str) -> None:
    """Compare needs with a manifest.

    Raises:
        InputError: naming what is too little, and for what; the first, and how many others there are.
    """
    splits = Manifest.model_validate(manifest).splits
    problems = []
    for need in needs:
        entry = getattr(splits, need.part)
        checks = (
            (len(entry.classes), need.classes, "has {} classes, {} are needed"),
            (entry.smallest_class, need.each, "has {} pictures in its smallest class, {} are needed"),
            (entry.pictures, need.pictures, "has {} pictures, {} are needed"),
            (min(entry.shape[:2]), need.side, "has pictures of {} pixels, {} are needed"),
        )
        problems += [
            f"{need.part} {text.format(found, needed)} by {need.of}"
            for found, needed, text in checks
            if found < needed
        ]
    if problems:
        raise InputError(f"{where}: too little data: {'; '.join(problems[:3])}" + _others(len(problems) - 3))


def check_prepared(folder: Path, options: DatasetOptions, needs: list[tuple[str, Need]]) -> None:
    """Compare needs with data that are prepared already; data that a run would prepare anew are passed over.

    Args:
        options: of the data set; other ones than the manifest's, or newer files, prepare it anew.

    Raises:
        InputError: as of `check_needs`; or the manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return
    manifest = read_record(path, Manifest, stage="prepare_dataset").model_dump()
    is_named = options.source in NAMED_SOURCES
    sources = [] if is_named else [Path(file) for file in watched_files(Path(options.source))]
    written = path.stat().st_mtime
    if manifest.get("options") != options.model_dump() or any(file.stat().st_mtime > written for file in sources):
        return
    check_needs(manifest, needs_from_json(needs_to_json(needs)), where=folder)


def _others(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
