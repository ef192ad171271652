"""Statements 3 and 4: meta-training at finite width against Theorem 1 (Eq. 6) and Theorem 2 (Eq. 12)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk.config import TheoryNetworkOptions, TheoryOptions
from metantk.devices import generator
from metantk.theory.kernel_checks import FLOW, ONE_STEP, make_inner_loops, make_network, make_tasks
from metantk.theory.kernels import (
    adapted_regression,
    all_inputs,
    infinite_kernels,
    kernel_regression,
    meta_ntk_by_formula,
    relative_distance,
)
from metantk.theory.maml import InnerLoop, Tasks, Weights, centred, meta_outputs, train, train_by_flow
from metantk.theory.networks import Network
from metantk.theory.verdicts import Verdict, judge_slope, judge_widths

SLOW_RATE = 0.1  # in η₀: Theorem 1 allows any rate below η₀, but its bound decays as if the rate were at least η₀/3
FLOW_STEPS = 2  # Runge-Kutta steps of the meta-training's flow per step of rate η₀
CENTRED, DRAWN = "zero at the start", "as drawn"


class Limit:
    """The infinitely wide network on some tasks: kernel, rates and predictions.

    Attributes:
        inner: the inner loop.
        phi: Φ between the queries of all tasks.
        start: G of all tasks.
        eta0: η₀ = 2 / (σ_max + σ_min) of the training tasks' Φ (Theorem 1).
        smallest: σ_min of the same.
    """

    def __init__(self, network: Network, tasks: Tasks, trained: int, options: TheoryOptions, loop: str) -> None:
        kernels = infinite_kernels(network, all_inputs(tasks))
        self.inner: InnerLoop = make_inner_loops(kernels, tasks, options)[loop]
        self.phi = meta_ntk_by_formula(kernels, tasks, self.inner)
        self.start = adapted_regression(kernels, tasks, self.inner)
        rows = tasks.query_targets[:trained].numel()
        eigenvalues = torch.linalg.eigvalsh(self.phi[:rows, :rows])
        self.smallest = float(eigenvalues[0])
        self.eta0 = 2 / float(eigenvalues[0] + eigenvalues[-1])


def measure_convergence(
    source: str, entry: TheoryNetworkOptions, options: TheoryOptions, advance: Callable[[], object]
) -> pd.DataFrame:
    """Full-batch MAML (Algorithm 1): one row per width, seed, rate and step.

    Columns: `rate` (η in η₀), `loss`, `bound` (Eq. 6 with R the loss at the start), `eta0`, `smallest` (σ_min).
    The widest network trains with `SLOW_RATE` too. A loss that is not finite is infinite from there on.
    """
    tasks = make_tasks(source, options, "train", options.train_tasks)
    limit = Limit(make_network(entry, options, 1), tasks, len(tasks.query), options, ONE_STEP)
    steps = np.arange(options.steps + 1)
    tables = []
    for width in entry.trained_widths:
        network = make_network(entry, options, width)
        rates = [options.rate, SLOW_RATE] if width == entry.trained_widths[-1] else [options.rate]
        for seed in range(options.seeds):
            weights = network.draw(generator("theory weights", seed))
            for rate in rates:
                _, found = train(
                    network, weights, tasks, limit.inner, rate=rate * limit.eta0, steps=options.steps
                )
                losses = np.full(len(steps), np.inf)
                losses[: len(found)] = np.nan_to_num(found, nan=np.inf)
                table = pd.DataFrame({"step": steps, "loss": losses})
                table["bound"] = (1 - limit.eta0 * limit.smallest / 3) ** (2 * steps) * losses[0]
                facts = {
                    "source": source,
                    "network": network.name,
                    "width": width,
                    "seed": seed,
                    "rate": rate,
                    "eta0": limit.eta0,
                    "smallest": limit.smallest,
                }
                tables.append(table.assign(**facts)[[*facts, "step", "loss", "bound"]])
            advance()
    return pd.concat(tables, ignore_index=True)


def summarise_bounds(curves: pd.DataFrame) -> pd.DataFrame:
    """One row per run: whether Eq. 6 held at all steps, and the smallest R for which it does.

    Columns: `held`, `smallest_r` (in the loss at the start; infinite where training diverged), `final_loss`.
    """
    keys = ["source", "network", "width", "seed", "rate"]
    rows = []
    for key, run in curves.groupby(keys, sort=False):
        excess = run["loss"] / run["bound"]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "eta0": run["eta0"].iloc[0],
                "smallest": run["smallest"].iloc[0],
                "held": bool((excess <= 1).all()),
                "smallest_r": float(excess.max()),
                "start_loss": run["loss"].iloc[0],
                "final_loss": run["loss"].iloc[-1],
            }
        )
    return pd.DataFrame(rows)


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
        statement = "3" if rate == options.rate else "3, slow rate"
        verdicts.append(judge_widths(statement, f"{source}, {network}, η = {rate:g} η₀", held, numbers))
    return verdicts


def measure_regression(
    source: str, entry: TheoryNetworkOptions, options: TheoryOptions, advance: Callable[[], object]
) -> pd.DataFrame:
    """Outputs of meta-trained networks on test tasks against kernel regression with the limit's kernels.

    One row per width, seed, time and comparison. Columns: `outputs` (the network's, as drawn or with its initial
    outputs subtracted), `rates` (infinitesimal: both loops by flow; finite: one inner step, η = rate · η₀),
    `prediction`, `time` (in steps of rate η₀), `error` (relative distance over all test tasks).
    """
    train_tasks = make_tasks(source, options, "train", options.train_tasks)
    test_tasks = make_tasks(source, options, "test", options.test_tasks)
    tasks = Tasks(*(torch.cat(pair) for pair in zip(train_tasks, test_tasks, strict=True)))
    trained = len(train_tasks.query)
    nominal = make_network(entry, options, 1)
    flow_limit = Limit(nominal, tasks, trained, options, FLOW)
    step_limit = Limit(nominal, tasks, trained, options, ONE_STEP)
    rows = []
    for width in entry.trained_widths:
        network = make_network(entry, options, width)
        for seed in range(options.seeds):
            weights = network.draw(generator("theory weights", seed))
            still = centred(network, weights)
            for outputs, rates, found in (
                (CENTRED, "infinitesimal", _follow_flow(still, weights, tasks, trained, flow_limit, options)),
                (DRAWN, "infinitesimal", _follow_flow(network, weights, tasks, trained, flow_limit, options)),
                (CENTRED, "finite", _follow_steps(still, weights, tasks, trained, step_limit, options)),
            ):
                facts = {"source": source, "network": network.name, "width": width, "seed": seed}
                facts |= {"outputs": outputs, "rates": rates}
                rows += [facts | row for row in found]
            advance()
    return pd.DataFrame(rows)


def _follow_flow(
    model: Callable, weights: Weights, tasks: Tasks, trained: int, limit: Limit, options: TheoryOptions
) -> list[dict]:
    """Meta-training by gradient flow against Eq. 12, and against Eq. 8 with the network's own initial outputs."""
    learning = Tasks(*(part[:trained] for part in tasks))
    before = meta_outputs(model, weights, tasks, limit.inner)
    now, rows = 0, []
    for time in sorted(options.times):
        span = (time - now) * limit.eta0
        weights = train_by_flow(
            model, weights, learning, limit.inner, time=span, steps=FLOW_STEPS * (time - now)
        )
        now = time
        outputs = meta_outputs(model, weights, tasks, limit.inner)
        for prediction, start in (("Eq. 12", limit.start), ("Eq. 8", before)):
            expected = kernel_regression(
                limit.phi, start, tasks.query_targets, trained, time=time * limit.eta0
            )
            rows.append(_row(prediction, time, outputs[trained:], expected[trained:]))
    return rows


