"""One tabular benchmark: trainings of architectures, looked up by genotype or by limits of size."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import pandas as pd

from metantk.runtime.files import InputError, atomic_write, canonical_json, read_json, write_json
from metantk.space.canonical import canonical_genotype
from metantk.space.genotype import SPACES, check_genotype, parse_genotype

LIMITS = ("parameters", "multiply_accumulates")
REQUIRED = ("architecture", "seed", "genotype")
# What is no criterion.
FACTS = (*REQUIRED, "training_seconds")
OF_SHOTS = re.compile(r"(accuracy|ci95)_\d+shot")


@dataclass(frozen=True)
class Table:
    """A benchmark.

    Attributes:
        name: of its files.
        settings: how it was measured, the content of NAME.json.
        trainings: a row for each training; the columns are those of `metantk.benchmark`.
    """

    name: str
    settings: dict
    trainings: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read NAME.csv and NAME.json beside it.

        Raises:
            InputError: one is missing, or is not what `write` writes.
        """
        settings = read_json(path.with_suffix(".json"))
        if not isinstance(settings, dict) or settings.get("space") not in SPACES:
            raise InputError(f"{path.with_suffix('.json')}: names no space; choose from {', '.join(SPACES)}")
        try:
            trainings = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is no table ({str(error).splitlines()[0]})") from None
        _check(trainings, path)
        return cls(path.stem, settings, trainings)

    @classmethod
    def of(cls, name: str, settings: dict, rows: Iterable[dict]) -> "Table":
        """A benchmark of one's own.

        Args:
            rows: one for each training, with `seed`, `genotype` (a dictionary) and whatever columns there are.
                Architectures are numbered in the order of their first rows.
        """
        index: dict[str, int] = {}
        numbered = [
            {"architecture": index.setdefault(_key(row["genotype"]), len(index))}
            | {name: value for name, value in row.items() if name != "architecture"}
            | {"genotype": json.dumps(row["genotype"], separators=(",", ":"))}
            for row in rows
        ]
        return cls(name, settings, pd.DataFrame(numbered))

    def write(self, folder: Path) -> None:
        """Write NAME.csv and NAME.json, what `read` reads."""
        with atomic_write(folder / f"{self.name}.csv") as temporary:
            self.trainings.to_csv(temporary, index=False)
        write_json(folder / f"{self.name}.json", self.settings)

    @property
    def criteria(self) -> list[str]:
        """Columns that are scores of untrained networks or of short trainings."""
        return [column for column in self.trainings if not is_fact(column)]

    @cached_property
    def goodness(self) -> pd.DataFrame:
        """Scores of each architecture, turned so that larger is better.

        Raises:
            InputError: the settings do not say of a criterion which way is better.
        """
        larger = self.settings.get("larger_is_better", {})
        if missing := [name for name in self.criteria if name not in larger]:
            raise InputError(
                f"benchmark {self.name}: larger_is_better does not say which way {missing[0]} is better"
            )
        return self.architectures[self.criteria] * [1 if larger[name] else -1 for name in self.criteria]

    @cached_property
    def architectures(self) -> pd.DataFrame:
        """A row for each architecture, indexed by its number: means over its trainings, and their number.

        `trainings` counts them; `genotype` is that of the first.
        """
        groups = self.trainings.groupby("architecture")
        means = groups.mean(numeric_only=True).drop(columns="seed")
        return means.assign(genotype=groups["genotype"].first(), trainings=groups.size())

    def query(self, genotype: dict) -> pd.DataFrame:
        """Every training of the architecture that a genotype describes, whatever the order of its nodes and edges.

        Raises:
            InputError: it is no genotype, or the benchmark has no such architecture.
        """
        index = self._index.get(_key(check_genotype(genotype)))
        if index is None:
            raise InputError(f"benchmark {self.name}: has no such architecture; it has {len(self._index)} others")
        return self.trainings[self.trainings["architecture"] == index]

    def best(self, shots: int = 5, **limits: float) -> pd.Series:
        """The architecture of the highest mean accuracy within upper limits.

        Args:
            shots: which accuracy counts.
            limits: `parameters` and `multiply_accumulates`, inclusive.

        Raises:
            InputError: nothing is that small, a limit has another name, or no accuracy of `shots` was measured.
        """
        if unknown := sorted(limits.keys() - set(LIMITS)):
            raise InputError(f"benchmark {self.name}: {unknown[0]!r} is no limit; choose from {', '.join(LIMITS)}")
        column = accuracy_column(self, shots)
        within = self.architectures[self.architectures[column].notna()]
        for name, limit in limits.items():
            if not isinstance(limit, Real) or math.isnan(limit):
                raise InputError(f"benchmark {self.name}: {name} is {limit!r}, no number")
            within = within[within[name] <= limit]
        if within.empty:
            smallest = ", ".join(f"{name} {self.architectures[name].min():.0f}" for name in limits)
            raise InputError(f"benchmark {self.name}: nothing is within the limits; the smallest has {smallest}")
        return within.loc[within[column].idxmax()]

    @cached_property
    def _index(self) -> dict[str, int]:
        """Numbers of the architectures by their canonical genotypes."""
        return {_key(json.loads(row.genotype)): row.architecture for row in self.trainings.itertuples()}


def is_fact(column: str) -> bool:
    """Whether a column is no criterion."""
    return column in FACTS or OF_SHOTS.fullmatch(column) is not None


def _check(trainings: pd.DataFrame, path: Path) -> None:
    """Refuse what is no benchmark: columns that are missing or hold no numbers, or numbers of other genotypes."""
    if missing := [name for name in REQUIRED if name not in trainings]:
        raise InputError(f"{path}: has no column {missing[0]}")
    if trainings.empty:
        raise InputError(f"{path}: has no rows")
    for name in trainings.columns.drop("genotype"):
        if not pd.api.types.is_numeric_dtype(trainings[name]):
            raise InputError(f"{path}: column {name} holds what is no number")
    if (gaps := trainings[list(REQUIRED)].isna().any()).any():
        raise InputError(f"{path}: column {gaps.idxmax()} has gaps")
    numbers: dict[str, int] = {}
    for line, row in enumerate(trainings.itertuples(), start=2):
        key = _key(parse_genotype(str(row.genotype), where=f"{path}, line {line}"))
        if numbers.setdefault(key, row.architecture) != row.architecture:
            raise InputError(f"{path}, line {line}: architecture {numbers[key]} has another number here")
    if len(set(numbers.values())) < len(numbers):
        raise InputError(f"{path}: gives two architectures one number")


def accuracy_column(table: Table, shots: int) -> str:
    """The column of an accuracy.

    Raises:
        InputError: it was not measured.
    """
    column = f"accuracy_{shots}shot"
    if column not in table.trainings or table.trainings[column].isna().all():
        raise InputError(f"benchmark {table.name}: has no accuracy at {shots} shots")
    return column


def _key(genotype: dict) -> str:
    return canonical_json(canonical_genotype(genotype))
