"""Options of a network that learns nothing."""

from typing import ClassVar, Literal

from metantk.options.base import Options as Base


class NoneOptions(Base):
    """No training: an untrained or pretrained network, and a linear classifier on the features of each episode."""

    uses_device: ClassVar[bool] = False

    kind: Literal["none"] = "none"
    epochs: ClassVar[int] = 0


Options = NoneOptions
