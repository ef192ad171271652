"""How much of a search is noise: ranks of the first round from repeated draws, compared with each other.

Ours lets all candidates of a round share weights and images; others draw them for each candidate (see `draws` of
the search's options). Each way is repeated here, and Kendall's τ between repetitions says how far their ranks
agree: 1 for the same order every time, 0 for an order by chance. The published way keeps the body's weights for a
round: ranks that repeat with one body can be a property of its weights, so it is repeated both with one body and
with a body for each repetition; only the second says something of operations.

For a Bayesian optimisation, surrogates of separate samples are compared: by the order that they give to the effects
of all operations on all edges.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from metantk.criteria.base import Key, Masks
from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError
from metantk.searches import bayesian_optimisation, prune
from metantk.searches.base import Cost
from metantk.searches.plan import Plan
from metantk.searches.prune import Draw, Round

ONE_BODY = "published, one body"
STYLES = ("common", "independent", "published", ONE_BODY)
RANK_SUM = "rank_sum"
COLUMNS = ["criterion", "draws", "repeat", "evaluations", "kendall_tau", "lowest", "highest", "pairs"]


def measure_rank_stability(plan: Plan, seed: int, draws: int) -> pd.DataFrame:
    """Kendall's τ-b between repetitions of the first round, against what a repetition costs.

    Args:
        plan: `draws` and `repeat` of its options have no effect.
        seed: of all draws.
        draws: independent draws per candidate; common ones are as many as can be had at that cost.

    Returns:
        `COLUMNS`: for each criterion (and their weighted sum of ranks, if there are several) and style of
        drawing, for each number of draws that a repetition averages over (`repeat`): networks that it evaluates,
        mean, lowest and highest τ over all pairs of repetitions that share no draw.
    """
    masks = prune.first_state(plan.space).masks
    this = prune.next_round(plan.space, masks)
    rows = []
    for style in STYLES:
        styled = plan._replace(options=plan.options.model_copy(update={"random_numbers": style.split(",")[0]}))
        count = common_draws(draws, len(this.candidates)) if style == "common" else draws
        # The round's number stands for the body that the published way of drawing keeps for it.
        keys = [(seed, index, 0) if style == "published" else (seed, 0, index) for index in range(count)]
        changes = _measure_changes(styled, this, masks, keys)
        each = prune.evaluations_of_draw(styled.options, len(this.candidates))
        most = 1 if style == "published" else count // 2  # the mean over several bodies is not what is published
        rows += _compare(plan, changes, style, each, most)
    return pd.DataFrame(rows, columns=COLUMNS)


def measure_effect_stability(plan: Plan, seed: int) -> pd.DataFrame:
    """Kendall's τ-b between the effects that models of separate samples find, by their size.

    Args:
        plan: of a Bayesian optimisation; twice its initial samples are evaluated, in rounds that share their draws.

    Returns:
        `COLUMNS`; `repeat` and `evaluations` are the architectures of a sample.
    """
    rows = []
    size, total = plan.options.samples_per_round, 2 * plan.options.initial_samples
    if total < 2 * size:
        raise InputError(f"options: initial_samples {total // 2} has nothing to compare; give {size} or more")
    sample = bayesian_optimisation.paths.balanced_sample(
        plan.space, total, numpy_generator("effect stability", seed)
    )
    blocks = [
        bayesian_optimisation.Block(
            part, bayesian_optimisation.measure(plan, part, (seed, index), {}, plan.context.advance)
        )
        for index, part in enumerate(np.split(sample, range(size, total, size)))
    ]
    count, candidates = len(blocks), bayesian_optimisation.Candidates(plan.space, None, seed)
    for repeat in sorted({max(1, count // parts) for parts in (8, 4, 2)}):
        models = [
            bayesian_optimisation.Model(plan, blocks[start : start + repeat], total, seed, candidates)
            for start in range(0, count - repeat + 1, repeat)
        ]
        for name in plan.criteria:
            found = [model.posteriors[name].expected() for model in models if name in model.posteriors]
            effects = [bayesian_optimisation.main_effects(function, sample) for function in found]
            pairs = [kendalltau(one, other).statistic for one, other in combinations(effects, 2)]
            taus = np.nan_to_num(pairs, nan=0.0)  # effects that are all alike have no order
            found = (taus.mean(), taus.min(), taus.max()) if pairs else (np.nan,) * 3
            measured = repeat * size
            rows.append((name, "whole architectures", measured, measured, *found, len(pairs)))
    return pd.DataFrame(rows, columns=COLUMNS)


def common_draws(independent: int, candidates: int) -> int:
    """Common draws (1 + candidates networks each) at the cost of independent ones (2 × candidates networks)."""
    return independent * 2 * candidates // (1 + candidates)


def total_networks(plan: Plan, draws: int) -> int:
    """Networks that are evaluated in all, for a progress bar."""
    candidates = len(prune.next_round(plan.space, prune.first_state(plan.space).masks).candidates)
    common = common_draws(draws, candidates) * (1 + candidates)
    return ((len(STYLES) - 1) * draws * 2 * candidates + common) * len(plan.criteria)


def _measure_changes(plan: Plan, this: Round, masks: Masks, keys: list[Key]) -> dict[str, np.ndarray]:
    """Relative changes by criterion, `(keys, candidates)`."""
    changes = {}
    for name, criterion in plan.criteria.items():
        draws: list[Draw] = [prune.measure_draw(plan, name, this.candidates, masks, key, Cost()) for key in keys]
        changes[name] = prune.score(criterion, draws, where=f"{plan.options.random_numbers} draws, {name}").change
    return changes


def _compare(plan: Plan, changes: dict[str, np.ndarray], style: str, each: int, most: int) -> Iterator[tuple]:
    count = len(next(iter(changes.values())))
    for repeat in range(1, most + 1):
        repetitions = [slice(start, start + repeat) for start in range(0, count - repeat + 1, repeat)]
        scores = [
            {name: prune.mean_change(change[part]) for name, change in changes.items()} for part in repetitions
        ]
        if len(changes) > 1:
            for score in scores:
                _, ranks = prune.removal_order(score, plan.options.weights, prune.larger_is_better(plan))
                score[RANK_SUM] = prune.rank_sums(ranks, plan.options.weights)
        for name in scores[0]:
            taus = [kendalltau(one[name], other[name]).statistic for one, other in combinations(scores, 2)]
            # NaN: all candidates alike in a repetition, so no order at all.
            taus = np.nan_to_num(np.array(taus), nan=0.0)
            yield name, style, repeat, repeat * each, taus.mean(), taus.min(), taus.max(), len(taus)
