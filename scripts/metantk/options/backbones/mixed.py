"""Options of the backbone `mixed`: the network of MetaNAS, in which every edge mixes all operations."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from metantk.options.base import Options as Base
from metantk.options.base import parse

CELLS = Field(4, ge=1, le=100, description="stacked cells")
CHANNELS = Field(28, ge=1, le=4096, description="channels of each node; the stem has three times as many")
Reductions = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=100)]
REDUCTIONS = Field([1, 3], description="numbers of the cells that halve the resolution, from 0")
SPACE = Field("few-shot", description="operations and nodes of a cell")


def _reductions_are_among_the_cells(self: Base) -> Base:
    if max(self.reductions, default=0) >= self.cells:
        raise ValueError(f"reductions {self.reductions} are not among its {self.cells} cells")
    return self


class Architecture(Base):
    """All that builds the network."""

    kind: Literal["mixed"]
    cells: int = CELLS
    channels: int = CHANNELS
    reductions: Reductions = REDUCTIONS
    space: Literal["few-shot", "darts"] = SPACE

    _reductions = model_validator(mode="after")(_reductions_are_among_the_cells)


class MixedOptions(Base):
    """Nothing is found beforehand: a learner changes the mixture task by task (MetaNAS)."""

    searchable: ClassVar[bool] = False

    kind: Literal["mixed"] = Field("mixed", description="every edge mixes all operations")
    cells: int = CELLS
    channels: int = CHANNELS
    reductions: Reductions = REDUCTIONS
    space: Literal["few-shot", "darts"] = SPACE

    _reductions = model_validator(mode="after")(_reductions_are_among_the_cells)

    @property
    def title(self) -> str:
        """For tables."""
        return f"Mixed cells, {self.channels} channels"

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype."""
        return parse(Architecture, self.model_dump(), where="backbone mixed").model_dump()


Options = MixedOptions
