"""The best of some random architectures, by the criteria that Algorithm 1 goes by: the plain rival of every search.

All of them are measured with the same random weights and images, one by one. The sum of their ranks decides, as in
Algorithm 1, and among equals the first criterion. Values are not rounded before, as changes are there: neighbours
among hundreds of raw values agree in three digits. A search that is ended goes on after the last
architectures that it has measured, and finds the same one.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd

from metantk.options.searches.best_of import Options
from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import DivergedError
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.budget import budget_of, sample
from metantk.searches.plan import Plan, measure, plan_of
from metantk.searches.prune import rank_sums
from metantk.space import paths

AT_ONCE = 10  # architectures between two checkpoints


def find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found:
    """Measure all of them; the one with the least sum of ranks."""
    budget, checkpoint = budget_of(problem, options, checkpoint)
    plan = plan_of(problem, options)
    plan = plan._replace(context=plan.context._replace(advance=lambda networks: None))
    rows = sample(plan.space, budget, options.architectures, numpy_generator("best of", seed))
    problem.bar.reset(total=len(rows))
    values, costs = _measure(plan, rows, seed, checkpoint, problem.bar.update)
    ranks, sums, best = choose(plan, values)
    genotype = paths.genotype_of(plan.space, rows[best])
    trace = pd.DataFrame(
        {
            "candidate": range(len(rows)),
            **values,
            **{f"{name}_rank": of_criterion for name, of_criterion in ranks.items()},
            "rank_sum": sums,
            "chosen": np.arange(len(rows)) == best,
            "choices": [" ".join(map(str, np.flatnonzero(row))) for row in rows],
        }
    )
    return Found(genotype, trace, costs, {"budget": budget.facts(genotype)} if budget else {})


def _measure(plan: Plan, rows: np.ndarray, seed: int, checkpoint: Checkpoint, update) -> tuple[dict, dict]:
    """Values of all architectures by criterion, as lists, and what they cost."""
    state = checkpoint.state or {"values": {name: [] for name in plan.criteria}, "costs": {}}
    values, costs = state["values"], {name: Cost(**cost) for name, cost in state["costs"].items()}
    done = len(next(iter(values.values())))
    update(done)
    for first in range(done, len(rows), AT_ONCE):
        measured = measure(plan, rows[first : first + AT_ONCE], (seed,), costs, update)
        values = {name: known + measured[name].tolist() for name, known in values.items()}
        checkpoint.save({"values": values, "costs": {name: asdict(cost) for name, cost in costs.items()}})
    return values, costs


def choose(plan: Plan, values: dict[str, list[float]]) -> tuple[dict[str, list[int]], list[float], int]:
    """Ranks by criterion, from 0 for the best; their weighted sums; the index of the best architecture.

    Raises:
        DivergedError: a criterion has no value for any architecture: chance alone would decide.
    """
    ranks = {}
    for name, of_criterion in values.items():
        if not np.isfinite(of_criterion).any():
            raise DivergedError(
                f"search: criterion {name} has no value for any of {len(of_criterion)} architectures (not finite):"
                " give it other images or options, or leave it out"
            )
        signed = np.negative(of_criterion) if plan.criteria[name].larger_is_better else of_criterion
        ranks[name] = np.unique(signed, return_inverse=True)[1].tolist()
    sums, first = rank_sums(ranks, plan.options.weights), next(iter(ranks.values()))
    return ranks, sums, min(range(len(sums)), key=lambda index: (sums[index], first[index]))
