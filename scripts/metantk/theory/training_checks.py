"""Statements 3 and 4: meta-training at finite width against Theorem 1 (Eq. 6) and Theorem 2 (Eq. 12)."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk.options.theory import TheoryNetworkOptions, TheoryOptions
from metantk.runtime.devices import generator
from metantk.theory.kernel_checks import FLOW, ONE_STEP, make_inner_loops, make_network, make_tasks
from metantk.theory.kernels import (
    adapted_regression,
    all_inputs,
    infinite_kernels,
    kernel_regression,
    meta_ntk_by_formula,
    relative_distance,
)
from metantk.theory.maml import (
    InnerLoop,
    Tasks,
    centre,
    initial_outputs,
    outputs_of_each,
    stack_weights,
    train,
    train_by_flow,
)
from metantk.theory.networks import Network, Weights

SLOW_RATE = 0.1  # in η₀: Theorem 1 allows any rate below η₀, but its bound decays as if the rate were at least η₀/3
FLOW_STEPS = 2  # Runge-Kutta steps of the meta-training's flow per step of rate η₀
CENTRED, DRAWN = "zero at the start", "as drawn"
INFINITESIMAL, FINITE = "infinitesimal", "finite"
EXPONENTIAL, BY_STEPS = "exp(−ηtΦ)", "(I − ηΦ)^t"
RUNS = ((CENTRED, INFINITESIMAL), (CENTRED, FINITE), (DRAWN, FINITE))

RIGHT, EQ_8 = "Eq. 12", "Eq. 8"
WRONG = NO_START, NO_TRAINING = "Eq. 12 without G", "G alone"  # Eq. 12 less one of its two terms

# The comparisons that are judged, by statement.
COMPARISONS = {
    "4": {"outputs": CENTRED, "rates": INFINITESIMAL, "prediction": RIGHT},
    "4, finite rates": {"outputs": CENTRED, "rates": FINITE, "prediction": RIGHT, "decay": BY_STEPS},
    "4, finite rates against the limit's decay": {
        "outputs": CENTRED,
        "rates": FINITE,
        "prediction": RIGHT,
        "decay": EXPONENTIAL,
    },
    "4, outputs as drawn": {"outputs": DRAWN, "rates": FINITE, "prediction": RIGHT, "decay": BY_STEPS},
    "4, outputs as drawn against Eq. 8": {
        "outputs": DRAWN,
        "rates": FINITE,
        "prediction": EQ_8,
        "decay": BY_STEPS,
    },
}


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


def measure_convergence(source: str, entry: TheoryNetworkOptions, options: TheoryOptions) -> pd.DataFrame:
    """Full-batch MAML (Algorithm 1): one row per width, seed, rate and step.

    Columns: `rate` (η in η₀), `loss`, `bound` (Eq. 6 with R the loss at the start), `eta0`, `smallest` (σ_min).
    The widest network trains with `SLOW_RATE` too. A loss that is not finite is infinite from there on.
    """
    tasks = make_tasks(source, options, "train", options.train_tasks)
    limit = Limit(make_network(entry, options, 1), tasks, len(tasks.query), options, ONE_STEP)
    steps = np.arange(options.meta_steps + 1)
    tables = []
    for width in entry.trained_widths:
        network = make_network(entry, options, width)
        weights = draw_networks(network, options.seeds)
        own = centre(tasks, _zeros(tasks, options.seeds))
        for rate in [options.meta_lr, SLOW_RATE] if width == entry.trained_widths[-1] else [options.meta_lr]:
            _, losses = train(network, weights, own, limit.inner, rate=rate * limit.eta0, steps=options.meta_steps)
            for seed, found in enumerate(np.nan_to_num(losses.numpy(), nan=np.inf)):
                facts = {
                    "source": source,
                    "network": network.name,
                    "width": width,
                    "seed": seed,
                    "rate": rate,
                    "eta0": limit.eta0,
                    "smallest": limit.smallest,
                }
                bound = (1 - limit.eta0 * limit.smallest / 3) ** (2 * steps) * found[0]
                tables.append(pd.DataFrame({**facts, "step": steps, "loss": found, "bound": bound}))
    return pd.concat(tables, ignore_index=True)


def draw_networks(network: Network, seeds: int) -> Weights:
    """Weights of `seeds` networks, one after the other along a first axis.

    Each width draws its own: a fit against the width takes its points to be independent.
    """
    return stack_weights([network.draw(generator("theory weights", network.width, seed)) for seed in range(seeds)])


def _zeros(tasks: Tasks, networks: int) -> tuple[Tensor, Tensor]:
    """What `centre` takes to leave tasks as they are."""
    return (
        torch.zeros(networks, *tasks.query_targets.shape, dtype=torch.float64),
        torch.zeros(networks, *tasks.support_targets.shape, dtype=torch.float64),
    )


def summarise_bounds(curves: pd.DataFrame) -> pd.DataFrame:
    """One row per run: whether Eq. 6 held at all steps, and the smallest R for which it does.

    Columns: `held`, `smallest_r` (in the loss at the start; infinite where training diverged), `final_loss`.
    """
    keys = ["source", "network", "width", "seed", "rate"]
    rows = []
    for key, run in curves.groupby(keys, sort=False):
        # Outputs are sums over the width: losses below their rounding errors say nothing about the bound.
        rounding = run["loss"].iloc[0] * (key[2] * np.finfo(float).eps) ** 2
        compared = run[run["bound"] > rounding]
        excess = compared["loss"] / compared["bound"]
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


def measure_regression(
    source: str, entry: TheoryNetworkOptions, width: int, options: TheoryOptions
) -> pd.DataFrame:
    """Outputs of meta-trained networks of one width on test tasks against kernel regression in the limit.

    One row per seed, time and prediction. Columns: `outputs` (the network's, as drawn or with its initial
    outputs subtracted), `rates` (infinitesimal: both loops by flow; finite: one inner step, η = rate · η₀),
    `prediction` (Eq. 12, Eq. 8 with the network's own F_0, or one of `WRONG`), `decay` (of the residual in the
    prediction), `time` (steps, of rate η₀ for the flow), `error` (relative distance over all test tasks).
    """
    train_tasks = make_tasks(source, options, "train", options.train_tasks)
    test_tasks = make_tasks(source, options, "test", options.test_tasks)
    tasks = Tasks(*(torch.cat(pair) for pair in zip(train_tasks, test_tasks, strict=True)))
    trained = len(train_tasks.query)
    network = make_network(entry, options, width)
    flow_limit = Limit(network, tasks, trained, options, FLOW)
    step_limit = Limit(network, tasks, trained, options, ONE_STEP)
    weights = draw_networks(network, options.seeds)
    offset = initial_outputs(network, weights, tasks)
    rows = []
    for outputs, rates in RUNS:
        limit = flow_limit if rates == INFINITESIMAL else step_limit
        shift = offset if outputs == CENTRED else _zeros(tasks, options.seeds)
        history = _train(network, weights, centre(tasks, shift), trained, limit, rates, options)
        facts = {"source": source, "network": network.name, "width": width, "outputs": outputs, "rates": rates}
        for time in sorted(options.times):
            found, before = history[time] - shift[0], history[0] - shift[0]
            for row in _compare(found, before, time, tasks, trained, limit, rates, options):
                rows.append(facts | row)
    return pd.DataFrame(rows)


def _train(
    network: Network, weights: Weights, own: Tasks, trained: int, limit: Limit, rates: str, options: TheoryOptions
) -> dict[int, Tensor]:
    """Meta-outputs of all networks on all tasks, by time in steps of η₀ (infinitesimal) or η (finite); from 0."""
    learning = Tasks(*(part[:, :trained] for part in own))
    history = {0: outputs_of_each(network, weights, own, limit.inner)}
    for before, now in pairwise([0, *sorted(options.times)]):
        steps = now - before
        if rates == INFINITESIMAL:
            weights = train_by_flow(
                network, weights, learning, limit.inner, time=steps * limit.eta0, steps=FLOW_STEPS * steps
            )
        else:
            rate = options.meta_lr * limit.eta0
            weights, _ = train(network, weights, learning, limit.inner, rate=rate, steps=steps)
        history[now] = outputs_of_each(network, weights, own, limit.inner)
    return history


def _compare(
    found: Tensor,
    before: Tensor,
    time: int,
    tasks: Tasks,
    trained: int,
    limit: Limit,
    rates: str,
    options: TheoryOptions,
) -> Iterator[dict]:
    """Distances on the test tasks from each prediction, one row per network."""
    rate = options.meta_lr * limit.eta0
    decays = {EXPONENTIAL: None} if rates == INFINITESIMAL else {EXPONENTIAL: None, BY_STEPS: rate}
    flowed = time * (limit.eta0 if rates == INFINITESIMAL else rate)
    for decay, step in decays.items():
        for seed in range(len(found)):
            predictions = {
                RIGHT: (limit.start, flowed),
                EQ_8: (before[seed], flowed),
                NO_START: (torch.zeros_like(limit.start), flowed),
                NO_TRAINING: (limit.start, 0.0),
            }
            for prediction, (start, spent) in predictions.items():
                expected = kernel_regression(limit.phi, start, tasks.query_targets, trained, time=spent, rate=step)
                error = relative_distance(found[seed, trained:], expected[trained:])
                yield {
                    "seed": seed,
                    "prediction": prediction,
                    "decay": decay,
                    "time": time,
                    "error": error if math.isfinite(error) else math.inf,
                }
