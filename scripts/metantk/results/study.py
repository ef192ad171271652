"""What is a criterion worth? Scores of many architectures against the accuracies that they reach when trained.

Of a criterion we ask how well its order is that of the accuracies (Kendall's τ), whether it knows more than the
number of parameters does (the difference of both τ, and the partial τ given parameters), what one loses who picks
by it (the regret of its best quarter), and what it costs. The noise of training bounds what any criterion can
reach: the ceiling is τ between two trainings of the same architectures.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from metantk.criteria import short_training
from metantk.criteria.base import RandomKeys, load_criterion, measure_all, options_of
from metantk.options.study import StudyOptions
from metantk.runtime.devices import numpy_generator
from metantk.searches.plan import Plan
from metantk.space import paths

RESAMPLES = 1000  # of the architectures, for intervals
QUARTER = 0.25  # of the architectures, that a user would look at
BASELINE = "parameters"
AGAIN = "trained again"  # the row of the noise ceiling
GROUP = ["dataset", "backbone", "learner", "shots"]
COLUMNS = [
    *GROUP,
    "criterion",
    "architectures",
    *[f"{name}{end}" for name in ("tau", "above_baseline", "regret") for end in ("", "_low", "_high")],
    "partial_tau",
    "repeatability",
    "operations",
    "seconds",
]


class Score(NamedTuple):
    """Of one architecture by one criterion.

    Attributes:
        values: one per draw; None where there is none (a singular kernel).
        operations: floating-point operations of one draw.
        seconds: of one draw.
        larger_is_better, title: of the criterion.
    """

    values: list[float | None]
    operations: float
    seconds: float
    larger_is_better: bool
    title: str


def score(plan: Plan, options: StudyOptions, genotype: dict, advance: Callable[[], None]) -> dict[str, Score]:
    """All criteria, and the short training, of one architecture."""
    row = paths.row_of(plan.space, genotype)
    masks = paths.masks_of(plan.space, row)
    draws = []
    for draw in range(options.repeats):
        # Of a key that no search has: by the draws that chose it, an architecture looks better than it is.
        keys = RandomKeys.of((-1, draw))
        draws.append(measure_all(plan.criteria, plan.context, plan.criteria_options, keys, masks))
        advance()
    scores = {
        name: Score(
            [finite_or_none(float(draw[name].values[0])) for draw in draws],
            float(np.mean([draw[name].operations for draw in draws])),
            float(np.mean([draw[name].seconds for draw in draws])),
            criterion.larger_is_better,
            criterion.title,
        )
        for name, criterion in plan.criteria.items()
    }
    return scores | _score_by_training(plan, options, row, advance)


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score_by_training(plan: Plan, options: StudyOptions, row: np.ndarray, advance: Callable[[], None]) -> dict:
    if not options.short_training_epochs:
        return {}
    own = options_of(load_criterion("short_training"), options.criteria_options)
    mask = {kind: candidates[0] for kind, candidates in paths.masks_of(plan.space, row).items()}
    began = time.perf_counter()
    results = short_training.train_and_test(
        plan.context, own, RandomKeys.of((0,)), mask, options.short_training_epochs
    )
    seconds = time.perf_counter() - began
    advance()
    return {
        f"trained {epochs:g} epochs": Score(
            [accuracy],
            operations,
            seconds * epochs / options.short_training_epochs[-1],
            larger_is_better=True,
            title=f"accuracy after\n{epochs:g} epochs",
        )
        for epochs, (accuracy, operations) in zip(options.short_training_epochs, results, strict=True)
    }


def correlate(scores: pd.DataFrame) -> pd.DataFrame:
    """How well each criterion's order agrees with that of the accuracies.

    Args:
        scores: one row for each trained architecture, number of shots and criterion: `GROUP`, `architecture` (any
            text that tells them apart), `seed`, `accuracy` (percent), `criterion`, `score` (mean over draws),
            `draws` (list of the values), `operations`, `seconds`, `larger_is_better`.

    Returns:
        `COLUMNS`, in each group the criteria by falling τ, and the noise ceiling as the criterion `trained again`.
        Intervals: 95 %, by bootstrap over architectures.
    """
    rows = []
    for key, group in scores.groupby(GROUP, sort=False):
        rows += _correlate_group(dict(zip(GROUP, key, strict=True)), group)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values([*GROUP, "tau"], ascending=[True] * len(GROUP) + [False], ignore_index=True)


def _correlate_group(key: dict, group: pd.DataFrame) -> list[dict]:
    trained = group.drop_duplicates(["architecture", "seed"]).sort_values("seed")
    first = trained.drop_duplicates("architecture")
    accuracies = first.set_index("architecture")["accuracy"]
    ranks = {
        name: _goodness(part.drop_duplicates("architecture").set_index("architecture").loc[accuracies.index])
        for name, part in group.groupby("criterion", sort=False)
    }
    values = accuracies.to_numpy()
    samples = numpy_generator("bootstrap").integers(len(values), size=(RESAMPLES, len(values)))
    taus = {name: [tau(goodness[s], values[s]) for s in samples] for name, goodness in ranks.items()}
    rows = []
    for name, goodness in ranks.items():
        part = group[group["criterion"] == name]
        row = key | {"criterion": name, "architectures": len(values)}
        row |= _with_interval("tau", tau(goodness, values), taus[name])
        row |= _with_interval("regret", regret(goodness, values), [regret(goodness[s], values[s]) for s in samples])
        if BASELINE in ranks and name != BASELINE:
            above = np.subtract(taus[name], taus[BASELINE])
            row |= _with_interval("above_baseline", row["tau"] - tau(ranks[BASELINE], values), above)
            row["partial_tau"] = partial_tau(goodness, values, ranks[BASELINE])
        row["repeatability"] = _repeatability(part.drop_duplicates("architecture")["draws"])
        rows.append(row | {column: part[column].mean() for column in ("operations", "seconds")})
    return rows + _ceiling(key, trained)


def _goodness(part: pd.DataFrame) -> np.ndarray:
    """Scores turned so that larger is better."""
    scores = part["score"].to_numpy(np.float64)
    return scores if part["larger_is_better"].iloc[0] else -scores


def _with_interval(name: str, value: float, resampled: list[float] | np.ndarray) -> dict:
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's τ-b; 0 where all values of one side are equal: no order at all."""
    return float(np.nan_to_num(kendalltau(one, other).statistic))


