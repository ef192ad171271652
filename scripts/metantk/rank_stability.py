"""How much of a search is noise: ranks of the first round from repeated draws, compared with each other.

Ours lets all candidates of a round share weights and pictures; others draw them for each candidate (see `draws` of
the search's options). Each way is repeated here, and Kendall's τ between repetitions says how far their ranks
agree: 1 for the same order every time, 0 for an order by chance.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from metantk.criteria.base import Masks
from metantk.searches import prune
from metantk.searches.base import Cost
from metantk.searches.plan import Plan
from metantk.searches.prune import Draw, Round

STYLES = ("common", "independent")
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
        styled = plan._replace(options=plan.options.model_copy(update={"draws": style}))
        count = draws if style == "independent" else common_draws(draws, len(this.candidates))
        changes = _measure_changes(styled, this, masks, seed, count)
        each = prune.evaluations_of_draw(styled.options, len(this.candidates))
        rows += _compare(plan, changes, style, each)
    return pd.DataFrame(rows, columns=COLUMNS)


def common_draws(independent: int, candidates: int) -> int:
    """Common draws (1 + candidates networks each) at the cost of independent ones (2 × candidates networks)."""
    return independent * 2 * candidates // (1 + candidates)


def total_networks(plan: Plan, draws: int) -> int:
    """Networks that are evaluated in all, for a progress bar."""
    candidates = len(prune.next_round(plan.space, prune.first_state(plan.space).masks).candidates)
    common = common_draws(draws, candidates) * (1 + candidates)
    return (draws * 2 * candidates + common) * len(plan.criteria)


def _measure_changes(plan: Plan, this: Round, masks: Masks, seed: int, count: int) -> dict[str, np.ndarray]:
    """Relative changes by criterion, `(count, candidates)`."""
    changes = {}
    for name, criterion in plan.criteria.items():
        draws: list[Draw] = [
            prune.measure_draw(plan, name, this.candidates, masks, (seed, 0, number), Cost())
            for number in range(count)
        ]
        changes[name] = prune.score(criterion, draws, where=f"{plan.options.draws} draws, {name}").change
    return changes


def _compare(plan: Plan, changes: dict[str, np.ndarray], style: str, each: int) -> Iterator[tuple]:
    count = len(next(iter(changes.values())))
    for repeat in range(1, count // 2 + 1):
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
