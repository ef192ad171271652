"""Options of the stage prepare_dataset. Imports no torch."""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from metantk.options.base import Count, Options, Seed
from metantk.runtime.files import InputError

# Sources that are fetched where they are missing; besides them `glyphs` is drawn, and every other is a folder.
TORCHVISION = "torchvision:"
TORCHVISION_SETS = (
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EuroSAT",
    "FGVCAircraft",
    "Flowers102",
    "Food101",
    "GTSRB",
    "OxfordIIITPet",
    "StanfordCars",
    "SUN397",
)
FETCHED_SOURCES = ("cifar-fs", "fc100", "omniglot", *(f"{TORCHVISION}{name}" for name in TORCHVISION_SETS))
NAMED_SOURCES = ("glyphs", *FETCHED_SOURCES)
# Options that not every source has.
ONLY_OMNIGLOT = ("rotations",)
ONLY_TORCHVISION, ONLY_FOLDERS = ("published_split",), ("split_by_group", "skip_unreadable")


class DatasetOptions(Options):
    """Where the images come from and how large they are kept (stage prepare_dataset)."""

    source: str = Field(
        min_length=1,
        description="`glyphs` (drawn from fonts, needs nothing), `cifar-fs`, `fc100`, `omniglot` or one of "
        "torchvision's, such as `torchvision:Caltech101` (fetched where they are missing), or a folder: of "
        "images, or of the files of miniImageNet, tieredImageNet, CIFAR-FS or FC100 as they circulate",
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = Field(
        None,
        description="height and width of the kept images, in pixels; null: the source's own, 28 for `glyphs` and "
        "`omniglot`, 84 for a folder of images",
    )
    images_per_class: Annotated[int, Field(ge=2, le=10_000)] | None = Field(
        None,
        description="greatest number of images of each class, sampled by `seed`; null: all of them, or 60 for "
        "`glyphs`",
    )
    ways: Count = Field(5, description="classes that each part must have at least; for a folder of images")
    seed: Seed = Field(
        0, description="of the drawing (`glyphs`) or of the split by class (an unsplit folder, torchvision's)"
    )
    split_by_group: bool = Field(
        False,
        description="of an unsplit folder of nested folders: classes of the same parent folder go to the same part",
    )
    published_split: bool = Field(
        True,
        description="`torchvision:` DTD, Flowers102 and FGVCAircraft have the class split of Meta-Dataset; false, "
        "and all others: split by `seed`",
    )
    skip_unreadable: bool = Field(
        False,
        description="leave out files of a folder that are no readable images, and name them in manifest.json, "
        "instead of stopping",
    )
    rotations: bool = Field(
        False, description="`omniglot` only: each character turned by 90, 180 and 270 degrees is a class, too"
    )
    download_folder: str = Field("data", description="where what is fetched is looked for, and downloaded to")

    @field_validator("source")
    @classmethod
    def _is_one_of_torchvisions(cls, source: str) -> str:
        if source.startswith(TORCHVISION) and source not in FETCHED_SOURCES:
            raise ValueError(f"{source}: there are {TORCHVISION}{', '.join(TORCHVISION_SETS)}")
        return source

    @model_validator(mode="after")
    def _options_are_the_sources(self) -> "DatasetOptions":
        for names, has in (
            (ONLY_OMNIGLOT, self.source == "omniglot"),
            (ONLY_TORCHVISION, self.source.startswith(TORCHVISION)),
            (ONLY_FOLDERS, self.source not in NAMED_SOURCES),
        ):
            for name in names:
                if not has and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: does nothing for source {self.source!r}; leave it out")
        return self


def check_outside(folder: Path, source: str) -> None:
    """Refuse to write among the images of a source.

    Raises:
        InputError: the folder, or that of a split in it, is or lies in that of the source.
    """
    if source in NAMED_SOURCES:
        return
    for place in (folder, *(folder / part for part in ("train", "val", "test"))):
        if Path(source).resolve() in (place.resolve(), *place.resolve().parents):
            raise InputError(f"{place}: is or lies in {source}, whose files are images; name another place")


def unknown_word(source: str) -> str | None:
    """What is wrong with a source that is one word, and neither a name nor a folder here."""
    if source in NAMED_SOURCES or Path(source).exists() or len(Path(source).parts) > 1:
        return None
    close = difflib.get_close_matches(source.lower(), NAMED_SOURCES, n=1)
    hint = f", do you mean {close[0]!r}?" if close else ""
    known = "glyphs, cifar-fs, fc100, omniglot or torchvision:..."
    return f"source {source!r}: is no folder here, and not {known}{hint}"
