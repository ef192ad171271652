"""Options of the best of some random architectures. Imports no torch."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.budget import Budgeted
from metantk.options.searches.measuring import MeasuringOptions


class BestOfOptions(Budgeted, MeasuringOptions):
    """The best of some random architectures by the sum of their ranks under each criterion."""

    kind: Literal["best-of"] = "best-of"
    architectures: Count = Field(
        100, description="Random architectures, which are measured with the same random weights and images"
    )


Options = BestOfOptions
