"""Algorithm 1 of the paper: prune a supernet by the ranks of its operations until a genotype is left."""

import logging
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from metantk.criteria import CRITERIA, Key, Masks, Setting
from metantk.devices import numpy_generator
from metantk.space.genotype import CELL_TYPES, Space
from metantk.space.supernet import full_masks

log = logging.getLogger("metantk")
KEPT_EDGES = 2  # per node


class Candidate(NamedTuple):
    """An operation that a round may remove; `operation` counts within the space."""

    cell: str
    edge: int
    operation: int


class Round(NamedTuple):
    """One round's question: which of these candidates to remove.

    Attributes:
        stage: "operations" (remove one per edge) or "edges" (remove all but two of the group).
    """

    stage: str
    candidates: list[Candidate]


def round_significant(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits - 1}e}")


def dense_ranks(scores: list[float], *, descending: bool) -> tuple[list[int], list[int]]:
    """Ranks from 0 as the published code gives them, and the order of candidates behind them.

    Sorted by the score rounded to 3 significant digits, equal ones in their given order; neighbours share a rank
    where their unrounded scores are equal, otherwise the next rank is one higher.
    """
    order = sorted(range(len(scores)), key=lambda i: round_significant(scores[i]), reverse=descending)
    ranks = [0] * len(scores)
    for before, this in pairwise(order):
        ranks[this] = ranks[before] + (scores[this] != scores[before])
    return ranks, order


def removal_order(scores: dict[str, list[float]]) -> tuple[list[int], dict[str, list[int]]]:
    """Candidates from the first to remove to the last, and their ranks by criterion.

    Args:
        scores: by criterion, the mean relative change of each candidate. What lowers a condition number most by
            its absence, or raises the regions most, goes first. Ties in the sum of ranks: the order of the first
            criterion decides (published code).
    """
    ranks, orders = {}, []
    for name, values in scores.items():
        ranks[name], order = dense_ranks(values, descending=not CRITERIA[name].larger_is_better)
        orders.append(order)
    sums = [sum(ranks[name][i] for name in scores) for i in range(len(orders[0]))]
    return sorted(orders[0], key=lambda i: sums[i]), ranks


def choose_removed(this: Round, order: list[int]) -> list[int]:
    """Numbers of the candidates that the round removes, given the order of removal."""
    if this.stage == "edges":
        return order[: len(order) - KEPT_EDGES]
    first: dict[tuple[str, int], int] = {}
    for number in order:
        candidate = this.candidates[number]
        first.setdefault((candidate.cell, candidate.edge), number)
    return list(first.values())


def next_round(space: Space, masks: Masks) -> Round | None:
    """What the search asks of the current network; None when it is a genotype."""
    crowded = [
        Candidate(cell, edge, operation)
        for cell in CELL_TYPES
        for edge in range(len(space.edges))
        if masks[cell][edge].sum() > 1
        for operation in masks[cell][edge].nonzero().flatten().tolist()
    ]
    if crowded:
        return Round("operations", crowded)
    for cell in CELL_TYPES:
        for node in range(2, 2 + space.nodes):
            group = [e for e, edge in enumerate(space.edges) if edge.node == node and masks[cell][e].any()]
            if len(group) > KEPT_EDGES:
                return Round("edges", [Candidate(cell, e, int(masks[cell][e].nonzero())) for e in group])
    return None


def total_evaluations(space: Space, options) -> int:
    """Candidates that a whole search evaluates, the unpruned network included, over repeats and criteria."""
    edges, count = 2 * len(space.edges), 0
    pairs = options.draws == "independent"
    groups = [size for size in range(2, 2 + space.nodes) if size > KEPT_EDGES] * 2
    rounds = [edges * left for left in range(len(space.operations), 1, -1)] + groups
    for candidates in rounds:
        count += 2 * candidates if pairs else 1 + candidates
    return count * options.repeat * len(options.criteria)


def score_round(setting: Setting, this: Round, masks: Masks, key: Key) -> dict[str, dict[str, np.ndarray]]:
    """Values and relative changes of each candidate by criterion.

    Returns:
        By criterion: "unpruned" and "pruned" values and "change", each `(repeat, candidates)`. The change is
        (N - N without the operation) / N, rounded to 3 decimals (published code).
    """
    scores = {}
    for name in setting.options.criteria:
        draws = [_measure(setting, name, this.candidates, masks, (*key, r)) for r in range(setting.options.repeat)]
        unpruned = np.stack([draw[0] for draw in draws])
        pruned = np.stack([draw[1] for draw in draws])
        scores[name] = {
            "unpruned": unpruned,
            "pruned": pruned,
            "change": relative_change(unpruned, pruned, where=f"round {key[-1]}, {name}"),
        }
    return scores


