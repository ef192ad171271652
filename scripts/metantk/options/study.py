"""Options of the study of what criteria are worth. Imports no torch."""

from typing import Annotated

from pydantic import Field, field_validator

from metantk.options.base import Count
from metantk.options.searches.measuring import Criteria, MeasuringOptions

Epochs = Annotated[float, Field(gt=0, le=1000)]


class StudyOptions(MeasuringOptions):
    """Every architecture of the rows, scored by many criteria, against the accuracy that it reaches."""

    criteria: Criteria | None = Field(
        None, description="what is compared, as of `prune`; null: all built-in ones that train nothing"
    )
    repeats: Count = Field(3, description="of weights and images, the same for all architectures; scores are means")
    short_training: list[Epochs] = Field(
        [0.25, 1.0, 2.0, 4.0],
        description="epochs of one short training after which its validation accuracy is a criterion, too",
    )

    @field_validator("short_training")
    @classmethod
    def _ascends(cls, epochs: list[float]) -> list[float]:
        if sorted(set(epochs)) != epochs:
            raise ValueError("must ascend")
        return epochs


Options = StudyOptions
