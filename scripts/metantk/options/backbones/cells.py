"""Options of the backbone `cells`: stacked cells of one genotype. Imports no torch."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from metantk.options.base import Options as Base
from metantk.options.base import parse
from metantk.space.genotype import check_genotype
from metantk.storage import InputError

CELLS = Field(ge=2, le=100, description="stacked cells; those at 1/3 and 2/3 of the depth are reduction cells")
CHANNELS = Field(ge=1, le=4096, description="channels after the stem; each reduction cell doubles them")


class Architecture(Base):
    """All that builds the network."""

    kind: Literal["cells"]
    genotype: dict = Field(description="as in metantk.space.genotype")
    cells: int = CELLS
    channels: int = CHANNELS

    @field_validator("genotype")
    @classmethod
    def _valid(cls, value: dict) -> dict:
        try:
            return check_genotype(value)
        except InputError as error:
            raise ValueError(str(error)) from None


class CellsOptions(Base):
    """A depth and a width; a search finds the genotype (paper, section 6.1)."""

    searchable: ClassVar[bool] = True

    kind: Literal["cells"] = Field("cells", description="a stack of cells that a search finds")
    cells: int = CELLS
    channels: int = CHANNELS

    @property
    def title(self) -> str:
        """For tables."""
        return f"Cells, {self.channels} channels"

    def architecture(self, image_size: int, genotype: dict | None) -> dict:
        """The content of architecture.json; cells take pictures of any size.

        Raises:
            InputError: the genotype is missing or not valid.
        """
        if genotype is None:
            raise InputError("backbone cells: needs a genotype, and none was found or given")
        values = {"kind": self.kind, "genotype": genotype, "cells": self.cells, "channels": self.channels}
        return parse(Architecture, values, where="backbone cells").model_dump()


Options = CellsOptions
