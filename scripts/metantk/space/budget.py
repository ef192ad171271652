"""Which architectures of a stack stay within a budget, by exact addition over their choices. Imports no torch."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from metantk.options.budget import BudgetOptions
from metantk.runtime.files import InputError
from metantk.space.genotype import CELL_TYPES, KEPT_EDGES, Space
from metantk.space.sizes import NOTHING, Size, StackSizes


class Range(NamedTuple):
    """Of all architectures, the smallest and the largest in each respect; one needs not be both."""

    smallest: Size
    largest: Size


class Budget:
    """Limits, and what a stack's architectures add up to.

    Args:
        space: of the genotypes.
        sizes: of the stack, see `metantk.space.sizes.stack_sizes`.
        limits: of the network without its head.

    Raises:
        InputError: no architecture is within the limits.
    """

    def __init__(self, space: Space, sizes: StackSizes, limits: BudgetOptions) -> None:
        self.space, self.sizes, self.limits = space, sizes, limits
        unbounded = np.iinfo(np.int64).max
        most = (limits.parameters, limits.multiply_accumulates)
        self.low = np.array([limits.min_parameters or 0, 0])
        self.high = np.array([unbounded if limit is None else limit for limit in most])
        if not self.fits(self._everything()):
            raise InputError(
                f"budget: no architecture has {limits.describe()}; {self._possible()}, without the head"
            )

    def _possible(self) -> str:
        """What there is of each resource that is limited, for people."""
        limited = {name.removeprefix("min_") for name, limit in self.limits if limit is not None}
        ends = zip(Size._fields, *self.range(), strict=True)
        spans = [f"{least:,} to {most:,} {name.replace('_', '-')}" for name, least, most in ends if name in limited]
        return f"possible are {' and '.join(spans)}"

    def allows(self, sizes: np.ndarray) -> np.ndarray:
        """Whether sizes `(..., 2)` of whole networks are within the limits, `(...)`."""
        return ((sizes >= self.low) & (sizes <= self.high)).all(-1)

    def size_of(self, genotype: dict) -> Size:
        return self.sizes.of_genotype(self.space, genotype)

    def facts(self, genotype: dict) -> dict:
        """The limits, the network's size and what is possible, for search.json."""
        smallest, largest = self.range()
        return {
            "limits": self.limits.model_dump(),
            **self.size_of(genotype)._asdict(),
            "smallest": smallest._asdict(),
            "largest": largest._asdict(),
        }

    def fits(self, masks: dict[str, np.ndarray]) -> bool:
        """Whether any architecture made of these choices is within the limits.

        Args:
            masks: by cell type, `(edges, operations)`: whether an operation may be chosen.
        """
        normal, reduce = (self._cheapest_cells(cell, masks[cell]) for cell in CELL_TYPES)
        whole = np.array(self.sizes.fixed) + normal[:, None] + reduce[None]
        return bool(self.allows(whole).any())

    def _cheapest_cells(self, cell: str, mask: np.ndarray) -> np.ndarray:
        """Sizes `(sizes, 2)` of the cells of a type that can be made of these choices, see `cheapest`."""
        cells = np.array([NOTHING])
        for node in self._nodes([cheapest(edge) for edge in self._edges(cell, mask)]):
            cells = cheapest(sums(cells, cheapest(node)))
        return cells

    def range(self) -> Range:
        """The smallest and the largest possible."""
        nodes = [node for cell, mask in self._everything().items() for node in self._nodes(self._edges(cell, mask))]
        ends = (sum(getattr(node, end)(0) for node in nodes) + np.array(self.sizes.fixed) for end in ("min", "max"))
        return Range(*(Size(*end.tolist()) for end in ends))

    def _edges(self, cell: str, mask: np.ndarray) -> list[np.ndarray]:
        """For each edge, the sizes `(operations, 2)` of what may be chosen."""
        return [np.array(sizes)[chosen] for sizes, chosen in zip(self.sizes.choices[cell], mask, strict=True)]

    def _nodes(self, edges: list[np.ndarray]) -> list[np.ndarray]:
        """For each node, the sizes `(contents, 2)` of an operation on each of two edges."""
        found = []
        for node in range(2, 2 + self.space.nodes):
            own = [edges[index] for index, edge in enumerate(self.space.edges) if edge.node == node]
            found.append(np.concatenate([sums(*pair) for pair in combinations(own, KEPT_EDGES)]))
        return found

    def _everything(self) -> dict[str, np.ndarray]:
        return {cell: np.ones((len(self.space.edges), len(self.space.operations)), bool) for cell in CELL_TYPES}


def sums(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each two sizes, `(a, 2)` and `(b, 2)` to `(a * b, 2)`."""
    return (one[:, None] + other[None]).reshape(-1, len(Size._fields))


def cheapest(sizes: np.ndarray) -> np.ndarray:
    """Of sizes `(sizes, 2)` with equal parameters, the one of the fewest multiply-accumulates.

    No other can be within the limits where it is not, as multiply-accumulates have no lower limit.
    """
    ordered = sizes[np.lexsort(sizes.T[::-1])]
    return ordered[np.diff(ordered[:, 0], prepend=-1) > 0]
