"""Typed JSON files of the stages; those that tables read are in `metantk.results.records`. Imports no torch."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metantk.options.base import explain_all
from metantk.runtime.files import InputError, read_json, shorten

# Of one line: it stands in tables, figures and messages.
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
# A part of the names of figures.
FILE_NAME = r"^[^\W_][^/\x00-\x1f\x7f]{0,199}$"
FileName = Annotated[str, Field(pattern=FILE_NAME)]
LONGEST_REASON = 300  # characters, so that a line has room for the path and the stage
T = TypeVar("T", bound="Record")


class Record(BaseModel):
    """What a reader uses is asked for, and of what type it is; whatever else a file says is left alone."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)


class Origin(Record):
    """Where an architecture comes from, by the names of the configuration."""

    dataset: FileName
    backbone: FileName
    backbone_title: Text
    search: FileName
    seed: int = Field(ge=0, lt=2**31)


class BuiltArchitecture(Record):
    """architecture.json as trainings read it; one that was written by hand needs not say where it comes from."""

    kind: Text
    origin: Origin | None = None


def read_record(path: Path, kind: type[T], *, stage: str) -> T:
    """Read a JSON file of a stage.

    Raises:
        InputError: it is missing, is no JSON, or is not what the stage writes.
    """
    try:
        values = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; run {stage} again") from None
    return check_record(values, kind, where=path, advice=f"; run {stage} again")


def check_record(values: object, kind: type[T], *, where: Path | str, advice: str = "") -> T:
    """Check what is read, or about to be written.

    Raises:
        InputError: it is not what the stage writes.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {shorten(explain_all(error.errors()), LONGEST_REASON)}{advice}") from None
