"""Options of architectures that are known beforehand."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base


class GivenOptions(Base):
    """Given genotypes, such as published cells."""

    uses_device: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    kind: Literal["given"] = "given"
    genotypes: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        min_length=1,
        description="Genotypes: files, or names of published cells in config/genotypes/. Seed k takes the one at "
        "index k, modulo the length of the list",
    )

    @property
    def files(self) -> list[str]:
        return [genotype for genotype in self.genotypes if Path(genotype).is_file()]


Options = GivenOptions
