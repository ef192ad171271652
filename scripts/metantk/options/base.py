"""What the options of all stages are made of: strict types, ranges, and errors of one line. Imports no torch."""

import reprlib
from typing import Annotated, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metantk.runtime.files import LONGEST_LINE, InputError, shorten

NAME = r"^[a-z0-9][a-z0-9_-]*$"
NAME_RULE = "names are small letters, digits, `-` and `_`, and begin with a letter or digit"
Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Need(NamedTuple):
    """What a stage takes from a split, so that too little data is said before anything costs.

    Attributes:
        part: train, val or test.
        classes: at least so many.
        each: images of each class.
        images: of all classes together.
        side: height and width of an image, in pixels.
    """

    split: str
    classes: int = 1
    each: int = 1
    images: int = 1
    side: int = 1


class Options(BaseModel):
    """Unknown keys and other types are refused, and so are numbers that are not finite."""

    uses_device: ClassVar[bool] = True  # of a kind: whether its stage computes anything on a GPU
    frozen: ClassVar[bool] = False  # of a backbone: it comes with its weights, and nothing trains it
    only_backbones: ClassVar[
        tuple[str, ...]
    ] = ()  # of a learner: the only kinds that it can train, if there are such
    only_own_ways: ClassVar[bool] = False  # of a learner: whether tests must have as many `ways` as its training

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_can_be_computed_with(self) -> "Options":
        for name, value in self:
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and abs(number) >= LARGEST[isinstance(number, float)]:
                    raise ValueError(f"{name}: {number:.3g} is too large a number")
        return self

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        """Other kinds that these options name, as (family, kind): their modules are part of the stage's code."""
        return []

    @property
    def files(self) -> list[str]:
        """Files, other than code, that these options name: one that is edited reruns what reads it."""
        return []

    @property
    def needs(self) -> list[Need]:
        """The least data that these options can be carried out with."""
        return []


T = TypeVar("T", bound=Options)
LARGEST = (2**31, 1e38)  # of whole numbers, as counts and seeds are; of others, in single precision
LONGEST_VALUE = 60  # characters of a value that an error shows
# Looks into a value only as far as is shown: it may be huge.
_glance = reprlib.Repr()
_glance.maxlevel, _glance.maxstring, _glance.maxother, _glance.maxlong = (3, *[LONGEST_VALUE] * 3)


def parse(options: type[T], values: object, *, where: str) -> T:
    """Check `values` against an options class.

    Raises:
        InputError: one line that names `where`, each offending key and what is wrong with it.
    """
    try:
        return options.model_validate(values)
    except ValidationError as error:
        raise InputError(shorten(f"{where}: {explain_all(error.errors())}", LONGEST_LINE)) from None
    except Exception as error:  # the checks of a stranger's options may raise anything
        raise InputError(f"{where}: their check fails ({type(error).__name__}: {error})") from error


def parse_part(options: type[Options], values: dict, *, where: str) -> None:
    """Check values that others will be added to: what is missing may still come.

    Raises:
        InputError: as of `parse`.
    """
    try:
        options.model_validate(values)
    except ValidationError as error:
        if problems := [problem for problem in error.errors() if problem["type"] != "missing"]:
            raise InputError(shorten(f"{where}: {explain_all(problems)}", LONGEST_LINE)) from None


def explain_all(problems: list[dict]) -> str:
    """As many problems as fit in a line, and the number of the others."""
    told, room = [], LONGEST_LINE - 100  # for what stands before, and the number
    for number, problem in enumerate(problems):
        text = explain(problem)
        if told and len(text) > room:
            return "; ".join([*told, f"and {len(problems) - number} more"])
        told.append(text)
        room -= len(text)
    return "; ".join(told)


def explain(problem: dict) -> str:
    place = ".".join(shorten(str(split), LONGEST_VALUE) for split in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{place}'"
    if problem["type"] == "missing":
        return f"'{place}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == NAME:
        return f"'{place.removesuffix('.[key]')}': {NAME_RULE}"
    given = "" if problem["type"] == "value_error" else f" (found {glance(problem['input'])})"
    return f"'{place}': {message[0].lower()}{message[1:]}{given}"


def glance(value: object) -> str:
    """A value in an error; of a huge one, or one that refers to itself, no more is looked at than is shown."""
    return shorten(_glance.repr(value), LONGEST_VALUE)
