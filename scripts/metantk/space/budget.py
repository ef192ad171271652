"""Which architectures of a stack stay within a budget, by exact addition over their choices. Imports no torch."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from metantk.options.budget import NS_OF_MS, BudgetOptions
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
        most = (limits.parameters, limits.multiply_accumulates, limits.latency_ns)
        self.low = np.array([limits.min_parameters or 0, 0, 0])
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
        if "latency_ms" in limited and self.range().largest.latency_ns:
            spans.append("{:.3g} to {:.3g} ms".format(*(end.latency_ns / NS_OF_MS for end in self.range())))
        return f"possible are {' and '.join(spans)}"

    def allows(self, sizes: np.ndarray) -> np.ndarray:
        """Whether sizes `(..., 3)` of whole networks are within the limits, `(...)`."""
        return ((sizes >= self.low) & (sizes <= self.high)).all(-1)

    def size_of(self, genotype: dict) -> Size:
        return self.sizes.of_genotype(self.space, genotype)

    def facts(self, genotype: dict) -> dict:
        """The limits, the network's size and what is possible, for search.json."""
        smallest, largest = self.range()
        return {
            "limits": self.limits.model_dump(),
            **self._describe(self.size_of(genotype)),
            "smallest": self._describe(smallest),
            "largest": self._describe(largest),
        }

    def _describe(self, size: Size) -> dict:
        """In plain values; latency in milliseconds, where it was measured."""
        described = size._asdict()
        latency_ms = described.pop("latency_ns") / NS_OF_MS
        return described | ({"latency_ms": latency_ms} if self.limits.latency_ms else {})

    def fits(self, masks: dict[str, np.ndarray]) -> bool:
        """Whether any architecture made of these choices is within the limits.

        Args:
            masks: by cell type, `(edges, operations)`: whether an operation may be chosen.
        """
        normal, reduce = (self._cheapest_cells(cell, masks[cell]) for cell in CELL_TYPES)
        whole = np.array(self.sizes.fixed) + normal[:, None] + reduce[None]
        return bool(self.allows(whole).any())

    def _cheapest_cells(self, cell: str, mask: np.ndarray) -> np.ndarray:
        """Sizes `(sizes, 3)` of the cells of a type that can be made of these choices, see `cheapest`."""
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
        """For each edge, the sizes `(operations, 3)` of what may be chosen."""
        return [np.array(sizes)[chosen] for sizes, chosen in zip(self.sizes.choices[cell], mask, strict=True)]

    def _nodes(self, edges: list[np.ndarray]) -> list[np.ndarray]:
        """For each node, the sizes `(contents, 3)` of an operation on each of two edges."""
        found = []
        for node in range(2, 2 + self.space.nodes):
            own = [edges[index] for index, edge in enumerate(self.space.edges) if edge.node == node]
            found.append(np.concatenate([sums(*pair) for pair in combinations(own, KEPT_EDGES)]))
        return found

    def _everything(self) -> dict[str, np.ndarray]:
        return {cell: np.ones((len(self.space.edges), len(self.space.operations)), bool) for cell in CELL_TYPES}


def sums(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each two sizes, `(a, 3)` and `(b, 3)` to `(a * b, 3)`."""
    return (one[:, None] + other[None]).reshape(-1, len(Size._fields))


def cheapest(sizes: np.ndarray) -> np.ndarray:
    """Of sizes `(sizes, 3)` with equal parameters, those than which no other has both of the rest smaller.

    No other can be within the limits where none of these is, as only parameters have a lower limit.
    """
    ordered = sizes[np.lexsort(sizes.T[::-1])]
    # A size stays if its latency is below those of all before it. Latencies of later groups are shifted below those
    # of earlier ones, so that each group of equal parameters begins anew.
    group = np.cumsum(np.diff(ordered[:, 0], prepend=-1) > 0)
    latency = ordered[:, 2] - group * (ordered[:, 2].max(initial=0) + 1)
    before = np.minimum.accumulate(latency)
    return ordered[np.append(True, latency[1:] < before[:-1])[: len(ordered)]]