def partial_tau(goodness: np.ndarray, accuracies: np.ndarray, baseline: np.ndarray) -> float:
    """Kendall's partial τ: the agreement that the baseline's order does not explain."""
    direct, by_score, by_accuracy = tau(goodness, accuracies), tau(goodness, baseline), tau(accuracies, baseline)
    rest = (1 - by_score**2) * (1 - by_accuracy**2)
    return float((direct - by_score * by_accuracy) / np.sqrt(rest)) if rest > 1e-12 else 0.0


def regret(goodness: np.ndarray, accuracies: np.ndarray) -> float:
    """Mean accuracy of the quarter that really is best, less that of the criterion's best quarter; in points.

    Equal scores are taken in equal parts: a criterion that tells nothing apart has the mean of all.
    """
    count = max(1, round(QUARTER * len(accuracies)))
    best = np.sort(accuracies)[-count:].mean()
    threshold = np.sort(goodness)[-count]
    surely, tied = goodness > threshold, goodness == threshold
    share = (count - surely.sum()) / tied.sum()
    return float(best - (accuracies[surely].sum() + share * accuracies[tied].sum()) / count)


def _repeatability(draws: pd.Series) -> float:
    """Mean τ between the orders of single draws."""
    table = np.array(draws.tolist(), np.float64)
    count = table.shape[1]
    if count < 2:
        return float("nan")
    return float(np.mean([tau(table[:, i], table[:, j]) for i in range(count) for j in range(i)]))


def _ceiling(key: dict, trained: pd.DataFrame) -> list[dict]:
    """τ between first and second trainings; none where too few architectures were trained twice."""
    pairs = [part["accuracy"].tolist()[:2] for _, part in trained.groupby("architecture") if len(part) > 1]
    if len(pairs) < 4:
        return []
    first, second = np.array(pairs).T
    samples = numpy_generator("bootstrap").integers(len(pairs), size=(RESAMPLES, len(pairs)))
    row = key | {"criterion": AGAIN, "architectures": len(pairs)}
    row |= _with_interval("tau", tau(second, first), [tau(second[s], first[s]) for s in samples])
    return [row | _with_interval("regret", regret(second, first), [regret(second[s], first[s]) for s in samples])]


def verdict(table: pd.DataFrame) -> str:
    """What the study says, in a sentence for each group."""
    lines = []
    for key, group in table.groupby(GROUP, sort=False):
        where = f"{key[0]}, {key[1]} by {key[2]}, {key[3]}-shot"
        criteria = group[~group["criterion"].isin([BASELINE, AGAIN])]
        if BASELINE not in group["criterion"].to_numpy():
            lines.append(f"{where}: no criterion was compared with the number of parameters: it is not among them.")
            continue
        better = criteria[(criteria["above_baseline_low"] > 0) & (criteria["tau_low"] > 0)]
        names = ", ".join(better["criterion"]) if len(better) else "no criterion"
        lines.append(f"{where}: {names} predicts the accuracy better than the number of parameters does.")
    return "\n".join(lines)
