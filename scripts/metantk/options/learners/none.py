"""Options of a network that learns nothing."""

from typing import ClassVar, Literal

from metantk.options.base import Options as Base


class NoneOptions(Base):
    """The network as it is drawn, or as it comes; tasks are answered as by `rfs` (learner `none`)."""

    kind: Literal["none"] = "none"
    epochs: ClassVar[int] = 0


Options = NoneOptions
