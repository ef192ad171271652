"""Latency as a sum over choices: fitted to measured networks, and tried on others.

A constant of the stack, and a cost of each operation in each type of cell. Which edge it is on changes little, with
one exception: on the inputs of a reduction cell, a skip connection halves the resolution. A sum of operations that
were measured by themselves is no better, and needs a fit to whole networks, too: within a network they cost less.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from metantk.backbones.graph import to_graph
from metantk.backbones.latency import THREADS, Timed
from metantk.options.budget import NS_OF_MS
from metantk.runtime import plugins
from metantk.runtime.devices import numpy_generator
from metantk.searches.base import Checkpoint, Problem
from metantk.space import paths
from metantk.space.genotype import CELL_TYPES, Space
from metantk.space.sizes import StackSizes

log = logging.getLogger("metantk")
FITTED, TRIED = 40, 20  # random architectures
# Rounds over all networks, so that they share what happens on the machine; in each, some runs of one in a row:
# the first ones only bring it into the caches.
ROUNDS, RUNS = 20, 8
SECONDS = 60  # after which no further round begins

Measure = Callable[[np.ndarray], np.ndarray]  # rows of architectures to milliseconds


class Table(NamedTuple):
    """The latency of all networks of a stack, and how well it is known; plain values.

    Attributes:
        fixed_ms: of what all of them have.
        costs_ms: by cell type and term (see `terms`), of each choice of it.
        median_error, worst_error: relative, over architectures that were not fitted.
        networks: how many were measured.
        seconds: spent on it.
    """

    fixed_ms: float
    costs_ms: dict[str, dict[str, float]]
    median_error: float
    worst_error: float
    networks: int
    seconds: float
    threads: int = THREADS
    program: str = "onnxruntime"

    def added_to(self, sizes: StackSizes, space: Space) -> StackSizes:
        """The sizes of the same stack, with latencies."""
        choices = {
            cell: [
                [
                    size._replace(latency_ns=round(self.costs_ms[cell][term] * NS_OF_MS))
                    for size, term in zip(of_edge, terms(space, cell, edge), strict=True)
                ]
                for edge, of_edge in enumerate(sizes.choices[cell])
            ]
            for cell in CELL_TYPES
        }
        return StackSizes(sizes.fixed._replace(latency_ns=round(self.fixed_ms * NS_OF_MS)), choices)


class Kept:
    """A checkpoint that holds the table beside the search's own state: a search that goes on has the same one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        kept = checkpoint.state or {"table": None, "search": None}
        self.table = kept["table"] and Table(**kept["table"])
        self.state: dict | None = kept["search"]

    def keep(self, table: Table) -> None:
        self.table = table
        self._save()

    def save(self, state: dict) -> None:
        self.state = state
        self._save()

    def _save(self) -> None:
        self._checkpoint.save({"table": self.table._asdict(), "search": self.state})


def terms(space: Space, cell: str, edge: int) -> list[str]:
    """What the cost of each operation on an edge is called; equal names have equal costs."""
    halves = cell == "reduce" and space.edges[edge].input < 2
    return [f"{name}, halving" if halves and name == "skip_connect" else name for name in space.operations]


def measured_table(problem: Problem, space: Space) -> Table:
    """Measure random architectures of the problem's backbone; says how good the sum is."""
    began = time.perf_counter()
    rows = [
        paths.balanced_sample(space, count, numpy_generator("latency", purpose))
        for purpose, count in (("fit", FITTED), ("error", TRIED))
    ]
    table = fit_and_try(space, *rows, lambda rows: measure(problem, space, rows))
    log.info(
        "latency: a sum over choices, fitted to %d random networks; on %d others it is wrong by %.1f %% in the"
        " median, by %.1f %% at worst",
        FITTED,
        TRIED,
        100 * table.median_error,
        100 * table.worst_error,
    )
    return table._replace(seconds=round(time.perf_counter() - began, 3))


def measure(problem: Problem, space: Space, rows: np.ndarray) -> np.ndarray:
    """Milliseconds of architectures `(networks, choices)` for an image; the least of several runs."""
    image_size, backbone = problem.train.images.shape[1], problem.backbone
    build = plugins.load("backbones", backbone.kind).build
    timed = []
    for row in rows:
        architecture = backbone.architecture(image_size, paths.genotype_of(space, row))
        timed.append(Timed(to_graph(build(architecture, outputs=1), image_size), image_size))
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for each in timed:
            for _ in range(RUNS):
                each.time_once()
        if time.perf_counter() - began > SECONDS:
            break
    return np.array([each.best_ms for each in timed])


def fit_and_try(space: Space, fitted: np.ndarray, tried: np.ndarray, measure: Measure) -> Table:
    """The table of some architectures, and its errors on others, all `(networks, choices)`."""
    values = measure(np.concatenate([fitted, tried]))
    names, counts = count_terms(space, np.concatenate([fitted, tried]))
    design = np.column_stack([np.ones(len(counts)), counts])
    # Errors count relative to the latency; no operation takes less than no time.
    first = slice(len(fitted))
    costs, _ = nnls(design[first] / values[first, None], np.ones(len(fitted)))
    errors = np.abs(design[len(fitted) :] @ costs / values[len(fitted) :] - 1)
    by_cell: dict[str, dict[str, float]] = {cell: {} for cell in CELL_TYPES}
    for (cell, term), cost in zip(names, costs[1:].tolist(), strict=True):
        by_cell[cell][term] = cost
    return Table(float(costs[0]), by_cell, float(np.median(errors)), float(errors.max()), len(values), 0.0)


def count_terms(space: Space, rows: np.ndarray) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Names of all terms, by cell type, and how often each architecture has them, `(networks, terms)`."""
    of_choice = [
        (cell, term) for cell in CELL_TYPES for edge in range(len(space.edges)) for term in terms(space, cell, edge)
    ]
    names = list(dict.fromkeys(of_choice))
    counts = np.zeros((len(rows), len(names)))
    for choice, name in enumerate(of_choice):
        counts[:, names.index(name)] += rows[:, choice]
    return names, counts
