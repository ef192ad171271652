"""Options of the backbone `mixed`: the network of MetaNAS, in which every edge mixes all operations."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from metantk.options.base import Options as Base


class MixedOptions(Base):
    """Nothing is found beforehand: a learner changes the mixture task by task (MetaNAS)."""

    searchable: ClassVar[bool] = False
    # Its norms have no running averages: the features of an image depend on those that go through it together.
    only_learners: ClassVar[tuple[str, ...]] = ("metanas",)

    kind: Literal["mixed"] = Field("mixed", description="Network of MetaNAS: every edge mixes all operations")
    cells: int = Field(4, ge=1, le=100, description="Number of stacked cells")
    channels: int = Field(28, ge=2, le=4096, description="Channels of each node; the stem has three times as many")
    reductions: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 3], max_length=100, description="Indices, from 0, of the cells that halve the resolution"
    )
    space: Literal["few-shot", "darts"] = Field("few-shot", description="Operations and nodes of a cell")

    @model_validator(mode="after")
    def _reductions_are_among_the_cells(self) -> "MixedOptions":
        if max(self.reductions, default=0) >= self.cells:
            raise ValueError(f"reductions {self.reductions} are not among its {self.cells} cells")
        return self

    @property
    def title(self) -> str:
        """For tables."""
        return f"Mixed cells, {self.channels} channels"

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype."""
        return self.model_dump()


Architecture = Options = MixedOptions  # images of any size: the options are all that builds it
