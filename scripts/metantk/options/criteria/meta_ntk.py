"""Options of the criteria that are summaries of the MetaNTK."""

from typing import Annotated, Literal

from pydantic import Field

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base


class MetaNtkOptions(Base):
    """The kernel of Eqs. 10-11 and the tasks on which it is computed."""

    kernel: Literal["maml", "anil"] = Field(
        "maml", description="Base kernel of the inner loop: the NTK (maml) or the last layer's NNGP (anil)"
    )
    time: Annotated[float, Field(gt=0)] | Literal["infinite"] = Field(
        "infinite", description="Inner learning rate × training time, λτ, dimensionless"
    )
    ridge: float = Field(
        1.0e-3, ge=0, description="Ridge ρ, added to the diagonal of the support kernel before it is inverted"
    )
    tasks: Count = Field(3, description="Number of few-shot tasks per kernel")
    ways: int = Field(5, ge=1, description="Number of classes per task, and of outputs of the head")
    shots: Count = Field(1, description="Number of support images per class")
    queries: Count = Field(1, description="Number of query images per class")

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, self.shots + self.queries)]


Options = MetaNtkOptions
