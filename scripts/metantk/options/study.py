"""Options of the study of criteria. Imports no torch."""

from typing import Annotated

from pydantic import Field, field_validator

from metantk.options.base import Count
from metantk.options.searches.measuring import Criteria, MeasuringOptions

LEAST_ARCHITECTURES = 4  # fewer have no ranks to compare
Epochs = Annotated[float, Field(gt=0, le=1000)]


class StudyOptions(MeasuringOptions):
    """Comparison of criteria with the test accuracy of every architecture of the rows."""

    criteria: Criteria | None = Field(
        None,
        description="Criteria to compare, as in the search `prune`; null, in a configuration: all built-in ones "
        "without training",
    )
    repeats: Count = Field(
        3,
        description="Repeats with fresh weights and images, which all architectures share; scores are their means",
    )
    short_training_epochs: list[Epochs] = Field(
        [0.25, 1.0, 2.0, 4.0],
        description="Epochs of one short training after which its validation accuracy counts as a criterion",
    )

    @field_validator("short_training_epochs")
    @classmethod
    def _ascends(cls, epochs: list[float]) -> list[float]:
        if sorted(set(epochs)) != epochs:
            raise ValueError("must ascend")
        return epochs


Options = StudyOptions
