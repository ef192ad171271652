"""Options of the stage prepare_dataset. Imports no torch."""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from metantk.options.base import Count, Options, Seed
from metantk.runtime.files import InputError

# Sources that are downloaded if missing; of the others, `glyphs` is rendered, and any other name is a folder.
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
# Of which published accuracies are known, in results/published/benchmarks.csv.
BENCHMARKS = {"cifar-fs", "fc100"}
# Options that not every source has.
ONLY_OMNIGLOT = ("rotations",)
ONLY_TORCHVISION, ONLY_FOLDERS = ("published_split",), ("split_by_group", "skip_unreadable")


class DatasetOptions(Options):
    """Source and image size of a data set (stage prepare_dataset)."""

    source: str = Field(
        min_length=1,
        description="Source of the images. `glyphs`: rendered from fonts, needs no files. `cifar-fs`, `fc100`, "
        "`omniglot` or `torchvision:NAME`: downloaded if missing. Otherwise a folder of images, or of published "
        "files of miniImageNet, tieredImageNet, CIFAR-FS or FC100",
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = Field(
        None,
        description="Height and width of the prepared images, in pixels; null: those of the source (28 for "
        "`glyphs` and `omniglot`, 84 for a folder of images)",
    )
    images_per_class: Annotated[int, Field(ge=2, le=10_000)] | None = Field(
        None,
        description="Greatest number of images of each class, sampled by `seed`; null: all of them, or 60 for "
        "`glyphs`",
    )
    ways: Count = Field(5, description="Least number of classes in each split; for a folder of images")
    seed: Seed = Field(
        0,
        description="Random seed of the rendered images (`glyphs`), or of the class split where none is published",
    )
    split_by_group: bool = Field(
        False,
        description="Assign all classes of a parent folder to the same split; for a folder of folders without "
        "splits",
    )
    published_split: bool = Field(
        True,
        description="Use the class split of Meta-Dataset, which DTD, Flowers102 and FGVCAircraft of torchvision "
        "have; false: a random split by `seed`",
    )
    skip_unreadable: bool = Field(
        False,
        description="Skip files of a folder that are not readable images, and list them in manifest.json; false: "
        "stop with an error",
    )
    rotations: bool = Field(
        False,
        description="Add characters rotated by 90, 180 and 270 degrees as further classes; for `omniglot` only",
    )
    download_folder: str = Field(
        "data", description="Folder of downloaded files, which is searched before a download"
    )

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
    for path in (folder, *(folder / split for split in ("train", "val", "test"))):
        if Path(source).resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(f"{path}: is or lies in {source}, whose files are images; name another folder")


def unknown_word(source: str) -> str | None:
    """What is wrong with a source that is one word, and neither a name nor a folder here."""
    if source in NAMED_SOURCES or Path(source).exists() or len(Path(source).parts) > 1:
        return None
    close = difflib.get_close_matches(source.lower(), NAMED_SOURCES, n=1)
    hint = f", do you mean {close[0]!r}?" if close else ""
    known = "glyphs, cifar-fs, fc100, omniglot or torchvision:..."
    return f"source {source!r}: is no folder here, and not {known}{hint}"
