"""Options of a uniform draw of an architecture."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base


class SampleOptions(Base):
    """A uniform draw: an operation for each edge, two inputs for each node (search `sample`)."""

    uses_device: ClassVar[bool] = False

    kind: Literal["sample"] = "sample"
    space: Literal["few-shot", "darts"] = Field("few-shot", description="operations and nodes of a cell")


Options = SampleOptions
