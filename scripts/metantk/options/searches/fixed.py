"""Options of a backbone in which there is nothing to find."""

from typing import ClassVar, Literal

from metantk.options.base import Options as Base


class FixedOptions(Base):
    """Nothing to find: the backbone's own dimensions say all (search `fixed`)."""

    uses_device: ClassVar[bool] = False

    kind: Literal["fixed"] = "fixed"


Options = FixedOptions
