"""Options of the backbone `pixels`: the images themselves. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base
from metantk.options.base import parse


class Architecture(Base):
    """All that builds it."""

    kind: Literal["pixels"]
    image_size: int = Field(ge=8, le=1024, description="height and width of the images, in pixels")


class PixelsOptions(Base):
    """No network: the yardstick that every network should pass. Its learner is `none`."""

    searchable: ClassVar[bool] = False
    frozen: ClassVar[bool] = True

    kind: Literal["pixels"] = Field("pixels", description="the images' own pixels as features")

    @property
    def title(self) -> str:
        """For tables."""
        return "Raw pixels"

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype."""
        return parse(
            Architecture, {"kind": self.kind, "image_size": image_size}, where="backbone pixels"
        ).model_dump()


Options = PixelsOptions
