"""Options of the search by experiment."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.searches.measuring import MeasuringOptions


class FitOptions(MeasuringOptions):
    """Measure whole architectures, fit a model, measure those that it thinks best, and so on (search `fit`)."""

    kind: Literal["fit"] = "fit"
    first_sample: int = Field(200, ge=10, description="random architectures, balanced over operations and edges")
    block: int = Field(40, ge=2, description="architectures that share the draws of weights and pictures")
    measurements: Count | None = Field(
        None,
        description="architectures that are measured at most; null: as many as cost what `prune` costs with one "
        "draw",
    )
    tolerance: float = Field(
        0.25,
        ge=0,
        description="the search ends when the best architecture is expected to be so little worse than the true "
        "optimum, in standard deviations between random architectures",
    )
    certificate: int = Field(
        100, ge=0, description="random architectures with which the result is compared on fresh draws; 0: none"
    )


Options = FitOptions
