"""Algorithm 1 of the paper: prune a supernet by the ranks of its operations until a genotype is left."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from metantk.config import SearchOptions
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


def removal_order(
    scores: dict[str, list[float]], weights: dict[str, float]
) -> tuple[list[int], dict[str, list[int]]]:
    """Candidates from the first to remove to the last, and their ranks by criterion.

    Args:
        scores: by criterion, the mean relative change of each candidate. What lowers a condition number most by
            its absence, or raises the regions most, goes first. Ties in the sum of ranks: the order of the first
            criterion decides (published code).
        weights: by criterion, the factor of its ranks in the sum.
    """
    ranks, orders = {}, []
    for name, values in scores.items():
        ranks[name], order = dense_ranks(values, descending=not CRITERIA[name].larger_is_better)
        orders.append(order)
    sums = rank_sums(ranks, weights)
    return sorted(orders[0], key=lambda i: sums[i]), ranks


def rank_sums(ranks: dict[str, list[int]], weights: dict[str, float]) -> list[float]:
    """The weighted sum over criteria of each candidate's ranks."""
    columns = zip(*ranks.values(), strict=True)
    return [sum(weights[name] * rank for name, rank in zip(ranks, column, strict=True)) for column in columns]


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


def total_work(space: Space, options: SearchOptions) -> int:
    """A whole search in units of progress: evaluations of networks times the operations that they may have."""
    work = sum(
        evaluations_of_draw(options, candidates) * operations for candidates, operations in _round_sizes(space)
    )
    return work * options.repeat * len(options.weights)


def _round_sizes(space: Space) -> Iterator[tuple[int, int]]:
    """Candidates of each round, and operations left in its network."""
    left = 2 * len(space.edges)
    for each in range(len(space.operations), 1, -1):
        yield left * each, left * each
    for _ in CELL_TYPES:
        for inputs in range(KEPT_EDGES + 1, 2 + space.nodes):
            yield inputs, left
            left -= inputs - KEPT_EDGES


def evaluations_of_draw(options: SearchOptions, candidates: int) -> int:
    """Networks evaluated for a draw of a criterion: the unpruned one once, or once per candidate."""
    return 1 + candidates if options.draws == "common" else 2 * candidates


@dataclass
class Cost:
    """What a criterion has cost: seconds, evaluations of networks, floating-point operations of their kernels."""

    seconds: float = 0.0
    evaluations: int = 0
    operations: int = 0


class Draw(NamedTuple):
    """Values from one draw (or one per candidate) of a criterion, `(candidates,)` each; plain numbers."""

    unpruned: list[float]
    pruned: list[float]


class Score(NamedTuple):
    """What a round knows of its candidates by one criterion, `(repeat, candidates)` each.

    Attributes:
        unpruned, pruned: values with and without the candidate.
        change: (unpruned - pruned) / unpruned, rounded to 3 decimals (published code).
    """

    unpruned: np.ndarray
    pruned: np.ndarray
    change: np.ndarray


def measure_draw(
    setting: Setting, name: str, candidates: list[Candidate], masks: Masks, key: Key, cost: Cost
) -> Draw:
    """Values of the unpruned network and of each candidate, from one draw or, if `independent`, one each."""
    began = time.perf_counter()
    if setting.options.draws == "common":
        values = _measure(setting, name, key, batch_masks(masks, candidates), cost)
        draw = Draw([values[0]] * len(candidates), values[1:])
    else:
        pairs = [
            _measure(setting, name, (*key, number), batch_masks(masks, [candidate]), cost)
            for number, candidate in enumerate(candidates)
        ]
        draw = Draw(*(list(column) for column in zip(*pairs, strict=True)))
    cost.seconds += time.perf_counter() - began
    return draw


def _measure(setting: Setting, name: str, key: Key, masks: Masks, cost: Cost) -> list[float]:
    measured = CRITERIA[name].measure(setting, key, masks)
    cost.evaluations += len(measured.values)
    cost.operations += measured.operations
    return measured.values.tolist()


