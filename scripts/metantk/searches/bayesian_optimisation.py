"""Bayesian optimisation of whole architectures: a surrogate, an acquisition, and evaluations of what they choose.

Algorithm 1 asks what changes when one operation goes; each answer serves one decision. Here each measurement is
of a whole architecture, and tells about all of its operations at once (a factorial experiment). A balanced
random sample comes first; then blocks of architectures, each the optimum of a function drawn from what the
measurements leave possible (Thompson sampling); at last the optimum of the expected function. Architectures of
a block share images and draws. At the end the architecture is compared with random ones on fresh draws.

Within a budget, whatever is sampled, proposed or found is within it.

A search that is ended goes on after its last block and finds the same architecture.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pandas as pd

from metantk.criteria.base import Criterion
from metantk.options.searches.bayesian_optimisation import Options
from metantk.options.searches.prune import PruneOptions
from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError
from metantk.searches import prune
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.budget import Feasible, budget_of, sample
from metantk.searches.plan import Plan, measure, plan_of
from metantk.searches.surrogate import RESTARTS, Function, Posterior, descend, minimum
from metantk.space import paths
from metantk.space.genotype import Space
from metantk.statistics import wilson_95

log = logging.getLogger("metantk")

# How far proposals go from the expected function towards a drawn one. Measured (Caltech-101, 5 cells × 8 channels,
# 16 × 16 pixels, 400 measurements, two seeds, 2026-11-25): with 0.3 the result was 2.2 (NTK) and 2.4 (MetaNTK)
# deviations below random architectures, with 1 it was 2.0 and 2.2; with 0, which proposes one architecture per
# block, it was 1.1 below and 4.2 above for the NTK.
BOLDNESS = 0.3
POOL = 1000  # random architectures within a budget, from the best of which descents start
SAMPLES = 100  # functions from which the certainty of the result is read
REFERENCE = 1000  # random architectures over which an effect is averaged
COMPARED_AT_ONCE = 20  # random architectures that share a fresh draw with the result


class Block(NamedTuple):
    """Architectures that were measured with the same draws.

    Attributes:
        rows: `(architectures, choices)`.
        values: by criterion, `(architectures,)`, as measured.
    """

    rows: np.ndarray
    values: dict[str, np.ndarray]

    def to_json(self) -> dict:
        places = [np.flatnonzero(row).tolist() for row in self.rows]
        return {"places": places, "values": {name: values.tolist() for name, values in self.values.items()}}

    @classmethod
    def from_json(cls, value: dict, choices: int) -> "Block":
        rows = np.zeros((len(value["places"]), choices))
        for row, places in zip(rows, value["places"], strict=True):
            row[places] = 1
        return cls(rows, {name: np.array(values, np.float64) for name, values in value["values"].items()})


class Candidates:
    """What may be measured: all architectures of a space, or those within a budget."""

    def __init__(self, space: Space, budget: Feasible | None, seed: int) -> None:
        self.space, self.budget = space, budget
        self.pool = budget and budget.sample(POOL, numpy_generator("pool within a budget", seed))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Random ones, `(count, choices)`."""
        return sample(self.space, self.budget, count, rng)

    def minimum(self, function: Function, rng: np.random.Generator) -> np.ndarray:
        """The one of the least value; within a budget by descents from the best of a random pool."""
        if self.budget is None:
            return minimum(function, self.space, rng)
        starts = self.pool[np.argsort(function(self.pool), kind="stable")[:RESTARTS]]
        return descend(function, self.space, starts, self.budget.may_have)


