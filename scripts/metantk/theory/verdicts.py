"""Verdicts from measurements by stated rules: slopes against the width with their intervals, and one line each.

No threshold is tuned: a slope is judged by its confidence interval, at 95 % for all cases of a statement and all
choices of widths together (Bonferroni), a bound by whether a single loss exceeds it. Where nothing falls, a
statement therefore holds in any of its cases with a probability of at most 2.5 %.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
EXPECTED_SLOPE = -0.5  # fluctuations of a mean over l units
FEWEST_WIDTHS = 3  # of a fit: with two, the line explains everything and its error nothing
CONFIDENCE = 0.95


class Verdict(NamedTuple):
    """What came out of one case of a statement.

    Attributes:
        statement: as numbered in theory.md.
        case: data, network, and what was varied.
        verdict: `holds`, `holds from width N`, `does not hold`, or `undecided` where the interval of a slope
            leaves room for both.
        numbers: those that it was judged by, for people.
    """

    statement: str
    case: str
    verdict: str
    numbers: str


class Slope(NamedTuple):
    """A straight line through logarithms.

    Attributes:
        value: the slope.
        half_width: of its confidence interval (t distribution), for all cases and choices of widths together.
        single_half_width: of the narrower one for all cases, but this choice of widths alone.
    """

    value: float
    half_width: float
    single_half_width: float

    def __str__(self) -> str:
        return f"slope {self.value:.2f} ± {self.half_width:.2f}"

    @property
    def falls(self) -> bool:
        return self.value + self.half_width < 0

    @property
    def is_expected(self) -> bool:
        """Whether it is −1/2, or steeper, and tells that from zero.

        A choice of widths must make neither easier: zero is to lie outside the wide interval, −1/2 not below the
        narrow one.
        """
        return self.falls and self.value - self.single_half_width <= EXPECTED_SLOPE

    @property
    def may_be_expected(self) -> bool:
        """An undefined slope may be any."""
        return bool(np.isnan(self.value)) or self.value - self.half_width <= EXPECTED_SLOPE


def fit_slope(widths: Sequence[float], values: Sequence[float], *, cases: int = 1, choices: int = 1) -> Slope:
    """Slope of log value against log width; one point per width and seed.

    The interval is 95 % for `cases` such slopes, each for `choices` of its widths, together. A value that is zero
    or not finite makes the slope undefined (NaN) and its interval infinite.
    """
    widths, values = np.asarray(widths, float), np.asarray(values, float)
    if not (np.isfinite(values) & (values > 0)).all():
        return Slope(float("nan"), float("inf"), float("inf"))
    line = stats.linregress(np.log(widths), np.log(values))
    tails = np.array([cases * choices, cases]) * 2
    wide, narrow = line.stderr * stats.t.ppf(1 - (1 - CONFIDENCE) / tails, len(widths) - 2)
    return Slope(float(line.slope), float(wide), float(narrow))


def judge_slope(
    statement: str, case: str, table: pd.DataFrame, column: str, *, cases: int, as_expected: bool = False
) -> Verdict:
    """Whether `column` falls with `width`; `as_expected`: with slope −1/2 or steeper.

    Where it does not over all widths, the smallest ones are left out, one by one, while three remain: these are
    the choices that the intervals are corrected for.
    """
    widths = sorted(table["width"].unique())
    choices = len(widths) - FEWEST_WIDTHS + 1
    overall = fit_slope(table["width"], table[column], cases=cases, choices=choices)
    for number in range(choices):
        part = table[table["width"] >= widths[number]]
        slope = fit_slope(part["width"], part[column], cases=cases, choices=choices)
        if slope.is_expected if as_expected else slope.falls:
            verdict = HOLDS if number == 0 else f"{HOLDS} from width {widths[number]}"
            return Verdict(statement, case, verdict, f"{slope}; {_ends(part, column)}")
    verdict = UNDECIDED if overall.may_be_expected else FAILS
    return Verdict(statement, case, verdict, f"{overall}; {_ends(table, column)}")


def _ends(table: pd.DataFrame, column: str) -> str:
    """Medians over seeds at the smallest and at the largest width."""
    medians = table.groupby("width")[column].median()
    return f"{medians.iloc[0]:.2g} at width {medians.index[0]}, {medians.iloc[-1]:.2g} at {medians.index[-1]}"


def judge_gain(statement: str, case: str, gains: Sequence[float], numbers: str = "", *, cases: int = 1) -> Verdict:
    """Whether the mean of paired differences lies above zero, by its t-interval, 95 % for all cases together."""
    gains = np.asarray(gains, float)
    mean, half = float(gains.mean()), float("inf")
    if np.isfinite(gains).all():
        half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / cases, len(gains) - 1) * stats.sem(gains))
    verdict = HOLDS if mean - half > 0 else FAILS if mean + half < 0 else UNDECIDED
    return Verdict(statement, case, verdict, f"difference {mean:+.2g} ± {half:.2g}{numbers}")


def judge_widths(statement: str, case: str, held: pd.Series, numbers: str) -> Verdict:
    """From which width on a statement holds for all seeds.

    Args:
        held: by width, whether it held for all seeds.
    """
    held = held.sort_index()
    from_here = [width for width in held.index if held[held.index >= width].all()]
    if not from_here:
        verdict = FAILS
    else:
        verdict = HOLDS if from_here[0] == held.index[0] else f"{HOLDS} from width {from_here[0]}"
    return Verdict(statement, case, verdict, numbers)


def combine(verdicts: Sequence[Verdict]) -> str:
    """The verdict on a statement: that of its cases, the weakest first."""
    total = len(verdicts)
    parts = []
    for weak in (FAILS, UNDECIDED):
        count = sum(verdict.verdict == weak for verdict in verdicts)
        if count == total:
            return weak
        if count:
            parts.append(f"{weak} in {count} of {total} cases")
    starts = [int(verdict.verdict.rsplit(" ", 1)[1]) for verdict in verdicts if " from width " in verdict.verdict]
    positive = f"{HOLDS} from width {max(starts)}" if starts else HOLDS
    if not parts:
        return positive
    if any(verdict.verdict.startswith(HOLDS) for verdict in verdicts):
        parts.append(f"{positive} in the others")
    return ", ".join(parts)
