"""Algorithm 1 of the paper: prune a supernet by the ranks of its operations until a genotype is left.

The criteria decide the method: meta_ntk_condition + linear_regions is MetaNTK-NAS, ntk_condition + linear_regions
is TE-NAS, linear_regions alone another row of Table 2. A search that is ended goes on after the last draw of a
criterion and finds the same genotype. Within a budget, an operation without which nothing could stay within it is
not removed.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from metantk.criteria.base import Criterion, Key, Masks, RandomKeys
from metantk.options.searches.prune import Options
from metantk.runtime.files import DivergedError
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.budget import budget_of
from metantk.searches.plan import Plan, plan_of
from metantk.space.budget import Budget
from metantk.space.genotype import CELL_TYPES, KEPT_EDGES, Space, to_genotype
from metantk.space.supernet import full_masks

log = logging.getLogger("metantk")


def find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found:
    """Prune until a genotype is left."""
    budget, checkpoint = budget_of(problem, options, checkpoint)
    plan = plan_of(problem, options)
    problem.bar.reset(total=total_work(plan.space, options))
    state = first_state(plan.space) if checkpoint.state is None else State.from_json(checkpoint.state)
    state = search(plan, seed, state, lambda state: checkpoint.save(state.to_json()), budget)
    genotype = to_genotype(plan.space, state.masks)
    facts = {
        "rounds": state.rounds,
        "criteria": {name: criterion.facts for name, criterion in plan.criteria.items()},
        **({"budget": budget.facts(genotype)} if budget else {}),
    }
    trace = pd.DataFrame(state.rows, columns=trace_columns(plan.criteria))
    return Found(genotype, trace, state.costs, facts)


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
    scores: dict[str, list[float]], weights: dict[str, float], larger_is_better: dict[str, bool]
) -> tuple[list[int], dict[str, list[int]]]:
    """Candidates from the first to remove to the last, and their ranks by criterion.

    Args:
        scores: by criterion, the mean change of each candidate. What lowers a condition number most by
            its absence, or raises the regions most, goes first. Ties in the sum of ranks: the order of the first
            criterion decides (published code).
        weights: by criterion, the factor of its ranks in the sum.
        larger_is_better: by criterion.
    """
    ranks, orders = {}, []
    for name, values in scores.items():
        ranks[name], order = dense_ranks(values, descending=not larger_is_better[name])
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
    for index in order:
        candidate = this.candidates[index]
        first.setdefault((candidate.cell, candidate.edge), index)
    return list(first.values())


def choose_within(budget: Budget, masks: Masks, this: Round, order: list[int]) -> list[int]:
    """As `choose_removed`, but nothing is removed without which no architecture within the budget is left.

    There is always enough to remove: of each choice that the round makes, an architecture within the budget takes
    no more than what is kept.
    """
    left = {cell: mask.numpy().copy() for cell, mask in masks.items()}
    one_each = this.stage == "operations"
    missing = None if one_each else len(order) - KEPT_EDGES
    removed: list[int] = []
    done: set[tuple[str, int]] = set()
    for index in order:
        cell, edge, operation = this.candidates[index]
        if (cell, edge) in done or len(removed) == missing:
            continue
        left[cell][edge, operation] = False
        if budget.fits(left):
            removed.append(index)
            done.add((cell, edge))
        else:
            left[cell][edge, operation] = True
    return removed


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


def total_work(space: Space, options: Options) -> int:
    """A whole search in units of progress: evaluations of networks times the operations that they may have."""
    work = sum(
        evaluations_of_draw(options, candidates) * operations for candidates, operations in round_sizes(space)
    )
    return work * options.repeats * len(options.weights)


def round_sizes(space: Space) -> Iterator[tuple[int, int]]:
    """Candidates of each round, and operations left in its network."""
    left = 2 * len(space.edges)
    for each in range(len(space.operations), 1, -1):
        yield left * each, left * each
    for _ in CELL_TYPES:
        for inputs in range(KEPT_EDGES + 1, 2 + space.nodes):
            yield inputs, left
            left -= inputs - KEPT_EDGES


def evaluations_of_draw(options: Options, candidates: int) -> int:
    """Networks evaluated for a draw of a criterion: the unpruned one once, or once per candidate."""
    return 1 + candidates if options.random_numbers == "common" else 2 * candidates


class Draw(NamedTuple):
    """Values from one draw (or one per candidate) of a criterion, `(candidates,)` each; plain numbers."""

    unpruned: list[float]
    pruned: list[float]


class Score(NamedTuple):
    """What a round knows of its candidates by one criterion, `(repeat, candidates)` each.

    Attributes:
        unpruned, pruned: values with and without the candidate.
        change: see `compare`; for most criteria (unpruned - pruned) / |unpruned|, to 3 decimals (published code).
    """

    unpruned: np.ndarray
    pruned: np.ndarray
    change: np.ndarray


def measure_draw(plan: Plan, name: str, candidates: list[Candidate], masks: Masks, key: Key, cost: Cost) -> Draw:
    """Values of the unpruned network and of each candidate.

    Args:
        key: (seed, round, repeat); common draws are keyed by it, independent ones by it and the candidate.
    """
    began = time.perf_counter()
    if plan.options.random_numbers == "common":
        values = _measure(plan, name, RandomKeys.of(key), batch_masks(masks, candidates), cost)
        draw = Draw([values[0]] * len(candidates), values[1:])
    else:
        draws_of = (
            RandomKeys.of if plan.options.random_numbers == "independent" else plan.criteria[name].published_draws
        )
        pairs = [
            _measure(plan, name, draws_of((*key, index)), batch_masks(masks, [candidate]), cost)
            for index, candidate in enumerate(candidates)
        ]
        draw = Draw(*(list(column) for column in zip(*pairs, strict=True)))
    cost.seconds += time.perf_counter() - began
    return draw


def _measure(plan: Plan, name: str, draws: RandomKeys, masks: Masks, cost: Cost) -> list[float]:
    measured = plan.criteria[name].measure(plan.context, plan.criteria_options[name], draws, masks)
    cost.evaluations += len(measured.values)
    cost.operations += measured.operations
    return measured.values.tolist()


def score(criterion: Criterion, draws: list[Draw], *, where: str) -> Score:
    """Compare the networks with and without each candidate; `where` names round and criterion in the log."""
    unpruned, pruned = (np.array([getattr(draw, side) for draw in draws], np.float64) for side in Draw._fields)
    if len(np.unique(pruned)) == 1 < pruned.shape[1]:
        log.warning(
            "%s: all candidates are alike, so it decides nothing; more images or repeats may tell them apart", where
        )
    references = _references(criterion, unpruned, pruned, where)
    return Score(unpruned, pruned, compare(criterion, references, pruned, where=where))


def _references(criterion: Criterion, unpruned: np.ndarray, pruned: np.ndarray, where: str) -> np.ndarray:
    """What each pruned network is compared with: the unpruned one.

    Where that has no value in a whole draw (a singular kernel, as of a large network on few images), the median of
    the draw's pruned networks takes its place: candidates still differ, and their order must not be chance.
    """
    usable = _has_size(criterion, pruned)
    lost = ~_has_size(criterion, unpruned).any(1) & usable.any(1)
    if lost.any():
        log.warning(
            "%s: the unpruned network has no value in %d of %d draws (a singular or not finite kernel): there,"
            " candidates are compared with their median",
            where,
            lost.sum(),
            len(lost),
        )
    references = unpruned.copy()
    for draw in np.flatnonzero(lost):
        references[draw] = np.median(pruned[draw, usable[draw]])
    return references


def _has_size(criterion: Criterion, values: np.ndarray) -> np.ndarray:
    """Which values others can be compared with."""
    with np.errstate(invalid="ignore"):
        sized = {"difference": True, "relative": values != 0, "logarithm": values > 0}[criterion.change]
    return np.isfinite(values) & sized


def batch_masks(masks: Masks, candidates: list[Candidate]) -> Masks:
    """The unpruned network, then the network without each candidate: `(1 + candidates, edges, operations)`."""
    batch = {cell: mask.repeat(1 + len(candidates), 1, 1) for cell, mask in masks.items()}
    for index, candidate in enumerate(candidates, start=1):
        batch[candidate.cell][index, candidate.edge, candidate.operation] = False
    return batch


def compare(criterion: Criterion, unpruned: np.ndarray, pruned: np.ndarray, *, where: str) -> np.ndarray:
    """How much a criterion changes when a candidate goes, to 3 decimals: positive where the value falls.

    A pruned value that is not finite (a singular kernel) gives the infinite change of a network that nothing can
    be worse than: the operation is the last to go. Where the unpruned value is not finite, or has no size to
    compare with, nothing can be said: NaN, which the mean over draws leaves out. All are logged.
    """
    broken, hopeless = ~np.isfinite(pruned), ~_has_size(criterion, unpruned)
    with np.errstate(invalid="ignore", divide="ignore"):
        if criterion.change == "difference":
            change = unpruned - pruned
        elif criterion.change == "logarithm":
            broken |= pruned <= 0
            change = np.log(unpruned) - np.log(pruned)
        else:
            change = (unpruned - pruned) / np.abs(unpruned)
        change = np.round(change, 3)
    if broken.any() or hopeless.any():
        log.warning(
            "%s: no value (a singular or not finite kernel) of %d unpruned and %d pruned networks",
            where,
            hopeless.sum(),
            broken.sum(),
        )
    change[broken] = math.inf if criterion.larger_is_better else -math.inf
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
        """Plain values alone: a checkpoint with a class of ours in it could not be read again."""
        return self._asdict() | {
            "masks": {cell: mask.int().tolist() for cell, mask in self.masks.items()},
            "draws": {name: [list(draw) for draw in draws] for name, draws in self.draws.items()},
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


def search(
    plan: Plan, seed: int, state: State, save: Callable[[State], None], budget: Budget | None = None
) -> State:
    """Do what is left of a search; `save` is handed the state after each draw of a criterion and each round."""
    plan.context.advance(_work_done(plan, state))
    while (this := next_round(plan.space, state.masks)) is not None:
        state = _measure_round(plan, this, seed, state, save)
        scores = {
            name: score(plan.criteria[name], draws, where=f"round {state.rounds}, {name}")
            for name, draws in state.draws.items()
        }
        _check_values(scores, state.rounds)
        state = prune(plan, this, scores, state, budget)
        save(state)
    return state


def _check_values(scores: dict[str, Score], rounds: int) -> None:
    """Refuse to search by a criterion that has no value for any candidate: the order of a list would decide.

    Raises:
        DivergedError: all candidates are singular.
    """
    for name, values in scores.items():
        if not np.isfinite(values.pruned).any():
            raise DivergedError(
                f"search: criterion {name} has no value for any of {values.pruned.shape[1]} candidates of round"
                f" {rounds} (all kernels are singular or not finite): give it other images or options, or leave it"
                " out"
            )


def _measure_round(plan: Plan, this: Round, seed: int, state: State, save: Callable[[State], None]) -> State:
    """Take the draws of the round that are still missing."""
    operations = sum(int(mask.sum()) for mask in state.masks.values())
    advance = plan.context.advance
    context = plan.context._replace(advance=lambda networks: advance(networks * operations))
    counting = plan._replace(context=context)
    for name in plan.criteria:
        for repeat in range(len(state.draws.get(name, [])), plan.options.repeats):
            key = (seed, state.rounds, repeat)
            cost = replace(state.costs.get(name, Cost()))
            draw = measure_draw(counting, name, this.candidates, state.masks, key, cost)
            draws = state.draws | {name: [*state.draws.get(name, []), draw]}
            state = state._replace(draws=draws, costs=state.costs | {name: cost})
            save(state)
    return state


def _work_done(plan: Plan, state: State) -> int:
    """As in `total_work`, of a state that is gone on with."""
    sizes = list(round_sizes(plan.space))
    works = [evaluations_of_draw(plan.options, candidates) * operations for candidates, operations in sizes]
    draws = sum(len(draws) for draws in state.draws.values())
    whole = plan.options.repeats * len(plan.criteria)
    return whole * sum(works[: state.rounds]) + (draws * works[state.rounds] if draws else 0)


def prune(plan: Plan, this: Round, scores: dict[str, Score], state: State, budget: Budget | None = None) -> State:
    """Remove what the round's scores decide, and the budget where it has a say; the next state."""
    means = {name: mean_change(values.change) for name, values in scores.items()}
    order, ranks = removal_order(means, plan.options.weights, larger_is_better(plan))
    first = choose_removed(this, order)
    removed = first if budget is None else choose_within(budget, state.masks, this, order)
    masks = {cell: mask.clone() for cell, mask in state.masks.items()}
    for index in removed:
        candidate = this.candidates[index]
        masks[candidate.cell][candidate.edge, candidate.operation] = False
    by_budget = set(removed) - set(first)
    rows = list(_rows(plan, this, scores, means, ranks, set(removed), by_budget, state.rounds))
    return state._replace(masks=masks, rows=state.rows + rows, rounds=state.rounds + 1, draws={})


