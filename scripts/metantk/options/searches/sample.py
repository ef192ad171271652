"""Options of a uniform draw of an architecture."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.base import Options as Base


class SampleOptions(Base):
    """A uniform draw: an operation for each edge, two inputs for each node (search `sample`)."""

    uses_device: ClassVar[bool] = False

    kind: Literal["sample"] = "sample"
    space: Literal["few-shot", "darts"] = Field("few-shot", description="operations and nodes of a cell")
    distinct: Count | None = Field(
        None,
        description="number of architectures: later seeds take the same ones again, so that one is trained with "
        "several seeds; null: each seed has its own",
    )


Options = SampleOptions
