"""Statement 5: Eq. 12 as a few-shot learner in its own right, beside the meta-trained network."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metantk.options.theory import TheoryOptions
from metantk.runtime.devices import generator
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

SUPPORTS_ONLY = "G (Eq. 13): supports only, infinite width"
INFINITE = "Eq. 12, infinite width"
FINITE = "Eq. 12, kernel of the finite network"
TRAINED_CENTRED = "meta-trained network, zero at the start"
TRAINED = "meta-trained network, as drawn"
LEARNERS = (SUPPORTS_ONLY, INFINITE, FINITE, TRAINED_CENTRED, TRAINED)


def measure_learners(options: TheoryOptions) -> pd.DataFrame:
    """Accuracy of each learner on each test task (glyphs, test classes): `learner`, `task`, `accuracy` in percent.

    All have the same inner step and have been meta-trained for the same time, ηt.
    """
    chosen = options.learner
    shape = {"ways": chosen.ways, "shots": chosen.shots, "queries": chosen.queries, "side": options.image_size}
    parts = [
        draw_tasks("glyphs", count, **shape, key=(part, "learner"))
        for part, count in (("train", chosen.train_tasks), ("test", chosen.test_tasks))
    ]
    tasks = Tasks(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
    network = Network("fully_connected", "relu", chosen.depth, chosen.width, options.image_size, chosen.ways)
    limit = infinite_kernels(network, all_inputs(tasks))
    inner = make_inner_loops(limit, tasks, options)[ONE_STEP]
    rows = tasks.query_targets[: chosen.train_tasks].numel()
    eigenvalues = torch.linalg.eigvalsh(meta_ntk_by_formula(limit, tasks, inner)[:rows, :rows])
    rate = options.meta_lr * 2 / float(eigenvalues[0] + eigenvalues[-1])

    weights = network.draw(generator("theory weights", 0))
    outputs = {SUPPORTS_ONLY: adapted_regression(limit, tasks, inner)}
    outputs[INFINITE] = _regress(limit, tasks, inner, rate, options)
    outputs[FINITE] = _regress(empirical_kernels(network, weights, all_inputs(tasks)), tasks, inner, rate, options)
    several = stack_weights([weights])
    first = initial_outputs(network, several, tasks)
    for name, offset in (
        (TRAINED_CENTRED, first),
        (TRAINED, tuple(torch.zeros_like(part) for part in first)),
    ):
        own = centre(tasks, offset)
        learning = Tasks(*(part[:, : chosen.train_tasks] for part in own))
        trained, _ = train(network, several, learning, inner, rate=rate, steps=chosen.meta_steps)
        outputs[name] = (outputs_of_each(network, trained, own, inner) - offset[0])[0]
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
        time=rate * chosen.meta_steps,
        rate=rate,
    )


def _accuracies(outputs: Tensor, targets: Tensor) -> np.ndarray:
    """Percent of each task's queries whose largest output is that of their class."""
    return 100 * (outputs.argmax(-1) == targets.argmax(-1)).double().mean(-1).numpy()


def summarise_learners(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy and half its 95 % interval over test tasks, in percent, one row per learner."""
    groups = table.groupby("learner", sort=False)["accuracy"]
    return pd.DataFrame({"accuracy": groups.mean(), "ci95": groups.apply(confidence_95)}).reset_index()