def score(name: str, draws: list[Draw], *, where: str) -> Score:
    """Compare the networks with and without each candidate; `where` names the round in the log."""
    unpruned, pruned = (np.array([getattr(draw, side) for draw in draws]) for side in Draw._fields)
    if len(np.unique(pruned)) == 1 < pruned.shape[1]:
        log.warning("%s, %s: all candidates are alike, so it decides nothing; give it more pictures", where, name)
    larger_is_better = CRITERIA[name].larger_is_better
    change = relative_change(unpruned, pruned, larger_is_better=larger_is_better, where=f"{where}, {name}")
    return Score(unpruned, pruned, change)


def batch_masks(masks: Masks, candidates: list[Candidate]) -> Masks:
    """The unpruned network, then the network without each candidate: `(1 + candidates, edges, operations)`."""
    batch = {cell: mask.repeat(1 + len(candidates), 1, 1) for cell, mask in masks.items()}
    for number, candidate in enumerate(candidates, start=1):
        batch[candidate.cell][number, candidate.edge, candidate.operation] = False
    return batch


def relative_change(unpruned: np.ndarray, pruned: np.ndarray, *, larger_is_better: bool, where: str) -> np.ndarray:
    """(unpruned - pruned) / unpruned, to 3 decimals.

    A pruned value that is not finite (a singular kernel) gives the infinite change of a network that nothing can
    be worse than: the operation is the last to go. Where the unpruned value is not finite, or is zero, nothing
    can be compared: NaN, which the mean over draws leaves out. All are logged.
    """
    broken, hopeless = ~np.isfinite(pruned), ~np.isfinite(unpruned) | (unpruned == 0)
    if broken.any() or hopeless.any():
        log.warning(
            "%s: no value (a singular or not finite kernel) of %d unpruned and %d pruned networks",
            where,
            hopeless.sum(),
            broken.sum(),
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.round((unpruned - pruned) / unpruned, 3)
    change[broken] = math.inf if larger_is_better else -math.inf
    change[hopeless] = math.nan
    return change


def mean_change(change: np.ndarray) -> list[float]:
    """Mean over draws, `(repeat, candidates)` to one number each; 0 where no draw can be used."""
    usable = ~np.isnan(change)
    total = np.where(usable, change, 0).sum(0)
    return (total / np.maximum(usable.sum(0), 1)).tolist()


class State(NamedTuple):
    """A search at any point: what is left, and what is known.

    Attributes:
        masks: remaining operations.
        rows: one for each candidate of each finished round.
        rounds: finished.
        draws: of the round that is under way, by criterion.
        costs: by criterion, of all rounds so far.
    """

    masks: Masks
    rows: list[dict]
    rounds: int
    draws: dict[str, list[Draw]]
    costs: dict[str, Cost]

    def to_json(self) -> dict:
        return self._asdict() | {
            "masks": {cell: mask.int().tolist() for cell, mask in self.masks.items()},
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
        }

    @classmethod
    def from_json(cls, value: dict) -> "State":
        return cls(
            masks={cell: torch.tensor(mask, dtype=torch.bool) for cell, mask in value["masks"].items()},
            rows=value["rows"],
            rounds=value["rounds"],
            draws={name: [Draw(*draw) for draw in draws] for name, draws in value["draws"].items()},
            costs={name: Cost(**cost) for name, cost in value["costs"].items()},
        )


def first_state(space: Space) -> State:
    return State(full_masks(space), [], 0, {}, {})


def search(setting: Setting, seed: int, state: State, keep: Callable[[State], None]) -> State:
    """Do what is left of a search; `keep` is handed the state after each draw of a criterion and each round."""
    setting.advance(_work_done(setting, state))
    while (this := next_round(setting.space, state.masks)) is not None:
        state = _measure_round(setting, this, seed, state, keep)
        where = f"round {state.rounds}"
        scores = {name: score(name, draws, where=where) for name, draws in state.draws.items()}
        state = prune(setting, this, scores, state)
        keep(state)
    return state


def _measure_round(setting: Setting, this: Round, seed: int, state: State, keep: Callable[[State], None]) -> State:
    """Take the draws of the round that are still missing."""
    operations = sum(int(mask.sum()) for mask in state.masks.values())
    counting = setting._replace(advance=lambda networks: setting.advance(networks * operations))
    for name in setting.options.weights:
        for repeat in range(len(state.draws.get(name, [])), setting.options.repeat):
            key = (seed, state.rounds, repeat)
            cost = replace(state.costs.get(name, Cost()))
            draw = measure_draw(counting, name, this.candidates, state.masks, key, cost)
            draws = state.draws | {name: [*state.draws.get(name, []), draw]}
            state = state._replace(draws=draws, costs=state.costs | {name: cost})
            keep(state)
    return state


def _work_done(setting: Setting, state: State) -> int:
    """As in `total_work`, of a state that is gone on with."""
    sizes = list(_round_sizes(setting.space))
    works = [evaluations_of_draw(setting.options, candidates) * operations for candidates, operations in sizes]
    draws = sum(len(draws) for draws in state.draws.values())
    whole = setting.options.repeat * len(setting.options.weights)
    return whole * sum(works[: state.rounds]) + (draws * works[state.rounds] if draws else 0)


def prune(setting: Setting, this: Round, scores: dict[str, Score], state: State) -> State:
    """Remove what the round's scores decide; the next state."""
    means = {name: mean_change(values.change) for name, values in scores.items()}
    order, ranks = removal_order(means, setting.options.weights)
    removed = choose_removed(this, order)
    masks = {cell: mask.clone() for cell, mask in state.masks.items()}
    for number in removed:
        candidate = this.candidates[number]
        masks[candidate.cell][candidate.edge, candidate.operation] = False
    rows = list(_rows(setting, this, scores, means, ranks, set(removed), state.rounds))
    return state._replace(masks=masks, rows=state.rows + rows, rounds=state.rounds + 1, draws={})


def _rows(setting: Setting, this: Round, scores, means, ranks, removed: set[int], number: int) -> Iterator[dict]:
    sums = rank_sums(ranks, setting.options.weights)
    for i, candidate in enumerate(this.candidates):
        edge = setting.space.edges[candidate.edge]
        row = {
            "round": number,
            "stage": this.stage,
            "cell": candidate.cell,
            "edge": candidate.edge,
            "input": edge.input,
            "node": edge.node,
            "operation": setting.space.operations[candidate.operation],
        }
        for name, values in scores.items():
            row[f"{name}_unpruned"] = float(values.unpruned[:, i].mean())
            row[name] = float(values.pruned[:, i].mean())
            row[f"{name}_change"] = means[name][i]
            row[f"{name}_rank"] = ranks[name][i]
        row["rank_sum"] = sums[i]
        row["removed"] = i in removed
        row["decided_by"] = _decided_by(this, ranks, i) if i in removed else ""
        yield row


def _decided_by(this: Round, ranks: dict[str, list[int]], removed: int) -> str:
    """The criteria that would have removed the candidate on their own; `compromise` where only the sum does."""
    rivals = [i for i, other in enumerate(this.candidates) if this.stage == "edges" or _same_edge(this, i, removed)]
    allowed = len(rivals) - KEPT_EDGES if this.stage == "edges" else 1
    deciding = [
        name for name, values in ranks.items() if sum(values[i] < values[removed] for i in rivals) < allowed
    ]
    return " ".join(deciding) or "compromise"


def _same_edge(this: Round, one: int, other: int) -> bool:
    return this.candidates[one][:2] == this.candidates[other][:2]


def trace_columns(criteria: Iterable[str]) -> list[str]:
    """Columns of search.csv."""
    per_criterion = [f"{name}{part}" for name in criteria for part in ("_unpruned", "", "_change", "_rank")]
    place = ["round", "stage", "cell", "edge", "input", "node", "operation"]
    return [*place, *per_criterion, "rank_sum", "removed", "decided_by"]


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
