"""Options of the criteria of gradients: of a loss, or of the outputs with respect to the images."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.base import Need
from metantk.options.base import Options as Base


class GradientsOptions(Base):
    """The labelled images of one batch."""

    sampling: Literal["episode", "batch"] = Field(
        "episode",
        description="Way of sampling a batch. `episode`: a few-shot task of equally many images per class, for a "
        "head with an output per class. `batch`: images of all training classes, as published",
    )
    ways: int = Field(5, ge=2, description="Number of classes of an episode")
    images: int = Field(60, ge=2, description="Number of images per batch (published: 64)")

    @model_validator(mode="after")
    def _classes_have_as_many_images(self) -> "GradientsOptions":
        if self.sampling == "episode" and self.images % self.ways:
            raise ValueError(f"{self.images} images are not as many for each of {self.ways} ways")
        return self

    @property
    def needs(self) -> list[Need]:
        if self.sampling == "episode":
            return [Need("train", self.ways, self.images // self.ways)]
        return [Need("train", images=self.images)]


Options = GradientsOptions
