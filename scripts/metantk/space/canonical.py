"""One form for all cells that compute the same. Imports no torch.

A cell is a tuple of blocks, a block two halves `(input, operation)` that are added up. Inputs 0 and 1 are the two
previous cells, 2 and up the blocks in their order.
"""

from itertools import permutations

from metantk.space.genotype import CELL_TYPES

Half = tuple[int, int | str]
Block = tuple[Half, Half]
Cell = tuple[Block, ...]


def canonical(cell: Cell) -> Cell:
    """The smallest of the forms that compute the same: halves swapped, blocks in another possible order."""
    return min(_reordered(cell, order) for order in permutations(range(len(cell))) if _is_possible(cell, order))


def canonical_genotype(genotype: dict) -> dict:
    """A genotype whose cells are in their canonical form: equal for architectures that compute the same."""
    found = {}
    for kind in CELL_TYPES:
        cell = canonical(tuple(tuple((source, name) for name, source in node) for node in genotype[kind]))
        found[kind] = [[[name, source] for source, name in block] for block in cell]
        found[f"{kind}_concat"] = list(range(2, 2 + len(cell)))
    return found


def _is_possible(cell: Cell, order: tuple[int, ...]) -> bool:
    """Whether every block comes after those that it reads."""
    position = {old: new for new, old in enumerate(order)}
    return all(position[source - 2] < position[old] for old in order for source, _ in cell[old] if source >= 2)


def _reordered(cell: Cell, order: tuple[int, ...]) -> Cell:
    index = {0: 0, 1: 1} | {old + 2: new + 2 for new, old in enumerate(order)}
    return tuple(tuple(sorted((index[source], operation) for source, operation in cell[old])) for old in order)