def _follow_steps(
    model: Callable, weights: Weights, tasks: Tasks, trained: int, limit: Limit, options: TheoryOptions
) -> list[dict]:
    """Meta-training by gradient descent, one inner step, against Eq. 12 and its form for finite steps."""
    learning = Tasks(*(part[:trained] for part in tasks))
    rate = options.rate * limit.eta0
    now, rows = 0, []
    for steps in sorted(options.times):
        weights, _ = train(model, weights, learning, limit.inner, rate=rate, steps=steps - now)
        now = steps
        outputs = meta_outputs(model, weights, tasks, limit.inner)
        for prediction, used in (("Eq. 12", None), ("Eq. 12, finite steps", rate)):
            expected = kernel_regression(
                limit.phi, limit.start, tasks.query_targets, trained, time=steps * rate, rate=used
            )
            rows.append(_row(prediction, steps, outputs[trained:], expected[trained:]))
    return rows


def _row(prediction: str, time: int, outputs: Tensor, expected: Tensor) -> dict:
    error = relative_distance(outputs, expected)
    return {"prediction": prediction, "time": time, "error": error if np.isfinite(error) else np.inf}


# What each comparison of `measure_regression` belongs to, as (outputs, rates, prediction).
STATEMENTS = {
    ("4", CENTRED, "infinitesimal", "Eq. 12"),
    ("4, finite rates", CENTRED, "finite", "Eq. 12, finite steps"),
    ("4, finite rates in the limit's formula", CENTRED, "finite", "Eq. 12"),
    ("4, outputs as drawn", DRAWN, "infinitesimal", "Eq. 12"),
    ("4, outputs as drawn, Eq. 8", DRAWN, "infinitesimal", "Eq. 8"),
}


def judge_regression(table: pd.DataFrame) -> list[Verdict]:
    """Statement 4: whether the error falls with the width, for each time."""
    verdicts = []
    for statement, outputs, rates, prediction in sorted(STATEMENTS):
        chosen = table[
            (table["outputs"] == outputs) & (table["rates"] == rates) & (table["prediction"] == prediction)
        ]
        groups = list(chosen.groupby(["source", "network", "time"], sort=False))
        for (source, network, time), group in groups:
            verdicts.append(
                judge_slope(statement, f"{source}, {network}, t = {time}", group, "error", cases=len(groups))
            )
    return verdicts
