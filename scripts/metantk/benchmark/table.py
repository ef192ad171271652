"""One tabular benchmark: trainings of architectures, looked up by genotype or by limits of size."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from metantk.runtime.files import InputError, atomic_write, canonical_json, read_json, write_json
from metantk.space.canonical import canonical_genotype
from metantk.space.genotype import check_genotype

LIMITS = ("parameters", "multiply_accumulates")
# What is no criterion.
FACTS = (
    "architecture",
    "seed",
    "genotype",
    *(f"{what}_{shots}shot" for what in ("accuracy", "ci95") for shots in (1, 5)),
    "training_seconds",
)


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
        """Read NAME.csv and NAME.json beside it."""
        return cls(path.stem, read_json(path.with_suffix(".json")), pd.read_csv(path))

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
            | row
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
        return [column for column in self.trainings if column not in FACTS]

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
            if not isinstance(limit, int | float) or math.isnan(limit):
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


def accuracy_column(table: Table, shots: int) -> str:
    """The column of an accuracy.

    Raises:
        InputError: it was not measured.
    """
    column = f"accuracy_{shots}shot"
    if column not in table.trainings:
        raise InputError(f"benchmark {table.name}: has no accuracy at {shots} shots")
    return column


def _key(genotype: dict) -> str:
    return canonical_json(canonical_genotype(genotype))
