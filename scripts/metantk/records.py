"""The files that tables and figures read, typed: what is wrong with one is said in a line that names the stage.

Only what a reader uses is asked for; whatever else a file says is left alone.
"""

import math
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from metantk.storage import InputError
from metantk.typed_files import Record, Text

Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(ge=0)]
Shots = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")]


class Origin(Record):
    """Where an architecture comes from, by the names of the configuration."""

    dataset: Text
    backbone: Text
    backbone_title: Text
    search: Text
    seed: int = Field(ge=0)


class Architecture(Record):
    """What tables and figures read of architecture.json."""

    kind: Text
    genotype: dict | None = None
    cells: int | None = Field(None, ge=1, le=100)
    origin: Origin


class SearchReport(Record):
    """search.json"""

    seconds: Positive
    device: Text
    floating_point_operations: int = Field(0, ge=0)
    options: dict
    criteria: dict[str, dict] = Field({})
    effects: list[dict] = Field([])
    peak_memory_mb: dict[str, Positive] = Field({})


class ModelDescription(Record):
    """What tables and figures read of model.json."""

    architecture: Architecture
    learner: dict
    learner_name: Text
    parameters: int = Field(ge=1)
    device: Text
    peak_memory_mb: dict[str, Positive] = Field({})


class ShotResult(Record):
    accuracy_mean: Percent
    ci95: Positive


class Evaluation(Record):
    """evaluation.json"""

    ways: int = Field(ge=2)
    episodes: int = Field(ge=2)
    shots: dict[Shots, ShotResult] = Field(min_length=1)
    options: dict


def read_table(path: Path, columns: list[str], *, stage: str) -> pd.DataFrame:
    """Read a CSV file of a stage that has at least `columns`.

    Raises:
        InputError: it is missing, no table, or lacks columns.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{path}: cannot be read ({reason}); run {stage} again") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; run {stage} again")
    return table


def read_episodes(path: Path, evaluation: Evaluation) -> pd.DataFrame:
    """Columns `shots`, `episode`, `accuracy` (percent) of episodes.csv, sorted.

    Raises:
        InputError: also where it is not what evaluation.json sums up: other shots or numbers of episodes, values
            out of 0 to 100.
    """
    stage = "evaluate_episodes"
    table = read_table(path, ["shots", "episode", "accuracy"], stage=stage)[["shots", "episode", "accuracy"]]
    if not all(pd.api.types.is_numeric_dtype(table[column]) for column in table):
        raise InputError(f"{path}: holds other things than numbers; run {stage} again")
    if table.isna().any().any() or not table["accuracy"].between(0, 100).all():
        raise InputError(f"{path}: an accuracy is missing or not in 0 to 100 %; run {stage} again")
    table = table.sort_values(["shots", "episode"], ignore_index=True)
    if sorted(table["shots"].unique()) != sorted(int(shots) for shots in evaluation.shots):
        raise InputError(f"{path}: has other shots than evaluation.json; run {stage} again")
    for shots, group in table.groupby("shots"):
        if len(group) != evaluation.episodes or group["episode"].tolist() != list(range(evaluation.episodes)):
            raise InputError(
                f"{path}: has not the {evaluation.episodes} episodes of {shots}-shot; run {stage} again"
            )
        mean = evaluation.shots[str(int(shots))].accuracy_mean
        if not math.isclose(group["accuracy"].mean(), mean, abs_tol=1e-6):
            raise InputError(f"{path}: its {shots}-shot mean is not that of evaluation.json; run {stage} again")
    return table
