"""Verdicts on statements 1 to 6 from their tables: of a fresh measurement, or of one read back from its files."""

import pandas as pd

from metantk.options.theory import TheoryOptions
from metantk.statistics import confidence_95
from metantk.theory.kernel_checks import ANIL, FLOW
from metantk.theory.learner import FINITE, INFINITE, SUPPORTS_ONLY, TRAINED_CENTRED
from metantk.theory.training_checks import COMPARISONS
from metantk.theory.verdicts import FAILS, HOLDS, Verdict, judge_slope, judge_widths

ROUNDING = 1e-9  # relative, float64: far above sums of a few hundred terms, far below any term of Eq. 11


def judge(tables: dict[str, pd.DataFrame], options: TheoryOptions) -> list[Verdict]:
    """All verdicts.

    Args:
        tables: `kernels`, `learners`, `bounds` and `regression`, as measured.
    """
    return (
        judge_kernels(tables["kernels"])
        + judge_learners(tables["learners"], options.learner.ways)
        + judge_bounds(tables["bounds"], options)
        + judge_regression(tables["regression"])
    )


def judge_kernels(table: pd.DataFrame) -> list[Verdict]:
    """Statements 1 (slope −1/2), 2 and 6 (the formula's error falls; the printed Eq. 11 is not symmetric)."""
    groups = list(table.groupby(["source", "network", "inner"], sort=False))
    maml = [(key, group) for key, group in groups if key[2] != ANIL]
    flows = [(key, group) for key, group in groups if key[2] == FLOW]
    anil = [(key, group) for key, group in groups if key[2] == ANIL]
    verdicts = []
    for column, kernel in (("ntk_change", "NTK"), ("meta_change", "MetaNTK")):
        for key, group in flows:
            case = f"{kernel}, {key[0]}, {key[1]}"
            verdicts.append(judge_slope("1", case, group, column, cases=2 * len(flows), as_expected=True))
    for statement, chosen in (("2", maml), ("6", anil)):
        for key, group in chosen:
            verdicts.append(judge_slope(statement, ", ".join(key), group, "formula", cases=len(chosen)))
    verdicts += [_judge_printed(", ".join(key), group) for key, group in maml]
    return verdicts


def _judge_printed(case: str, group: pd.DataFrame) -> Verdict:
    """A kernel must be symmetric: the printed Eq. 11 holds if it is so to rounding with the limit's own Θ."""
    asymmetry = group["printed_asymmetry"].iloc[0]
    widest = group[group["width"] == group["width"].max()]
    numbers = (
        f"asymmetry {asymmetry:.2g} in the limit (transposed: {group['formula_asymmetry'].iloc[0]:.1g}); "
        f"error {widest['printed'].median():.2g} (transposed: {widest['formula'].median():.2g}) "
        f"at width {widest['width'].iloc[0]}"
    )
    return Verdict("2, as printed", case, HOLDS if asymmetry < ROUNDING else FAILS, numbers)


def judge_learners(table: pd.DataFrame, ways: int) -> list[Verdict]:
    """Each predictor must be better than chance and, task by task, no worse than the network and than G alone.

    Better: the 95 % interval of the mean lies above chance. No worse: the interval of the paired difference does
    not lie below zero. G has seen no training task: where Eq. 12 is worse, meta-training did harm.
    """
    accuracies = {name: group["accuracy"].to_numpy() for name, group in table.groupby("learner")}
    verdicts = []
    for name in (INFINITE, FINITE):
        found = accuracies[name]
        mean, half = found.mean(), confidence_95(found)
        better = mean - half > 100 / ways
        numbers = f"{mean:.1f} ± {half:.1f} %, chance {100 / ways:.1f} %"
        verdicts.append(Verdict("5", f"{name}: better than chance", HOLDS if better else FAILS, numbers))
        for rival in (TRAINED_CENTRED, SUPPORTS_ONLY):
            gain = found - accuracies[rival]
            difference, spread = gain.mean(), confidence_95(gain)
            numbers = f"difference {difference:+.1f} ± {spread:.1f}, the latter {accuracies[rival].mean():.1f} %"
            verdict = HOLDS if difference + spread >= 0 else FAILS
            verdicts.append(Verdict("5", f"{name}: no worse than {rival}", verdict, numbers))
    return verdicts


def judge_bounds(bounds: pd.DataFrame, options: TheoryOptions) -> list[Verdict]:
    """Statement 3: by width, whether the bound held for all seeds; at the slow rate, at the largest width."""
    verdicts = []
    for key, group in bounds.groupby(["source", "network", "rate"], sort=False):
        source, network, rate = key
        held = group.groupby("width")["held"].all()
        needed = group.groupby("width")["smallest_r"].max()
        parts = [f"{width}: {needed[width]:.3g}" for width in held.index]
        numbers = (
            f"η₀σ_min = {(group['eta0'] * group['smallest']).iloc[0]:.2g}; "
            f"smallest R in starting losses by width: {', '.join(parts)}"
        )
        statement = "3" if rate == options.meta_lr else "3, slow rate"
        verdicts.append(judge_widths(statement, f"{source}, {network}, η = {rate:g} η₀", held, numbers))
    return verdicts


def judge_regression(table: pd.DataFrame) -> list[Verdict]:
    """Statement 4: whether the error falls with the width, for each time."""
    verdicts = []
    for statement, wanted in COMPARISONS.items():
        chosen = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
        groups = list(chosen.groupby(["source", "network", "time"], sort=False))
        for (source, network, time), group in groups:
            verdicts.append(
                judge_slope(statement, f"{source}, {network}, t = {time}", group, "error", cases=len(groups))
            )
    return verdicts