def _rows(
    plan: Plan, this: Round, scores, means, ranks, removed: set[int], by_budget: set[int], index: int
) -> Iterator[dict]:
    sums = rank_sums(ranks, plan.options.weights)
    for i, candidate in enumerate(this.candidates):
        edge = plan.space.edges[candidate.edge]
        row = {
            "round": index,
            "stage": this.stage,
            "cell": candidate.cell,
            "edge": candidate.edge,
            "input": edge.input,
            "node": edge.node,
            "operation": plan.space.operations[candidate.operation],
        }
        for name, values in scores.items():
            row[f"{name}_unpruned"] = float(values.unpruned[:, i].mean())
            row[name] = float(values.pruned[:, i].mean())
            row[f"{name}_change"] = means[name][i]
            row[f"{name}_rank"] = ranks[name][i]
        row["rank_sum"] = sums[i]
        row["removed"] = i in removed
        row["decided_by"] = "budget" if i in by_budget else _decided_by(this, ranks, i) if i in removed else ""
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


def larger_is_better(plan: Plan) -> dict[str, bool]:
    return {name: criterion.larger_is_better for name, criterion in plan.criteria.items()}


def trace_columns(criteria: Iterable[str]) -> list[str]:
    """Columns of search.csv."""
    per_criterion = [f"{name}{part}" for name in criteria for part in ("_unpruned", "", "_change", "_rank")]
    place = ["round", "stage", "cell", "edge", "input", "node", "operation"]
    return [*place, *per_criterion, "rank_sum", "removed", "decided_by"]
