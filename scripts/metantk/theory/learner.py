"""Statement 5: Eq. 12 as a few-shot learner in its own right, beside the meta-trained network."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk.options.theory import TheoryOptions
from metantk.devices import generator
from metantk.statistics import confidence_95
from metantk.theory.kernel_checks import ONE_STEP, make_inner_loops
from metantk.theory.kernels import (
    Pair,
    adapted_regression,
    all_inputs,
    empirical_kernels,
    infinite_kernels,
    kernel_regression,
    meta_ntk_by_formula,
)
from metantk.theory.maml import InnerLoop, Tasks, centre, initial_outputs, outputs_of_each, stack_weights, train
from metantk.theory.networks import Network
from metantk.theory.tasks import draw_tasks
from metantk.theory.verdicts import FAILS, HOLDS, Verdict

SUPPORTS_ONLY = "G (Eq. 13): supports only, infinite width"
INFINITE = "Eq. 12, infinite width"
FINITE = "Eq. 12, kernel of the finite network"
TRAINED_CENTRED = "meta-trained network, zero at the start"
TRAINED = "meta-trained network, as drawn"
LEARNERS = (SUPPORTS_ONLY, INFINITE, FINITE, TRAINED_CENTRED, TRAINED)


def measure_learners(options: TheoryOptions, advance: Callable[[], object]) -> pd.DataFrame:
    """Accuracy of each learner on each test task (glyphs, test classes): `learner`, `task`, `accuracy` in percent.

    All have the same inner step and have been meta-trained for the same time, ηt.
    """
    chosen = options.learner
    shape = {"ways": chosen.ways, "shots": chosen.shots, "queries": chosen.queries, "side": options.side}
    parts = [
        draw_tasks("glyphs", count, **shape, key=(part, "learner"))
        for part, count in (("train", chosen.train_tasks), ("test", chosen.test_tasks))
    ]
    tasks = Tasks(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
    network = Network("fully_connected", "relu", chosen.depth, chosen.width, options.side, chosen.ways)
    limit = infinite_kernels(network, all_inputs(tasks))
    inner = make_inner_loops(limit, tasks, options)[ONE_STEP]
    rows = tasks.query_targets[: chosen.train_tasks].numel()
    eigenvalues = torch.linalg.eigvalsh(meta_ntk_by_formula(limit, tasks, inner)[:rows, :rows])
    rate = options.rate * 2 / float(eigenvalues[0] + eigenvalues[-1])

    weights = network.draw(generator("theory weights", 0))
    outputs = {SUPPORTS_ONLY: adapted_regression(limit, tasks, inner)}
    advance()
    outputs[INFINITE] = _regress(limit, tasks, inner, rate, options)
    advance()
    outputs[FINITE] = _regress(empirical_kernels(network, weights, all_inputs(tasks)), tasks, inner, rate, options)
    advance()
    several = stack_weights([weights])
    first = initial_outputs(network, several, tasks)
    for name, offset in (
        (TRAINED_CENTRED, first),
        (TRAINED, tuple(torch.zeros_like(part) for part in first)),
    ):
        own = centre(tasks, offset)
        learning = Tasks(*(part[:, : chosen.train_tasks] for part in own))
        trained, _ = train(network, several, learning, inner, rate=rate, steps=chosen.steps)
        outputs[name] = (outputs_of_each(network, trained, own, inner) - offset[0])[0]
        advance()
    tables = [
        pd.DataFrame({"learner": name, "task": range(chosen.test_tasks), "accuracy": found})
        for name, found in (
            (name, _accuracies(each[chosen.train_tasks :], tasks.query_targets[chosen.train_tasks :]))
            for name, each in outputs.items()
        )
    ]
    return pd.concat(tables, ignore_index=True)


def _regress(kernels: Pair, tasks: Tasks, inner: InnerLoop, rate: float, options: TheoryOptions) -> Tensor:
    chosen = options.learner
    return kernel_regression(
        meta_ntk_by_formula(kernels, tasks, inner),
        adapted_regression(kernels, tasks, inner),
        tasks.query_targets,
        chosen.train_tasks,
        time=rate * chosen.steps,
        rate=rate,
    )


def _accuracies(outputs: Tensor, targets: Tensor) -> np.ndarray:
    """Percent of each task's queries whose largest output is that of their class."""
    return 100 * (outputs.argmax(-1) == targets.argmax(-1)).double().mean(-1).numpy()


def summarise_learners(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy and half its 95 % interval over test tasks, in percent, one row per learner."""
    groups = table.groupby("learner", sort=False)["accuracy"]
    return pd.DataFrame({"accuracy": groups.mean(), "ci95": groups.apply(confidence_95)}).reset_index()


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
