"""What a typed file of a stage is; what tables and figures read is in `metantk.records`. Imports no torch."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metantk.options.base import explain
from metantk.storage import InputError, read_json

Text = Annotated[str, Field(min_length=1, max_length=200)]
T = TypeVar("T", bound="Record")


class Record(BaseModel):
    """What a reader uses is asked for; whatever else a file says is left alone."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


def read_record(path: Path, kind: type[T], *, stage: str) -> T:
    """Read a JSON file of a stage.

    Raises:
        InputError: it is missing, is no JSON, or is not what the stage writes.
    """
    try:
        values = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; run {stage} again") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(problem) for problem in error.errors()[:3])
        raise InputError(f"{path}: {problems}; run {stage} again") from None
