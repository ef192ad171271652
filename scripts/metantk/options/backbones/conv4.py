"""Options of the backbone `conv4`: the four convolutions of MAML and ANIL. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Need, parse
from metantk.options.base import Options as Base


class Architecture(Base):
    """All that builds the network."""

    kind: Literal["conv4"]
    channels: int = Field(32, ge=1, le=4096, description="filters of each convolution")
    image_size: int = Field(84, ge=16, le=1024, description="height and width of the pictures, in pixels")


class Conv4Options(Base):
    """The published sizes of MAML and ANIL, 32.9 thousand parameters for 5 classes, are those of 32 filters."""

    searchable: ClassVar[bool] = False

    kind: Literal["conv4"] = Field("conv4", description="four convolutions, as in MAML and ANIL")
    channels: int = Field(32, ge=1, le=4096, description="filters of each convolution")

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
            InputError: the pictures are too small or too large.
        """
        values = {"kind": self.kind, "channels": self.channels, "image_size": image_size}
        return parse(Architecture, values, where="backbone conv4").model_dump()


Options = Conv4Options
