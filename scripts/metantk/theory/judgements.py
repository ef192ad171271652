"""Verdicts on statements 1 to 6 from their tables: of a fresh measurement, or of one read back from its files."""

import numpy as np
import pandas as pd

from metantk.options.theory import TheoryOptions
from metantk.theory.kernel_checks import ANIL, FLOW
from metantk.theory.learner import FINITE, INFINITE, SUPPORTS_ONLY, TRAINED_CENTRED
from metantk.theory.training_checks import COMPARISONS, RIGHT, WRONG
from metantk.theory.verdicts import FAILS, HOLDS, Verdict, judge_gain, judge_slope, judge_widths

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
    """Statements 1 (slope −1/2 or steeper), 2 and 6 (the error of Eq. 11 falls; as printed it is not symmetric)."""
    groups = list(table.groupby(["source", "network", "inner"], sort=False))
    maml = [(key, group) for key, group in groups if key[2] != ANIL]
    flows = [(key, group) for key, group in groups if key[2] == FLOW]
    anil = [(key, group) for key, group in groups if key[2] == ANIL]
    verdicts = []
    for column, kernel in (("ntk_limit", "NTK"), ("meta_limit", "MetaNTK")):
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
    """Each predictor should be better than chance and, task by task, than the network and than G alone.

    By the 95 % interval of the mean difference. G has seen no training task: where Eq. 12 is worse, meta-training
    did harm. Theorem 2 has the network's accuracy equal to that of Eq. 12: *undecided* is what it expects there.
    """
    accuracies = {name: group["accuracy"].to_numpy() for name, group in table.groupby("learner")}
    rivals = {"chance": 100 / ways} | {name: accuracies[name] for name in (TRAINED_CENTRED, SUPPORTS_ONLY)}
    verdicts = []
    for name in (INFINITE, FINITE):
        found = accuracies[name]
        for rival, other in rivals.items():
            numbers = f" points, {found.mean():.1f} % and {np.mean(other):.1f} %"
            verdicts.append(judge_gain("5", f"{name}: better than {rival}", found - other, numbers))
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
            f"η₀σ_min = {(group['eta0'] * group['smallest']).iloc[0]:.2g}, "
            f"the bound ends at {_end_of_bound(group, options.meta_steps):.1g} of the start; "
            f"smallest R in starting losses by width: {', '.join(parts)}"
        )
        statement = "3" if rate == options.meta_lr else "3, slow rate"
        verdicts.append(judge_widths(statement, f"{source}, {network}, η = {rate:g} η₀", held, numbers))
    return verdicts


def _end_of_bound(group: pd.DataFrame, steps: int) -> float:
    """What Eq. 6 allows after the last step: near 1, it asks for little."""
    return float((1 - group["eta0"].iloc[0] * group["smallest"].iloc[0] / 3) ** (2 * steps))


def judge_regression(table: pd.DataFrame) -> list[Verdict]:
    """Statement 4: whether the error falls with the width, and at the largest is below that of wrong predictions.

    Any prediction's error may fall while a network is far from all of them; the second tells right from wrong.
    """
    verdicts = []
    for statement, wanted in COMPARISONS.items():
        chosen = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]
        groups = list(chosen.groupby(["source", "network", "time"], sort=False))
        for (source, network, time), group in groups:
            verdicts.append(
                judge_slope(statement, f"{source}, {network}, t = {time}", group, "error", cases=len(groups))
            )
    return verdicts + _judge_against_wrong(table)


def _judge_against_wrong(table: pd.DataFrame) -> list[Verdict]:
    """By seed at the largest width: the error of each wrong prediction less that of Eq. 12."""
    alike = (table[["outputs", "rates"]] == pd.Series(COMPARISONS["4"])[["outputs", "rates"]]).all(axis=1)
    groups = list(table[alike].groupby(["source", "network", "time"], sort=False))
    verdicts = []
    for (source, network, time), group in groups:
        widest = group[group["width"] == group["width"].max()]
        errors = widest.pivot(index="seed", columns="prediction", values="error")
        for wrong in WRONG:
            means = f"errors {errors[wrong].mean():.2g} and {errors[RIGHT].mean():.2g}"
            numbers = f", {means} at width {widest['width'].iloc[0]}"
            case = f"{source}, {network}, t = {time}, against {wrong}"
            gains = errors[wrong] - errors[RIGHT]
            cases = len(groups) * len(WRONG)
            verdicts.append(judge_gain("4, against wrong predictions", case, gains, numbers, cases=cases))
    return verdicts
