"""What the options of all stages are made of: strict types, ranges, and errors of one line. Imports no torch."""

import reprlib
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metantk.storage import InputError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Options(BaseModel):
    """Unknown keys and other types are refused, and so are numbers that are not finite."""

    uses_device: ClassVar[bool] = True  # of a kind: whether its stage computes anything on a GPU

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Other kinds that these options name, as (family, kind): their modules are part of the stage's code."""
        return []


T = TypeVar("T", bound=Options)
# What was found instead is shown as far as it fits into a line.
_found = reprlib.Repr()
_found.maxlevel, _found.maxstring, _found.maxother, _found.maxlong = 3, 100, 100, 100


def parse(options: type[T], values: object, *, where: str) -> T:
    """Check `values` against an options class.

    Raises:
        InputError: one line that names `where`, each offending key and what is wrong with it.
    """
    try:
        return options.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(problem) for problem in error.errors())
        raise InputError(f"{where}: {problems}") from None


def explain(problem: dict) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{place}'"
    if problem["type"] == "missing":
        return f"'{place}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    given = "" if problem["type"] == "value_error" else f" (found {_found.repr(problem['input'])})"
    return f"'{place}': {message[0].lower()}{message[1:]}{given}"
