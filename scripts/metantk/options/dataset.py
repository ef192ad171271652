"""Options of the stage prepare_dataset. Imports no torch."""

from typing import Annotated

from pydantic import Field

from metantk.options.base import Count, Options, Seed

# Sources that are fetched where they are missing; besides them `glyphs` is drawn, and every other is a folder.
FETCHED_SOURCES = ("cifar-fs", "fc100", "omniglot")
NAMED_SOURCES = ("glyphs", *FETCHED_SOURCES)


class DatasetOptions(Options):
    """Where the pictures come from and how large they are kept (stage prepare_dataset)."""

    source: str = Field(
        description="`glyphs` (drawn from fonts, needs nothing), `cifar-fs`, `fc100` or `omniglot` (fetched where "
        "they are missing), or a folder: of pictures, or of the files of miniImageNet, tieredImageNet, CIFAR-FS or "
        "FC100 as they circulate"
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = Field(
        None,
        description="height and width of the kept pictures, in pixels; null: the source's own, 28 for `glyphs` and "
        "`omniglot`, 84 for a folder of pictures",
    )
    images_per_class: int = Field(
        60,
        ge=2,
        le=10_000,
        description="pictures drawn per class, for `glyphs` only; all others give all they have",
    )
    ways: Count = Field(5, description="classes that each part must have at least; for a folder of pictures")
    seed: Seed = Field(0, description="of the drawing (`glyphs`) or of the split by class (an unsplit folder)")
    leave_out_unreadable: bool = Field(
        False,
        description="leave out files of a folder that are no readable pictures, and name them in manifest.json, "
        "instead of stopping",
    )
    rotations: bool = Field(
        False, description="`omniglot` only: each character turned by 90, 180 and 270 degrees is a class, too"
    )
    download_folder: str = Field(
        "data", description="where `cifar-fs`, `fc100` and `omniglot` are looked for, and downloaded to"
    )
