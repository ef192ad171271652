"""Options of the Bayesian optimisation. Imports no torch."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.searches.measuring import MeasuringOptions


class BayesianOptimisationOptions(MeasuringOptions):
    """Bayesian optimisation of whole architectures: Gaussian process as surrogate, Thompson sampling of optima."""

    kind: Literal["bayesian-optimisation"] = "bayesian-optimisation"
    initial_samples: int = Field(200, ge=10, description="random architectures, balanced over operations and edges")
    samples_per_round: int = Field(40, ge=2, description="architectures that share the draws of weights and images")
    max_evaluations: Count | None = Field(
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
    random_comparisons: int = Field(
        100, ge=0, description="random architectures with which the result is compared on fresh draws; 0: none"
    )


Options = BayesianOptimisationOptions
