"""Options of the backbone `pixels`: the images themselves. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base
from metantk.options.base import parse


class PixelsOptions(Base):
    """No network: the baseline that every network should beat. Its learner is `none`."""

    searchable: ClassVar[bool] = False
    frozen: ClassVar[bool] = True

    kind: Literal["pixels"] = Field("pixels", description="Pixels of the images as features")

    @property
    def title(self) -> str:
        """For tables."""
        return "Raw pixels"

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype."""
        values = self.model_dump() | {"image_size": image_size}
        return parse(Architecture, values, where="backbone pixels").model_dump()


class Architecture(PixelsOptions):
    """All that builds it."""

    image_size: int = Field(ge=8, le=1024, description="Height and width of the images, in pixels")


Options = PixelsOptions
