"""Options of the backbone `cells`: stacked cells of one genotype. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from metantk.options.base import Options as Base
from metantk.options.base import parse
from metantk.runtime.files import InputError
from metantk.space.genotype import check_genotype


class CellsOptions(Base):
    """A depth and a width; a search finds the genotype (paper, section 6.1)."""

    searchable: ClassVar[bool] = True

    kind: Literal["cells"] = Field("cells", description="Stack of cells that a search finds")
    cells: int = Field(
        ge=2, le=100, description="Number of stacked cells; those at 1/3 and 2/3 of the depth are reduction cells"
    )
    channels: int = Field(ge=1, le=4096, description="Channels after the stem, which each reduction cell doubles")
    layout: Literal["few-shot", "metanas", "t-nas"] = Field(
        "few-shot",
        description="Layout of the stack: the paper's; MetaNAS's (a stem of three times the channels, which are "
        "never doubled); or T-NAS's (two poolings, a normal cell, and a reduction cell of twice the channels)",
    )

    @model_validator(mode="after")
    def _depth_fits(self) -> "CellsOptions":
        if self.layout == "t-nas" and self.cells != 2:
            raise ValueError(f"layout t-nas has 2 cells, not {self.cells}")
        if self.layout == "metanas" and self.channels < 2:
            raise ValueError("layout metanas takes 2 channels or more: a reduction gives half of them to each part")
        return self

    @property
    def title(self) -> str:
        """For tables."""
        stacked = "" if self.layout == "few-shot" else f", {self.layout} layout"
        return f"Cells, {self.channels} channels{stacked}"

    def architecture(self, image_size: int, genotype: dict | None) -> dict:
        """The content of architecture.json; cells take images of any size.

        Raises:
            InputError: the genotype is missing or not valid.
        """
        if genotype is None:
            raise InputError("backbone cells: needs a genotype, and none was found or given")
        values = self.model_dump() | {"genotype": genotype}
        return parse(Architecture, values, where="backbone cells").model_dump()


class Architecture(CellsOptions):
    """All that builds the network."""

    genotype: dict = Field(description="Genotype, as in metantk.space.genotype")

    @field_validator("genotype")
    @classmethod
    def _valid(cls, value: dict) -> dict:
        try:
            return check_genotype(value)
        except InputError as error:
            raise ValueError(str(error)) from None


Options = CellsOptions
