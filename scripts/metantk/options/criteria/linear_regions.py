"""Options of the count of linear regions."""

from pydantic import Field, model_validator

from metantk.options.base import Count
from metantk.options.base import Options as Base


class LinearRegionsOptions(Base):
    """The count of ReLU patterns of the thin network (facts of TE-NAS, Definition 1)."""

    images: int = Field(3000, ge=2, description="Number of inputs whose activation patterns are counted")
    batches: Count = Field(
        3, description="Number of batches that the inputs are divided into; each is normalised by itself"
    )
    crop_size: int = Field(3, ge=1, description="Height and width of an input, in pixels")

    @model_validator(mode="after")
    def _batches_have_images(self) -> "LinearRegionsOptions":
        if self.batches * 2 > self.images:
            raise ValueError(f"{self.images} images are too few for {self.batches} batches")
        return self


Options = LinearRegionsOptions
