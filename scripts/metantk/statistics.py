"""Means, deviations and confidence intervals of accuracies.

Quantiles come from scipy.special: each evaluation would wait a second for scipy.stats.
"""

import numpy as np
from scipy.special import ndtri, stdtrit


def confidence_95(values: np.ndarray) -> float:
    """Half the width of the 95 % t-interval of the mean, as RFS reports it over episodes."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float("nan")
    return float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))


def deviation(values: np.ndarray) -> float:
    """Sample standard deviation, as the paper reports it over seeds; NaN for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def welch_95(one: np.ndarray, other: np.ndarray) -> float:
    """Half the width of the 95 % t-interval of the difference of two means (Welch); NaN where one has one value."""
    one, other = (np.asarray(values, dtype=np.float64) for values in (one, other))
    if min(len(one), len(other)) < 2:
        return float("nan")
    parts = np.array([values.var(ddof=1) / len(values) for values in (one, other)])
    if not parts.sum():
        return 0.0
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(one) - 1, len(other) - 1])).sum()
    return float(stdtrit(freedom, 0.975) * np.sqrt(parts.sum()))


def wilson_95(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share, in 0..1."""
    share, square = successes / trials, ndtri(0.975) ** 2 / trials
    middle = share + square / 2
    half = np.sqrt(square * (share * (1 - share) + square / 4))
    return float((middle - half) / (1 + square)), float((middle + half) / (1 + square))
