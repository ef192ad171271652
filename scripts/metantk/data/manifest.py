"""What manifest.json says of a prepared data set. Imports no numpy: the workflow reads it, too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metantk.runtime.typed_files import Record, Text

LARGEST_IMAGE = 1024  # pixels, of a side
LONGEST_NAME = 255  # characters of a class's name
MOST_CLASSES = 10**5

Side = Annotated[int, Field(ge=1, le=LARGEST_IMAGE)]
ClassName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Channel = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class SplitEntry(Record):
    """One split.

    Attributes:
        shape: of an image, height, width and channels.
        smallest_class: images of the class that has the fewest.
        smallest_class_name: of the first such class.
        sha256: of images.npy and labels.npy.
    """

    images: int = Field(ge=1, le=10**9)
    shape: list[Side] = Field(min_length=3, max_length=3)
    classes: list[ClassName] = Field(min_length=1, max_length=MOST_CLASSES)
    smallest_class: int = Field(ge=1)
    smallest_class_name: ClassName | None = None
    sha256: dict[Literal["images.npy", "labels.npy"], Checksum] = Field(min_length=2)

    @model_validator(mode="after")
    def _counts_fit(self) -> "SplitEntry":
        if self.shape[2] != 3:
            raise ValueError(f"shape is {self.shape}, not (height, width, 3)")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: one is listed twice")
        if self.smallest_class * len(self.classes) > self.images:
            raise ValueError("smallest_class: there are fewer images")
        return self


class Splits(Record):
    train: SplitEntry
    val: SplitEntry
    test: SplitEntry


class Manifest(Record):
    """manifest.json; mean and std are of the training split, per channel, of images in 0..1.

    Attributes:
        bits: that 16-bit images use, by which they were scaled; none without such images.
    """

    name: Text
    source: str
    licence: str
    warnings: list[str]
    bits: int | None = Field(None, ge=8, le=16)
    mean: list[Channel] = Field(min_length=3, max_length=3)
    std: list[Deviation] = Field(min_length=3, max_length=3)
    splits: Splits

    @model_validator(mode="after")
    def _splits_fit(self) -> "Manifest":
        if not self.splits.train.shape == self.splits.val.shape == self.splits.test.shape:
            raise ValueError("splits: their images have different shapes")
        named = [name for entry in (self.splits.train, self.splits.val, self.splits.test) for name in entry.classes]
        if len(set(named)) < len(named):
            raise ValueError("splits: a class stands in two of them")
        return self
