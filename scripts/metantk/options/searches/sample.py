"""Options of random architectures."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Count, Space
from metantk.options.budget import Budgeted


class SampleOptions(Budgeted):
    """A random architecture: uniform samples of an operation for each edge and of two inputs for each node."""

    uses_device: ClassVar[bool] = False

    kind: Literal["sample"] = "sample"
    space: Space = "few-shot"
    distinct: Count | None = Field(
        None,
        description="Number of distinct architectures. Later seeds use them again, so that one is trained with "
        "several seeds; null: one per seed",
    )


Options = SampleOptions