def _measure(
    setting: Setting, name: str, candidates: list[Candidate], masks: Masks, key: Key
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the unpruned network and of each candidate, `(candidates,)` each, from one draw or one each."""
    measure = CRITERIA[name].measure
    if setting.options.draws == "common":
        values = measure(setting, key, batch_masks(masks, candidates))
        return np.full(len(candidates), values[0]), values[1:]
    pairs = [measure(setting, (*key, i), batch_masks(masks, [c])) for i, c in enumerate(candidates)]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def batch_masks(masks: Masks, candidates: list[Candidate]) -> Masks:
    """The unpruned network, then the network without each candidate: `(1 + candidates, edges, operations)`."""
    batch = {cell: mask.repeat(1 + len(candidates), 1, 1) for cell, mask in masks.items()}
    for number, candidate in enumerate(candidates, start=1):
        batch[candidate.cell][number, candidate.edge, candidate.operation] = False
    return batch


def relative_change(unpruned: np.ndarray, pruned: np.ndarray, *, where: str) -> np.ndarray:
    """(unpruned - pruned) / unpruned, to 3 decimals.

    An infinite pruned value (a singular kernel) gives -inf: the operation is the last to go. Where the unpruned
    value is infinite nothing can be compared: NaN, which the mean over draws leaves out. Both are logged.
    """
    broken, hopeless = ~np.isfinite(pruned), ~np.isfinite(unpruned)
    if broken.any() or hopeless.any():
        log.warning("%s: singular kernels: %d unpruned, %d pruned", where, hopeless.sum(), broken.sum())
    with np.errstate(invalid="ignore"):
        change = np.round((unpruned - pruned) / unpruned, 3)
    change[broken] = -math.inf
    change[hopeless] = math.nan
    return change


def mean_change(change: np.ndarray) -> list[float]:
    """Mean over draws, `(repeat, candidates)` to one number each; 0 where no draw can be used."""
    usable = ~np.isnan(change)
    total = np.where(usable, change, 0).sum(0)
    return (total / np.maximum(usable.sum(0), 1)).tolist()


class State(NamedTuple):
    """A search between two rounds: what is left, and a row for each candidate of each round so far."""

    masks: Masks
    rows: list[dict]
    rounds: int

    def to_json(self) -> dict:
        masks = {cell: mask.int().tolist() for cell, mask in self.masks.items()}
        return {"masks": masks, "rows": self.rows, "rounds": self.rounds}

    @classmethod
    def from_json(cls, value: dict) -> "State":
        masks = {cell: torch.tensor(mask, dtype=torch.bool) for cell, mask in value["masks"].items()}
        return cls(masks, value["rows"], value["rounds"])


def first_state(space: Space) -> State:
    return State(full_masks(space), [], 0)


def search(setting: Setting, seed: int, state: State, keep: Callable[[State], None]) -> State:
    """Run the rounds that are left; `keep` is handed the state after each."""
    while (this := next_round(setting.space, state.masks)) is not None:
        scores = score_round(setting, this, state.masks, (seed, state.rounds))
        state = prune(setting.space, this, scores, state)
        keep(state)
    return state


def prune(space: Space, this: Round, scores: dict[str, dict[str, np.ndarray]], state: State) -> State:
    """Remove what the round's scores decide; the next state."""
    means = {name: mean_change(values["change"]) for name, values in scores.items()}
    order, ranks = removal_order(means)
    removed = choose_removed(this, order)
    masks = {cell: mask.clone() for cell, mask in state.masks.items()}
    for number in removed:
        candidate = this.candidates[number]
        masks[candidate.cell][candidate.edge, candidate.operation] = False
    rows = list(_rows(space, this, scores, means, ranks, set(removed), state.rounds))
    return State(masks, state.rows + rows, state.rounds + 1)


def _rows(space, this: Round, scores, means, ranks, removed: set[int], number: int) -> Iterator[dict]:
    for i, candidate in enumerate(this.candidates):
        edge = space.edges[candidate.edge]
        row = {
            "round": number,
            "stage": this.stage,
            "cell": candidate.cell,
            "edge": candidate.edge,
            "input": edge.input,
            "node": edge.node,
            "operation": space.operations[candidate.operation],
        }
        for name, values in scores.items():
            row[f"{name}_unpruned"] = float(values["unpruned"][:, i].mean())
            row[name] = float(values["pruned"][:, i].mean())
            row[f"{name}_change"] = means[name][i]
            row[f"{name}_rank"] = ranks[name][i]
        row["rank_sum"] = sum(ranks[name][i] for name in scores)
        row["removed"] = i in removed
        yield row


def trace_columns(criteria: list[str]) -> list[str]:
    """Columns of search.csv."""
    per_criterion = [f"{name}{part}" for name in criteria for part in ("_unpruned", "", "_change", "_rank")]
    return [
        "round",
        "stage",
        "cell",
        "edge",
        "input",
        "node",
        "operation",
        *per_criterion,
        "rank_sum",
        "removed",
    ]


def to_genotype(space: Space, masks: Masks) -> dict:
    """The genotype of a network with one operation on each of two edges per node."""
    genotype = {}
    for cell in CELL_TYPES:
        nodes: list[list[list]] = [[] for _ in range(space.nodes)]
        for number, edge in enumerate(space.edges):
            for operation in masks[cell][number].nonzero().flatten().tolist():
                nodes[edge.node - 2].append([space.operations[operation], edge.input])
        genotype |= {cell: nodes, f"{cell}_concat": list(range(2, 2 + space.nodes))}
    return genotype


def random_genotype(space: Space, seed: int) -> dict:
    """A uniform draw: an operation for each edge, two inputs for each node."""
    draws = numpy_generator("random genotype", seed)
    masks = {cell: torch.zeros(len(space.edges), len(space.operations), dtype=torch.bool) for cell in CELL_TYPES}
    for cell in CELL_TYPES:
        for node in range(2, 2 + space.nodes):
            for source in draws.choice(node, KEPT_EDGES, replace=False):
                edge = space.edges.index((int(source), node))
                masks[cell][edge, draws.integers(len(space.operations))] = True
    return to_genotype(space, masks)
