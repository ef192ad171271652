"""All measurements of the theory, in parts that can be kept one by one. No verdicts: these may change alone."""

import io
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd

from metantk.options.theory import TheoryOptions
from metantk.theory.kernel_checks import measure_kernels
from metantk.theory.learner import measure_learners
from metantk.theory.training_checks import measure_convergence, measure_regression, summarise_bounds


class Part(NamedTuple):
    """What is measured in one go: minutes, where all take hours.

    Attributes:
        table: the name of the table to which its rows belong.
        case: what sets it apart from the other parts of the table.
        measure: makes the rows.
    """

    table: str
    case: str
    measure: Callable[[], pd.DataFrame]

    @property
    def name(self) -> str:
        return f"{self.table}: {self.case}"


def list_parts(options: TheoryOptions) -> list[Part]:
    """The parts of all tables: one for each source and network, or one for each width, where that takes long."""
    parts = [Part("learners", "glyphs", partial(measure_learners, options))]
    for source in options.sources:
        for number, entry in enumerate(options.networks):
            case = f"{source}, networks[{number}]"
            parts.append(Part("kernels", case, partial(measure_kernels, source, entry, options)))
            if entry.trained_widths:
                parts.append(Part("convergence", case, partial(measure_convergence, source, entry, options)))
            for width in entry.trained_widths:
                measure = partial(measure_regression, source, entry, width, options)
                parts.append(Part("regression", f"{case}, width {width}", measure))
    return parts


def measure_parts(options: TheoryOptions, kept: dict[str, str], keep: Callable[[], object]) -> None:
    """Measure the parts that `kept` does not hold.

    Args:
        kept: rows of each part by its name, as CSV; grows.
        keep: called after each part.
    """
    for part in list_parts(options):
        if part.name not in kept:
            kept[part.name] = part.measure().to_csv(index=False)
            keep()


def join_parts(options: TheoryOptions, kept: dict[str, str]) -> dict[str, pd.DataFrame]:
    """The tables by name, `bounds` (a summary of `convergence`) included."""
    rows: dict[str, list[pd.DataFrame]] = {}
    for part in list_parts(options):
        rows.setdefault(part.table, []).append(pd.read_csv(io.StringIO(kept[part.name])))
    tables = {name: pd.concat(several, ignore_index=True) for name, several in rows.items()}
    return tables | {"bounds": summarise_bounds(tables["convergence"])}
