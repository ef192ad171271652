"""The files that tables and figures read, typed: what is wrong with one is said in a line that names the stage.

Only what a reader uses is asked for; whatever else a file says is left alone.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from metantk.options.evaluation import EvaluationOptions
from metantk.runtime.files import InputError, check_regular
from metantk.runtime.typed_files import FileName, Origin, Record, Text
from metantk.statistics import confidence_95

Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(ge=0)]
Shots = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")]


class Architecture(Record):
    """What tables and figures read of architecture.json."""

    kind: Text
    genotype: dict | None = None
    cells: int | None = Field(None, ge=1, le=100)
    channels: int | None = Field(None, ge=1, le=10**6)
    origin: Origin


class CriterionFacts(Record):
    """How a criterion is drawn; its title may have several lines."""

    title: str = Field(min_length=1, max_length=200)
    logarithmic: bool = False


class Effect(Record):
    """Of an operation on an edge, as a Bayesian optimisation estimates it."""

    cell: Text
    edge: int = Field(ge=0)
    input: int = Field(ge=0)
    node: int = Field(ge=2)
    operation: Text
    effect: float
    std: Positive
    certainty: float = Field(ge=0, le=1)
    kept: bool


class SearchOptions(Record):
    """Of a search only its kind is looked at here."""

    kind: Text | None = None


class SearchReport(Record):
    """search.json"""

    dataset: FileName
    backbone: FileName
    search: FileName
    seed: int = Field(ge=0)
    seconds: Positive
    device: Text
    floating_point_operations: int = Field(0, ge=0, le=10**30)
    options: SearchOptions
    criteria: dict[str, CriterionFacts] = Field({})
    effects: list[Effect] = Field([])
    peak_memory_mb: dict[str, Positive] = Field({})

    def is_of(self, origin: Origin) -> bool:
        named = (origin.dataset, origin.backbone, origin.search, origin.seed)
        return (self.dataset, self.backbone, self.search, self.seed) == named


class ModelDescription(Record):
    """What tables and figures read of model.json."""

    architecture: Architecture
    image_size: int = Field(ge=1)
    learner: dict
    learner_name: FileName
    parameters: int = Field(ge=0, le=10**12)
    parameters_in_tests: int = Field(ge=0, le=10**12)
    macs: int = Field(0, ge=0, le=10**15)
    latency_ms: Positive | None = None
    feature_dim: int = Field(0, ge=0, le=10**9)
    outputs: int = Field(0, ge=0, le=10**6)
    training_images: int | None = Field(None, ge=1)  # None: trained before they were counted
    weights_sha256: Text
    data_sha256: Text
    device: Text
    seconds: Positive | None = None
    initial_weights: dict | None = None  # file and checksum, of a pretrained network
    peak_memory_mb: dict[str, Positive] = Field({})
    transductive: bool = False
    warnings: list[str] = Field([])

    @property
    def multiply_accumulates(self) -> int:
        """For the features of one image, without the head; 0 where nothing is counted, as of an ONNX file."""
        return max(0, self.macs - self.feature_dim * self.outputs)


class ShotResult(Record):
    accuracy_mean: Percent
    ci95: Positive


class Transfer(Record):
    """Of an evaluation on another data set than the model's: see `metantk.evaluation.describe_transfer`."""

    trained_on: FileName
    tested_on: FileName
    image_size: int = Field(ge=1)
    resized_to: int | None = Field(ge=1)
    shared_classes: list[str]


class Evaluation(Record):
    """evaluation.json"""

    ways: int = Field(ge=2)
    episodes: int = Field(ge=2)
    split: Literal["test", "val"]
    weights_sha256: Text
    parameters: int
    data_sha256: Text
    shots: dict[Shots, ShotResult] = Field(min_length=1)
    options: EvaluationOptions
    transfer: Transfer | None = None

    @model_validator(mode="after")
    def _is_of_its_options(self) -> "Evaluation":
        for name, found in (("ways", self.ways), ("episodes", self.episodes)):
            if (expected := getattr(self.options, name)) != found:
                raise ValueError(f"{name} is {found}, its options say {expected}")
        if sorted(map(str, self.options.shots)) != sorted(self.shots):
            raise ValueError("shots: its options say others")
        return self


class Numbers(NamedTuple):
    """What a column of numbers may hold.

    Attributes:
        whole: whether all values are whole.
        gaps: whether a value may be missing.
        infinite: whether one may be infinite.
        least, most: bounds of the values.
    """

    whole: bool = False
    gaps: bool = False
    infinite: bool = False
    least: float = -math.inf
    most: float = math.inf


TEXT, NUMBER, WHOLE, GAPS = None, Numbers(), Numbers(whole=True, least=0), Numbers(gaps=True)
SIZE, PERCENT = Numbers(least=0), Numbers(least=0, most=100)
MEASUREMENT = Numbers(gaps=True, infinite=True)  # of a criterion
CURVE = {"epoch": WHOLE, "lr": SIZE, "loss": NUMBER, "accuracy": PERCENT._replace(gaps=True)}
TRACE = dict.fromkeys(["round", "edge", "input", "node"], WHOLE) | dict.fromkeys(
    ["stage", "cell", "operation", "removed", "decided_by"], TEXT
)
# Of a Bayesian optimisation, whose criteria have columns, too.
EXPERIMENT = {"candidate": WHOLE, "stage": TEXT}
# What figures draw of searches other than prunings, as far as they have it.
MEASURED = [
    "epoch",
    "candidate",
    "loss",
    "accuracy",
    "entropy_normal",
    "entropy_reduce",
    "genotypes",
    "score",
    "predicted",
    "rank_sum",
]


