"""From learned weights of operations and inputs to a genotype. Plain arrays; imports no torch."""

from itertools import combinations

import numpy as np

from metantk.space.genotype import CELL_TYPES, Space


def decode_pairs(operations: np.ndarray, pairs: np.ndarray, space: Space) -> list:
    """A cell's nodes: the pair of inputs of largest weight, and the best operation on each (MetaNAS).

    Two inputs of a node are never the same.

    Args:
        operations: logits or weights, `(edges, operations)`.
        pairs: logits or weights, `(pairs,)`, node by node, pairs in lexicographic order.
    """
    best = operations.argmax(1)
    nodes, first = [], 0
    for node in range(2, 2 + space.nodes):
        candidates = list(combinations(range(node), 2))
        chosen = candidates[int(pairs[first : first + len(candidates)].argmax())]
        first += len(candidates)
        nodes.append([[space.operations[best[space.edges.index((source, node))]], source] for source in chosen])
    return nodes


def decode_edges(weights: np.ndarray, space: Space, *, excluded: str | None = None) -> list:
    """A cell's nodes: the two edges of the largest weights of operations, in descending order (DARTS, T-NAS).

    Args:
        weights: of operations after the softmax, `(edges, operations)`: they are compared between edges.
        excluded: name of an operation that counts for nothing and is never chosen.
    """
    weights = weights.copy()
    if excluded in space.operations:
        weights[:, space.operations.index(excluded)] = -np.inf
    best = weights.argmax(1)
    nodes = []
    for node in range(2, 2 + space.nodes):
        edges = [index for index, edge in enumerate(space.edges) if edge.node == node]
        edges = sorted(edges, key=lambda index: weights[index].max(), reverse=True)[:2]
        nodes.append([[space.operations[best[index]], space.edges[index].input] for index in edges])
    return nodes


def to_genotype(nodes: dict[str, list], space: Space) -> dict:
    """The genotype of the nodes of each type of cell."""
    concat = list(range(2, 2 + space.nodes))
    return {key: value for kind in CELL_TYPES for key, value in ((kind, nodes[kind]), (f"{kind}_concat", concat))}


def entropy(weights: np.ndarray) -> float:
    """Mean over rows of `(edges, operations)` of the entropy, in nats."""
    return float(-(weights * np.log(np.maximum(weights, 1e-30))).sum(1).mean())
