"""Options of architectures that are known beforehand."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base


class GivenOptions(Base):
    """A genotype that is known beforehand (search `given`)."""

    uses_device: ClassVar[bool] = False

    kind: Literal["given"] = "given"
    genotypes: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        min_length=1,
        description="files, or names of published cells in config/genotypes/; seed k takes number k of the list, "
        "counted from 0 and round again",
    )


Options = GivenOptions
