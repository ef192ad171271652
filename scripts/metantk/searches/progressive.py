"""Progressive growth of cells by blocks, guided by a predictor (Liu et al. 2018, PNAS). Imports no torch.

A cell is a tuple of blocks, a block two halves `(input, operation)` that are added up. Inputs 0 and 1 are the two
previous cells, 2 and up the blocks in their order; operations are numbers within the space.
"""

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple, Protocol

from metantk.searches.decoding import to_genotype
from metantk.space.canonical import Block, Cell, canonical
from metantk.space.genotype import CELL_TYPES, Space


class Candidate(NamedTuple):
    """A cell that was trained.

    Attributes:
        predicted: its score as the predictor saw it before; None on the first level.
        score: as measured.
    """

    cell: Cell
    predicted: float | None
    score: float


class Predictor(Protocol):
    """Learns the scores of cells of one number of blocks, and predicts those of cells of the next."""

    def fit(self, cells: list[Cell], scores: list[float]) -> None: ...

    def predict(self, cells: list[Cell]) -> list[float]: ...


def unique_blocks(inputs: int, operations: int) -> list[Block]:
    """n(n + 1) / 2 blocks of n = inputs × operations halves: which of the two comes first does not matter."""
    halves = [(source, operation) for source in range(inputs) for operation in range(operations)]
    return list(combinations_with_replacement(halves, 2))


def expand(cells: list[Cell], operations: int) -> list[Cell]:
    """Every cell with every block more, each only once, in a fixed order."""
    return sorted(
        {canonical((*cell, block)) for cell in cells for block in unique_blocks(len(cell) + 2, operations)}
    )


def grow(
    first: list[Cell],
    *,
    operations: int,
    blocks: int,
    beam: int,
    measure: Callable[[Cell, float | None], float],
    predictor: Predictor,
) -> list[list[Candidate]]:
    """Train a first level; then, block by block, those `beam` of all expansions that the predictor likes best.

    Args:
        first: cells of one block, all of which are trained.
        measure: a cell and its prediction to its score, larger is better; called once for each candidate.
        predictor: is fitted on measured scores only, after each level but the last.

    Returns:
        the candidates of each level, in the order of their measuring.
    """
    levels: list[list[Candidate]] = []
    cells, predicted = first, [None] * len(first)
    while True:
        level = [Candidate(cell, guess, measure(cell, guess)) for cell, guess in zip(cells, predicted, strict=True)]
        levels.append(level)
        if len(levels) == blocks:
            return levels
        predictor.fit(cells, [candidate.score for candidate in level])
        children = expand(cells, operations)
        guesses = predictor.predict(children)
        chosen = sorted(range(len(children)), key=lambda index: -guesses[index])[:beam]
        cells, predicted = [children[index] for index in chosen], [guesses[index] for index in chosen]


def genotype_of(cell: Cell, space: Space) -> dict:
    """The genotype that uses the cell for both types; of fewer nodes than the space's while the cell is growing."""
    nodes = [[[space.operations[operation], source] for source, operation in block] for block in cell]
    return to_genotype(dict.fromkeys(CELL_TYPES, nodes), space._replace(nodes=len(cell)))
