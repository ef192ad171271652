"""Options of the criterion that trains a little."""

from pydantic import Field

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base


class ShortTrainingOptions(Base):
    """A short training of a narrow network, by plain classification, and its accuracy on validation episodes."""

    epochs: float = Field(2.0, gt=0, description="Number of passes over the training split; may be a fraction")
    channels: Count | None = Field(None, description="Number of channels after the stem; null: as the backbone")
    lr: float = Field(0.1, gt=0, description="Learning rate of SGD, constant")
    batch_size: int = Field(32, ge=2, description="Number of images per step")
    padding: int = Field(4, ge=0, description="Pixels added on each side before the random crop")
    ways: int = Field(5, ge=2, description="Number of classes of a validation episode")
    shots: Count = Field(5, description="Number of support images per class")
    queries: Count = Field(15, description="Number of query images per class")
    episodes: int = Field(300, ge=2, description="Number of validation episodes, which all architectures share")

    @property
    def needs(self) -> list[Need]:
        return [Need("train", images=self.batch_size), Need("val", self.ways, self.shots + self.queries)]


Options = ShortTrainingOptions
