"""Options of the criteria of gradients: of a loss, or of the outputs with respect to the pictures."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.base import Need, Options


class GradientsOptions(Options):
    """The labelled pictures of one batch."""

    draw: Literal["episode", "batch"] = Field(
        "episode",
        description="`episode`: the batch is a few-shot task, with as many pictures of each of its classes and a "
        "head of as many outputs; `batch`: pictures of all training classes, as published",
    )
    ways: int = Field(5, ge=2, description="classes of an episode")
    pictures: int = Field(60, ge=2, description="pictures per batch (published: 64)")

    @model_validator(mode="after")
    def _classes_have_as_many_pictures(self) -> "GradientsOptions":
        if self.draw == "episode" and self.pictures % self.ways:
            raise ValueError(f"{self.pictures} pictures are not as many for each of {self.ways} ways")
        return self

    @property
    def needs(self) -> list[Need]:
        if self.draw == "episode":
            return [Need("train", self.ways, self.pictures // self.ways)]
        return [Need("train", pictures=self.pictures)]
