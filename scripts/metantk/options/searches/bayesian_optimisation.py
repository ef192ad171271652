"""Options of the Bayesian optimisation. Imports no torch."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.budget import Budgeted
from metantk.options.searches.measuring import MeasuringOptions


class BayesianOptimisationOptions(Budgeted, MeasuringOptions):
    """Bayesian optimisation of whole architectures: a Gaussian process as surrogate, and Thompson sampling."""

    kind: Literal["bayesian-optimisation"] = "bayesian-optimisation"
    initial_samples: int = Field(
        200, ge=10, description="Random architectures measured first, balanced over operations and edges"
    )
    samples_per_round: int = Field(
        40, ge=2, description="Architectures measured per round, with the same random weights and images"
    )
    max_evaluations: Count | None = Field(
        None,
        description="Largest number of architectures measured; null: as many as cost what the search `prune` "
        "costs with `repeats: 1`",
    )
    tolerance: float = Field(
        0.25,
        ge=0,
        description="Expected distance of the best architecture from the optimum at which the search ends. Its "
        "unit is the standard deviation over random architectures",
    )
    random_comparisons: int = Field(
        100,
        ge=0,
        description="Random architectures with which the result is compared, on fresh weights and images; 0: none",
    )


Options = BayesianOptimisationOptions