class Experiment:
    """A search under way: what was measured, and the model of it."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        checkpoint: Checkpoint,
        update: Callable[[int], None],
        budget: Feasible | None = None,
    ) -> None:
        self.plan, self.seed, self.checkpoint, self.update = plan, seed, checkpoint, update
        self.candidates = Candidates(plan.space, budget, seed)
        self.space: Space = plan.space
        self.choices = len(paths.choices(self.space))
        state = checkpoint.state or {"blocks": [], "costs": {}}
        self.blocks = [Block.from_json(block, self.choices) for block in state["blocks"]]
        self.costs = {name: Cost(**cost) for name, cost in state["costs"].items()}
        self.first = self.candidates.sample(plan.options.initial_samples, numpy_generator("first sample", seed))
        self.model: Model | None = None

    @property
    def measured(self) -> int:
        return sum(len(block.rows) for block in self.blocks)

    def run(self, limit: int) -> None:
        """Measure block after block until the choice is settled, or `limit` architectures are measured."""
        self.update(self.measured)
        size = self.plan.options.samples_per_round
        while self.measured < limit:
            if self.measured < len(self.first):
                rows = self.first[self.measured : self.measured + size]
            else:
                rows = self._promising()
                if len(rows) == 0:
                    return
            self._measure(rows[: limit - self.measured], len(self.blocks))
        self._fit()

    def _promising(self) -> np.ndarray:
        """What to measure next; nothing if the choice is settled."""
        self._fit()
        rng = numpy_generator("proposals", self.seed, len(self.blocks))
        sampled = [self.model.sample(rng) for _ in range(self.plan.options.samples_per_round)]
        regret = np.mean([f(self.model.best) - f(self.candidates.minimum(f, rng)) for f in sampled])
        spread = self.model.expected(self.first).std()
        log.info(
            "%d architectures measured: the best may still be %.2f deviations above the optimum",
            self.measured,
            regret / spread if spread else 0.0,
        )
        settled = regret <= self.plan.options.tolerance * spread
        if settled:
            return np.zeros((0, self.choices))
        expected = self.model.expected
        towards = [expected.plus(f.plus(expected, -1.0), BOLDNESS) for f in sampled]
        return np.unique([self.candidates.minimum(function, rng) for function in towards], axis=0)

    def _fit(self) -> None:
        began = time.perf_counter()
        self.model = Model(self.plan, self.blocks, len(self.first), self.seed, self.candidates)
        self.costs.setdefault("model", Cost()).seconds += time.perf_counter() - began

    def _measure(self, rows: np.ndarray, index: int) -> None:
        values = measure(self.plan, rows, (self.seed, index), self.costs, self.update)
        self.blocks.append(Block(rows, values))
        self.checkpoint.save(
            {
                "blocks": [block.to_json() for block in self.blocks],
                "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            }
        )


class Model:
    """All criteria together: the function to make small.

    Each criterion is modelled by itself, so that one whose values are noise has no say, whatever its weight; its
    values are divided by their deviation in the first sample.
    """

    def __init__(
        self, plan: Plan, blocks: list[Block], initial_samples: int, seed: int, candidates: "Candidates"
    ) -> None:
        rows = np.concatenate([block.rows for block in blocks])
        indices = np.repeat(np.arange(len(blocks)), [len(block.rows) for block in blocks])
        self.posteriors: dict[str, Posterior] = {}
        self.weights: dict[str, float] = {}
        for name, criterion in plan.criteria.items():
            values = np.concatenate([badness(criterion, block.values[name], name) for block in blocks])
            if not np.isfinite(values).any():
                raise InputError(f"search: {name} is not finite for any architecture")
            values = np.where(np.isfinite(values), values, values[np.isfinite(values)].max())
            deviation = values[:initial_samples].std()
            if deviation == 0:
                log.warning("%s is the same for all architectures, so it decides nothing", name)
                continue
            self.posteriors[name] = Posterior(rows, values / deviation, indices)
            self.weights[name] = plan.options.weights[name]
        if not self.posteriors:
            raise InputError(
                f"search: no criterion tells the first {initial_samples} architectures apart; give the criteria"
                " more images, or a short training more epochs or another lr"
            )
        self.choices = rows.shape[1]
        self.expected = self._sum(lambda posterior: posterior.expected())
        self.best = candidates.minimum(self.expected, numpy_generator("descent", seed))

    def sample(self, rng: np.random.Generator) -> Function:
        return self._sum(lambda posterior: posterior.sample(rng))

    def _sum(self, function_of: Callable[[Posterior], Function]) -> Function:
        total = Function.zero(self.choices)
        for name, posterior in self.posteriors.items():
            total = total.plus(function_of(posterior), self.weights[name])
        return total


def find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found:
    """Measure until the choice is settled; the optimum of the model."""
    budget, checkpoint = budget_of(problem, options, checkpoint)
    plan = plan_of(problem, options)
    plan = plan._replace(context=plan.context._replace(advance=lambda networks: None))
    limit = options.max_evaluations or cost_of_pruning(plan.space)
    problem.bar.reset(total=limit)
    experiment = Experiment(plan, seed, checkpoint, problem.bar.update, budget)
    experiment.run(limit)
    model, candidates = experiment.model, experiment.candidates
    comparison = compare_with_random(plan, model.best, seed, experiment.costs, candidates)
    genotype = paths.genotype_of(plan.space, model.best)
    facts = {
        "criteria": {name: criterion.facts for name, criterion in plan.criteria.items()},
        "measured": experiment.measured,
        "effects": effects(candidates, model, seed),
        "random_comparison": comparison,
        "variances": {name: posterior.variances._asdict() for name, posterior in model.posteriors.items()},
        **({"budget": budget.facts(genotype)} if budget else {}),
    }
    trace = pd.DataFrame(_rows(experiment))
    return Found(genotype, trace, experiment.costs, facts)


def cost_of_pruning(space: Space) -> int:
    """Whole architectures that have as many operations as all networks of a pruning with one draw."""
    one = PruneOptions(criteria=["linear_regions"], repeats=1)
    return prune.total_work(space, one) // int(paths.balanced_sample(space, 1, np.random.default_rng(0)).sum())


def badness(criterion: Criterion, values: np.ndarray, name: str) -> np.ndarray:
    """Values as the model sees them: the smaller the better, logarithms of those that are ratios."""
    if criterion.logarithmic or criterion.change == "logarithm":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(values > 0, np.log(values), math.nan)
    return -values if criterion.larger_is_better else values


def effects(candidates: Candidates, model: Model, seed: int) -> list[dict]:
    """What each choice changes in an otherwise random architecture, and how sure the search is of it.

    Returns:
        For each choice: `effect`, expected, and `std`, of the function that is made small; `certainty`, the
        share of functions (drawn from what the measurements leave possible) whose optimum has it; `kept`.
    """
    space, rng = candidates.space, numpy_generator("effects", seed)
    reference = paths.balanced_sample(space, REFERENCE, rng)
    sampled = [model.sample(rng) for _ in range(SAMPLES)]
    each = np.array([main_effects(function, reference) for function in sampled])
    certainty = np.mean([candidates.minimum(function, rng) for function in sampled], axis=0)
    expected = main_effects(model.expected, reference)
    return [
        {
            "cell": choice.cell,
            "edge": choice.edge,
            "input": space.edges[choice.edge].input,
            "node": space.edges[choice.edge].node,
            "operation": space.operations[choice.operation],
            "effect": float(expected[index]),
            "std": float(each[:, index].std()),
            "certainty": float(certainty[index]),
            "kept": bool(model.best[index]),
        }
        for index, choice in enumerate(paths.choices(space))
    ]


def main_effects(function: Function, reference: np.ndarray) -> np.ndarray:
    """Mean over the architectures that have a choice, less that over all, `(choices,)`."""
    values = function(reference)
    return reference.T @ values / reference.sum(0) - values.mean()


def compare_with_random(
    plan: Plan, best: np.ndarray, seed: int, costs: dict[str, Cost], candidates: Candidates
) -> dict[str, dict]:
    """The result against random architectures, on fresh draws that it shares with a few of them each.

    Returns:
        By criterion: `better_than`, percent of the random architectures that it is better than on their own draw,
        with a 95 % interval; `standard_deviations`, by how many of them (noise included)
        it is better than their mean.
    """
    count = plan.options.random_comparisons
    if not count:
        return {}
    random = candidates.sample(count, numpy_generator("certificate", seed))
    cost: dict[str, Cost] = {}
    differences: dict[str, list[np.ndarray]] = {name: [] for name in plan.criteria}
    for index, first in enumerate(range(0, count, COMPARED_AT_ONCE)):
        rows = np.concatenate([best[None], random[first : first + COMPARED_AT_ONCE]])
        # Blocks of the search have numbers from 0 on.
        values = measure(plan, rows, (seed, -1 - index), cost, lambda networks: None)
        for name, criterion in plan.criteria.items():
            bad = badness(criterion, values[name], name)
            differences[name].append(_difference(np.where(np.isnan(bad), math.inf, bad)))
    costs["random comparison"] = Cost(
        sum(each.seconds for each in cost.values()),
        sum(each.evaluations for each in cost.values()),
        sum(each.operations for each in cost.values()),
    )
    return {name: _compare(np.concatenate(parts)) for name, parts in differences.items()}


def _difference(bad: np.ndarray) -> np.ndarray:
    """Of each architecture from the first; NaN where neither has a value, so that neither is better."""
    with np.errstate(invalid="ignore"):
        return bad[1:] - bad[0]


def _compare(difference: np.ndarray) -> dict:
    """Of random architectures with the result: positive where that is better, infinite where one has no value."""
    better = int((difference > 0).sum())
    low, high = wilson_95(better, len(difference))
    finite = difference[np.isfinite(difference)]
    deviation = finite.std(ddof=1) if len(finite) > 1 else 0.0
    return {
        "architectures": len(difference),
        "better_than": 100 * better / len(difference),
        "better_than_low": 100 * low,
        "better_than_high": 100 * high,
        "standard_deviations": float(finite.mean() / deviation) if deviation else None,
    }


def _rows(experiment: Experiment) -> Iterator[dict]:
    """One for each architecture measured; `choices` are numbers in the order of `metantk.space.paths`."""
    first = len(experiment.first)
    index = 0
    for block, of_block in enumerate(experiment.blocks):
        for position, row in enumerate(of_block.rows):
            yield {
                "candidate": index,
                "block": block,
                "stage": "first sample" if index < first else "focused",
                **{name: values[position] for name, values in of_block.values.items()},
                "model": float(experiment.model.expected(row)),
                "choices": " ".join(map(str, np.flatnonzero(row))),
            }
            index += 1