def read_table(path: Path, columns: Mapping[str, Numbers | None], *, stage: str) -> pd.DataFrame:
    """Read a CSV file of a stage that has at least `columns`; types and finiteness of only these are checked.

    Text stays as it is written: a row may be called `null`.

    Raises:
        InputError: it is missing, no table, lacks columns, or holds other things than it should.
    """
    check_regular(path, f"; run {stage} again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines that are longer than the first
            table = pd.read_csv(path, keep_default_na=False, dtype=str, index_col=False)
    except (OSError, ValueError, OverflowError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: cannot be read ({reason}); run {stage} again") from None
    if lacking := [column for column in columns if column not in table]:
        raise InputError(f"{path}: lacks the columns {', '.join(lacking)}; run {stage} again")
    for name, column in columns.items():
        try:
            table[name] = _checked(table[name], column)
        except ValueError as error:
            raise InputError(f"{path}: column {name} {error}; run {stage} again") from None
    return table


def _checked(values: pd.Series, column: Numbers | None) -> pd.Series | np.ndarray:
    """The values of a column in its type; of numbers, without the series, whose steps take most of the time.

    Raises:
        ValueError: one of them is not as it should be; the message goes on after the column's name.
    """
    if column is TEXT:
        return values
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    if (is_none := np.isnan(numbers)).any():
        if not values[is_none].str.strip().str.lower().isin(["", "nan"]).all():
            raise ValueError("holds other things than numbers")
        if not column.gaps:
            raise ValueError("has gaps")
    if not column.infinite and np.isinf(numbers).any():
        raise ValueError("holds a number that is not finite")
    if (numbers < column.least).any() or (numbers > column.most).any():
        raise ValueError(f"holds a number that is not in {column.least:g} to {column.most:g}")
    if not column.whole:
        return numbers
    if (numbers % 1 != 0).any() or (abs(numbers) >= 2**53).any():
        raise ValueError("holds a number that is not whole")
    return numbers.astype("int64")


def read_trace(path: Path, report: SearchReport) -> pd.DataFrame:
    """search.csv: of a pruning (its report has criteria) edge by edge, of a Bayesian optimisation (it has effects,
    too) by architecture, of any other search what it measured.

    Raises:
        InputError: as of `read_table`.
    """
    stage = "search_architecture"
    found = read_table(path, {}, stage=stage)
    if not report.criteria:
        return read_table(path, {name: GAPS for name in MEASURED if name in found}, stage=stage)
    if found.empty:
        raise InputError(f"{path}: has no line; run {stage} again")
    if report.effects:
        values = dict.fromkeys(report.criteria, MEASUREMENT)
        return read_table(path, EXPERIMENT | values, stage=stage)
    drawn = [name.removesuffix("_unpruned") for name in found if name.endswith("_unpruned")]
    values = {
        f"{criterion}{part}": MEASUREMENT
        for criterion in dict.fromkeys([*report.criteria, *drawn])
        for part in ("_unpruned", "")
    }
    trace = read_table(path, TRACE | values, stage=stage)
    return trace.assign(removed=trace["removed"] == "True")


def check_pruning(trace: pd.DataFrame, genotype: dict, *, where: Path) -> None:
    """Refuse the trace of a pruning that is not whole, or does not lead to the genotype.

    Raises:
        InputError: rounds are missing, a line stands there twice, or an operation of the genotype was removed.
    """
    problem = None
    removed = set(
        trace.loc[trace["removed"], ["cell", "node", "input", "operation"]].itertuples(index=False, name=None)
    )
    chosen = [
        (cell, node, source, operation)
        for cell in ("normal", "reduce")
        for node, edges in enumerate(genotype[cell], start=2)
        for operation, source in edges
    ]
    if trace.duplicated(["round", "cell", "edge", "operation"]).any():
        problem = "has a line twice"
    elif sorted(trace["round"].unique()) != list(range(trace["round"].max() + 1)) or trace["stage"].nunique() < 2:
        problem = "lacks some of its rounds"
    elif wrong := [choice for choice in chosen if choice in removed]:
        problem = f"removes {wrong[0][3]} of node {wrong[0][1]}, which architecture.json has"
    if problem:
        raise InputError(f"{where}: {problem}; run search_architecture again")


def read_episodes(path: Path, evaluation: Evaluation) -> pd.DataFrame:
    """Columns `shots`, `episode`, `accuracy` (percent) of episodes.csv, sorted.

    Raises:
        InputError: also where it is not what evaluation.json sums up: other shots, episodes, means or intervals.
    """
    stage = "evaluate_episodes"
    columns = {"shots": WHOLE, "episode": WHOLE, "accuracy": PERCENT}
    table = read_table(path, columns, stage=stage)[list(columns)]
    table = table.sort_values(["shots", "episode"], ignore_index=True)
    by_line, episodes, accuracies = (table[name].to_numpy() for name in columns)
    if set(by_line.tolist()) != set(map(int, evaluation.shots)):
        raise InputError(f"{path}: has other shots than evaluation.json; run {stage} again")
    for shots, said in evaluation.shots.items():
        chosen = by_line == int(shots)
        if not np.array_equal(episodes[chosen], range(evaluation.episodes)):
            raise InputError(
                f"{path}: has not the {evaluation.episodes} episodes of {shots}-shot; run {stage} again"
            )
        for name, found, known in (
            ("mean", accuracies[chosen].mean(), said.accuracy_mean),
            ("interval", confidence_95(accuracies[chosen]), said.ci95),
        ):
            if not math.isclose(found, known, abs_tol=1e-6):
                raise InputError(
                    f"{path}: its {shots}-shot {name} is not that of evaluation.json; run {stage} again"
                )
    return table
