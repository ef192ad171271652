"""Architectures within a budget: exactly uniform samples, and their sizes as rows of choices."""

from collections import Counter
from functools import cached_property

import numpy as np

from metantk.options.base import Options
from metantk.options.budget import BudgetOptions
from metantk.runtime.files import InputError
from metantk.searches.base import Checkpoint, Problem
from metantk.space import paths
from metantk.space.budget import Budget
from metantk.space.genotype import CELL_TYPES, SPACES, Space
from metantk.space.layouts import make_layout
from metantk.space.sizes import NOTHING, Size, StackSizes, stack_sizes

Counts = dict[Size, int]  # of the ways to have each size


def budget_of(problem: Problem, options: Options, checkpoint: Checkpoint) -> tuple["Feasible | None", Checkpoint]:
    """What the options of a search limit, None where they limit nothing; and where the search keeps its state.

    A limit of latency is measured for, unless an earlier run of the search has done so.

    Raises:
        InputError: no architecture is within the limits, or the sizes of the backbone are not known.
    """
    if not options.budget.is_set:
        return None, checkpoint
    backbone = problem.backbone
    if backbone.kind != "cells":
        raise InputError(f"budget: the sizes of backbone {backbone.kind} are not known: it takes none")
    space = SPACES[options.space]
    layout = make_layout(backbone.layout, cells=backbone.cells, channels=backbone.channels)
    sizes = stack_sizes(space, layout, problem.train.images.shape[1])
    if options.budget.latency_ms is None:
        return Feasible(space, sizes, options.budget), checkpoint
    # What needs no measurement is refused before it.
    Budget(space, sizes, options.budget)
    # Imported here: it needs scipy's optimisation, which takes long to load.
    from metantk.searches import latency

    kept = latency.Kept(checkpoint)
    table = kept.table or latency.measured_table(problem, space)
    budget = Feasible(space, table.added_to(sizes, space), options.budget, table._asdict())
    kept.keep(table)  # not before: of a limit that nothing meets, nothing is left
    return budget, kept


def sample(space: Space, budget: "Feasible | None", count: int, rng: np.random.Generator) -> np.ndarray:
    """Random architectures, `(count, choices)`: of a whole space balanced, within a budget uniform."""
    return paths.balanced_sample(space, count, rng) if budget is None else budget.sample(count, rng)


class Feasible(Budget):
    """A budget whose architectures are counted, so that each of them is equally likely in a sample.

    Args:
        latency: how it was measured, in plain values; nothing where it is not limited.
    """

    def __init__(self, space: Space, sizes: StackSizes, limits: BudgetOptions, latency: dict | None = None) -> None:
        super().__init__(space, sizes, limits)
        self.latency = latency

    @cached_property
    def sizes_of_choices(self) -> np.ndarray:
        """`(choices, 3)`, in the order of `metantk.space.paths`."""
        each = [size for cell in CELL_TYPES for edge in self.sizes.choices[cell] for size in edge]
        return np.array(each, np.int64)

    def may_have(self, row: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Whether a row `(choices,)` that lacks one node is within the budget with each pair of choices.

        Args:
            pairs: `(pairs, 2)`.
        """
        others = self.sizes_of_choices[row > 0].sum(0) + np.array(self.sizes.fixed)
        return self.allows(others + self.sizes_of_choices[pairs].sum(1))

    @cached_property
    def _by_node(self) -> dict[str, list[dict[Size, np.ndarray]]]:
        """For each node of a cell type, by size, all pairs of choices of that size, `(pairs, 2)`."""
        nodes = iter(paths.contents(self.space))
        found: dict[str, list[dict[Size, np.ndarray]]] = {}
        for cell in CELL_TYPES:
            found[cell] = []
            for pairs in (next(nodes) for _ in range(self.space.nodes)):
                sizes, which = np.unique(self.sizes_of_choices[pairs].sum(1), axis=0, return_inverse=True)
                found[cell].append(
                    {Size(*size): pairs[which.ravel() == index] for index, size in enumerate(sizes.tolist())}
                )
        return found

    @cached_property
    def _up_to(self) -> dict[str, list[Counts]]:
        """By cell type: sizes of its first 0, 1, ... nodes, with the number of ways to have them."""
        found = {}
        for cell in CELL_TYPES:
            found[cell] = [{NOTHING: 1}]
            for node in self._by_node[cell]:
                found[cell].append(add_up(found[cell][-1], {size: len(pairs) for size, pairs in node.items()}))
        return found

    @cached_property
    def _pairs(self) -> tuple[list[Size], list[Size], np.ndarray]:
        """Sizes of normal and of reduction cells, and how many architectures within the budget have both."""
        normal, reduce = (self._up_to[cell][-1] for cell in CELL_TYPES)
        counts = np.multiply.outer(list(normal.values()), list(reduce.values()))
        columns = zip(zip(*normal, strict=True), zip(*reduce, strict=True), strict=True)
        # One by one: with latencies there may be millions of pairs.
        for (of_normal, of_reduce), fixed, low, high in zip(
            columns, self.sizes.fixed, self.low, self.high, strict=True
        ):
            whole = np.add.outer(np.array(of_normal) + fixed, of_reduce)
            counts *= (whole >= low) & (whole <= high)
        return list(normal), list(reduce), counts

    @property
    def count(self) -> int:
        """Architectures within the budget."""
        return int(self._pairs[2].sum())

    def facts(self, genotype: dict) -> dict:
        """As of `Budget`, and how many architectures are within the limits."""
        counted = super().facts(genotype) | {"architectures": self.count}
        return counted | ({"latency": self.latency} if self.latency else {})

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Architectures `(count, choices)`, each equally likely and drawn by itself."""
        normal, reduce, counts = self._pairs
        shares = (counts / counts.sum()).ravel()
        rows = np.zeros((count, len(self.sizes_of_choices)))
        for row, drawn in zip(rows, rng.choice(len(shares), size=count, p=shares), strict=True):
            index, partner = divmod(int(drawn), len(reduce))
            self._fill(row, "normal", normal[index], rng)
            self._fill(row, "reduce", reduce[partner], rng)
        return rows

    def _fill(self, row: np.ndarray, cell: str, rest: Size, rng: np.random.Generator) -> None:
        """Choose the contents of a cell of size `rest`, from the last node to the first."""
        for node in reversed(range(self.space.nodes)):
            contents, shares = self._shares(cell, node, rest)
            pairs = contents[rng.choice(len(contents), p=shares)]
            pair = pairs[rng.integers(len(pairs))]
            row[pair] = 1
            rest = Size(*(rest - self.sizes_of_choices[pair].sum(0)).tolist())

    def _shares(self, cell: str, node: int, rest: Size) -> tuple[list[np.ndarray], np.ndarray]:
        """Contents of a node by size, and the share of the cells of size `rest` up to it that have each of them."""
        key = cell, node, rest
        if key not in self._known_shares:
            of_node, before = self._by_node[cell][node], self._up_to[cell][node]
            ways = np.array(
                [
                    len(pairs) * before.get(Size(*(a - b for a, b in zip(rest, size, strict=True))), 0)
                    for size, pairs in of_node.items()
                ]
            )
            self._known_shares[key] = list(of_node.values()), ways / ways.sum()
        return self._known_shares[key]

    @cached_property
    def _known_shares(self) -> dict[tuple, tuple[list[np.ndarray], np.ndarray]]:
        return {}


def add_up(one: Counts, other: Counts) -> Counts:
    """Sizes of all combinations, and the ways to have them."""
    found: Counts = Counter()
    for first, count in one.items():
        for second, times in other.items():
            found[first.plus(second)] += count * times
    return found
