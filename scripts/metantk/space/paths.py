"""Whole architectures as rows of 0 and 1: one operation on each of two edges per node of both cells.

A choice is a (cell, edge, operation); choices are counted cell by cell, edge by edge, in the order of the space. A
row has one place per choice, and a 1 for each that its architecture is made of.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.runtime.files import InputError
from metantk.space.genotype import CELL_TYPES, KEPT_EDGES, Space, to_genotype


class Choice(NamedTuple):
    """An operation on an edge; both count within their space."""

    cell: str
    edge: int
    operation: int


def choices(space: Space) -> list[Choice]:
    """All of a space, in the order of a row."""
    return [
        Choice(cell, edge, operation)
        for cell in CELL_TYPES
        for edge in range(len(space.edges))
        for operation in range(len(space.operations))
    ]


def groups(space: Space) -> list[list[list[int]]]:
    """For each node of both cells, the places of the choices on each of the edges that lead to it."""
    count = len(space.operations)
    places = np.arange(len(CELL_TYPES) * len(space.edges) * count).reshape(len(CELL_TYPES), -1, count)
    return [
        [places[cell, index].tolist() for index, edge in enumerate(space.edges) if edge.node == node]
        for cell in range(len(CELL_TYPES))
        for node in range(2, 2 + space.nodes)
    ]


def contents(space: Space) -> list[np.ndarray]:
    """For each node of both cells, all pairs of choices that it can be made of, `(pairs, 2)`."""
    return [
        np.array([(a, b) for one, other in combinations(edges, KEPT_EDGES) for a in one for b in other])
        for edges in groups(space)
    ]


def balanced_sample(space: Space, count: int, draws: np.random.Generator) -> np.ndarray:
    """Random architectures, `(count, choices)`, in which a node's pairs of edges are equally frequent, and so are
    the operations of each edge."""
    rows = np.zeros((count, len(choices(space))))
    for edges in groups(space):
        pairs = list(combinations(range(len(edges)), KEPT_EDGES))
        drawn = np.array(pairs)[_balanced(len(pairs), count, draws)]
        for index, places in enumerate(edges):
            of_edge = np.flatnonzero((drawn == index).any(1))
            operations = _balanced(len(places), len(of_edge), draws)
            rows[of_edge, np.array(places)[operations]] = 1
    return rows


def _balanced(options: int, count: int, draws: np.random.Generator) -> np.ndarray:
    """`count` numbers below `options`, each as often as the others or once more, in random order."""
    repeated = [draws.permutation(options) for _ in range(-(-count // options))]
    return draws.permutation(np.concatenate(repeated)[:count]) if count else np.zeros(0, int)


def masks_of(space: Space, row: np.ndarray) -> dict[str, Tensor]:
    """The candidate of a row, for criteria: for each cell type, `(1, edges, operations)` bool."""
    shape = (len(CELL_TYPES), 1, len(space.edges), len(space.operations))
    return dict(zip(CELL_TYPES, torch.from_numpy(row.reshape(shape) > 0), strict=True))


def genotype_of(space: Space, row: np.ndarray) -> dict:
    return to_genotype(space, {cell: mask[0] for cell, mask in masks_of(space, row).items()})


def row_of(space: Space, genotype: dict) -> np.ndarray:
    """The row of a genotype of the space; `genotype_of` undoes it.

    Raises:
        InputError: the genotype has operations or nodes that the space has not, or one operation twice on an edge.
    """
    row = np.zeros((len(CELL_TYPES), len(space.edges), len(space.operations)))
    for cell, kind in enumerate(CELL_TYPES):
        if len(genotype[kind]) != space.nodes:
            raise InputError(f"its {kind} cell has {len(genotype[kind])} nodes, cells of the space {space.nodes}")
        for node, pairs in enumerate(genotype[kind], start=2):
            for operation, source in pairs:
                if operation not in space.operations:
                    raise InputError(f"its {kind} cell has {operation}, which is not of the space")
                place = cell, space.edges.index((source, node)), space.operations.index(operation)
                if row[place]:
                    raise InputError(f"its {kind} cell has {operation} twice on edge {source}→{node}")
                row[place] = 1
    return row.ravel()
