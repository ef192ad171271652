"""Options of the backbone `conv4`: four convolutions, as MAML, ANIL and RFS have them. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Need, parse
from metantk.options.base import Options as Base


class Conv4Options(Base):
    """The published sizes of MAML and ANIL, 32.9 thousand parameters for 5 classes, are those of 32 filters."""

    searchable: ClassVar[bool] = False

    kind: Literal["conv4"] = Field("conv4", description="Four convolutions, as in MAML, ANIL and RFS")
    channels: int = Field(32, ge=1, le=4096, description="Number of filters of each convolution")
    poolings: int = Field(4, ge=1, le=4, description="Number of blocks, from the first, with a max pooling")
    pool: Literal["average", "none"] = Field(
        "none", description="Features: the average over the last map (RFS), or all of its pixels (MAML)"
    )
    initialisation: Literal["xavier_uniform", "kaiming_normal"] = Field(
        "xavier_uniform",
        description="Initial weights: Glorot's uniform (MAML), or Kaiming's normal by fan-out (RFS)",
    )

    @property
    def title(self) -> str:
        """For tables."""
        return "Conv4"

    @property
    def needs(self) -> list[Need]:
        return [Need("train", side=16)]  # four times halved

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype.

        Raises:
            InputError: the images are too small or too large.
        """
        values = self.model_dump() | {"image_size": image_size}
        return parse(Architecture, values, where="backbone conv4").model_dump()


class Architecture(Conv4Options):
    """All that builds the network."""

    image_size: int = Field(84, ge=16, le=1024, description="Height and width of the images, in pixels")


Options = Conv4Options
