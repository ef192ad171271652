"""Options of the backbone `resnet12`: the ResNet-12 of MetaOptNet and RFS. Imports no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Need, parse
from metantk.options.base import Options as Base

LARGE_IMAGE = 64  # pixels; the published block sizes are those of 84 and of 32 pixels
Width = Annotated[int, Field(ge=1, le=8192)]
BlockSize = Annotated[int, Field(ge=1, le=64)]


class ResNet12Options(Base):
    """Four stages of three convolutions with a shortcut each."""

    searchable: ClassVar[bool] = False

    kind: Literal["resnet12"] = Field("resnet12", description="ResNet-12 of MetaOptNet and RFS")
    widths: list[Width] = Field(
        [64, 160, 320, 640], min_length=4, max_length=4, description="Channels of the four stages"
    )
    pool: Literal["average", "none"] = Field(
        "average", description="Features: the average over the last map (RFS), or all of its pixels (MetaOptNet)"
    )
    block_size: BlockSize | None = Field(
        None,
        description="Side of the squares that DropBlock zeroes, in pixels of the map; null for 5, or 2 on images "
        "below 64 pixels",
    )

    @property
    def title(self) -> str:
        """For tables."""
        return "ResNet-12"

    @property
    def needs(self) -> list[Need]:
        return [Need("train", side=16)]  # four times halved

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype.

        Raises:
            InputError: the images are too small or too large.
        """
        values = self.model_dump() | {"image_size": image_size}
        if self.block_size is None:
            values["block_size"] = 5 if image_size >= LARGE_IMAGE else 2
        return parse(Architecture, values, where="backbone resnet12").model_dump()


class Architecture(ResNet12Options):
    """All that builds the network."""

    image_size: int = Field(84, ge=16, le=1024, description="Height and width of the images, in pixels")
    block_size: BlockSize = 5


Options = ResNet12Options
