"""Options of backbones without a search."""

from typing import ClassVar, Literal

from metantk.options.base import Options as Base


class FixedOptions(Base):
    """No search, for backbones whose options determine the whole network."""

    uses_device: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    kind: Literal["fixed"] = "fixed"


Options = FixedOptions
