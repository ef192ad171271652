"""T-NAS (Lian et al. 2020): first-order MAML on the weights w and the architecture theta of a mixed network.

Within a task w and theta take plain steps together, theta at a far larger rate since its gradients are tiny;
between tasks Adam follows the queries' gradient at where those steps led. Each task then decodes a genotype of its
own; the result of the search is that of the shared theta, and the trace counts how many different ones the
validation tasks decode. Auto-MAML, the paper's baseline, does not adapt theta: each meta-step first moves theta by
tasks of one half of the images, then w by tasks of the other.

Batch normalisation uses the statistics of the batch, always (transductive, as published).
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from metantk.backbones.initial import uniform_
from metantk.data.store import Split
from metantk.flops import count_operations
from metantk.meta_learning.first_order import Group, add_meta_gradient, descend, gradients_of
from metantk.meta_learning.reptile import check_loss, restore, snapshot
from metantk.options.searches.t_nas import TNasOptions
from metantk.runtime.devices import generator, numpy_generator, require_memory
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.decoding import decode_edges, entropy, to_genotype
from metantk.searches.pacing import Pacer
from metantk.searches.tasks import Task, TaskSource
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.space.layouts import few_shot_layout, t_nas_layout
from metantk.space.mixed import NONE, T_NAS_SPACE, MixedNetwork, softmax_mixture

Options = TNasOptions
MIXED_SPACES = {"few-shot": SPACES["few-shot"], "darts": T_NAS_SPACE}
THETA_RATES = {"t-nas": 1e-3, "auto-maml": 3e-4}


class MetaLearner:
    """The mixed network, the architecture's logits by type of cell, and Adam of each.

    Attributes:
        theta: `(edges, operations)` by type of cell.
    """

    def __init__(self, network: MixedNetwork, theta: dict[str, Tensor], options: TNasOptions) -> None:
        self.network, self.theta, self.options = network, theta, options
        self.weights = list(network.parameters())
        self.thetas = [theta[kind] for kind in CELL_TYPES]
        self.weight_optimiser = torch.optim.Adam(self.weights, lr=options.meta_lr)
        rate = THETA_RATES[options.variant] if options.arch_meta_lr is None else options.arch_meta_lr
        self.theta_optimiser = torch.optim.Adam(
            self.thetas, lr=rate, betas=(0.5, 0.999), weight_decay=options.arch_weight_decay
        )

    @property
    def inner(self) -> list[Group]:
        """What a task moves, and its rates."""
        weights = (self.weights, self.options.inner_lr)
        if self.options.variant == "auto-maml":
            return [weights]
        return [weights, (self.thetas, self.options.arch_inner_lr)]

    def logits(self, images: Tensor) -> Tensor:
        arch = {kind: softmax_mixture(theta, self.network.space) for kind, theta in self.theta.items()}
        return self.network(images, arch)

    def support_loss(self, task: Task) -> Callable[[], Tensor]:
        return lambda: functional.cross_entropy(self.logits(task.support), task.support_labels)

    def query_loss(self, task: Task) -> Callable[[], Tensor]:
        return lambda: functional.cross_entropy(self.logits(task.query), task.query_labels)

    def meta_step(self, tasks: list[Task], optimisers: list[torch.optim.Optimizer]) -> float:
        """One step of the optimisers on the mean of the tasks' gradients; the mean loss of the queries, in nats."""
        outer = [tensor for optimiser in optimisers for tensor in optimiser.param_groups[0]["params"]]
        losses = [
            add_meta_gradient(
                self.support_loss(task),
                self.query_loss(task),
                self.inner,
                self.options.inner_steps,
                outer,
                share=1 / len(tasks),
            )
            for task in tasks
        ]
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        return sum(losses) / len(losses)

    @contextmanager
    def adapted(self, task: Task, steps: int) -> Iterator[None]:
        """Within, weights (and theta, unless it is shared) are those of the task."""
        moved = [tensor for group, _ in self.inner for tensor in group]
        meta = snapshot(moved)
        descend(self.support_loss(task), self.inner, steps)
        try:
            yield
        finally:
            restore(moved, meta)

    @torch.no_grad()
    def genotype(self) -> dict:
        space = self.network.space
        nodes = {
            kind: decode_edges(theta.softmax(-1).cpu().numpy(), space, excluded=NONE)
            for kind, theta in self.theta.items()
        }
        return to_genotype(nodes, space)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and theta by name, on the CPU."""
        named = {f"weights.{name}": value for name, value in self.network.named_parameters()}
        named |= {f"theta.{kind}": value for kind, value in self.theta.items()}
        return {name: value.detach().cpu().clone() for name, value in named.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.network.named_parameters():
            value.copy_(tensors[f"weights.{name}"])
        for kind, value in self.theta.items():
            value.copy_(tensors[f"theta.{kind}"])

    @property
    def optimisers(self) -> list[torch.optim.Optimizer]:
        return [self.weight_optimiser, self.theta_optimiser]


def make_learner(options: TNasOptions, cells: int, channels: int, seed: int, device: torch.device) -> MetaLearner:
    """The learner before the search, for a backbone of `cells` × `channels`."""
    channels = channels if options.channels is None else options.channels
    layout = t_nas_layout(channels) if options.layout == "t-nas" else few_shot_layout(cells, channels)
    space = MIXED_SPACES[options.space]
    network = MixedNetwork(space, layout, options.ways)
    uniform_(network, generator("initial weights", seed))
    rng = generator("t-nas theta", seed)
    shape = (len(space.edges), len(space.operations))
    theta = {kind: (1e-3 * torch.randn(shape, generator=rng)).to(device).requires_grad_() for kind in CELL_TYPES}
    return MetaLearner(network.to(device), theta, options)


def halve(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images of two halves of every class: for w, and for theta (auto-MAML)."""
    rng = numpy_generator("auto-maml halves", seed)
    halves: tuple[list, list] = ([], [])
    for label in np.unique(labels):
        images = rng.permutation(np.flatnonzero(labels == label))
        middle = (len(images) + 1) // 2
        halves[0].append(images[:middle])
        halves[1].append(images[middle:])
    return tuple(np.sort(np.concatenate(half)) for half in halves)


def find(problem: Problem, options: TNasOptions, seed: int, checkpoint: Checkpoint) -> Found:
    """Search by meta-training; the epoch of the best validation accuracy is decoded.

    Costs are of the phases "training" and "validation"; an evaluation is a gradient of a task, on support or query.

    Trace: a row per epoch: `loss` of the training queries after the adaptation, in nats; `accuracy` of the
    validation queries after theirs, in percent; `genotypes`, how many different ones the validation tasks decode
    each for itself (1 where theta is shared); `entropy` of the operations' weights by type of cell, in nats; and
    whether it is the `best` epoch so far.
    """
    learner = make_learner(options, problem.backbone.cells, problem.backbone.channels, seed, problem.device)
    progress = _Progress()
    if checkpoint.state:
        progress = _Progress.load(checkpoint.state, learner)
    require_memory(
        options.meta_batch_size * options.ways * (options.shots + options.queries),
        side=options.image_size or problem.train.images.shape[1],
        device=problem.device,
        options="meta_batch_size, shots, queries",
    )
    training, of_theta = _training_tasks(problem, options, seed)
    validation = _tasks_of(problem, problem.val, options, "validation")
    meta_steps = options.steps_per_epoch
    problem.bar.reset(total=options.epochs * meta_steps)
    problem.bar.update(progress.epoch * meta_steps + progress.step)
    operations = _operations_of_gradients(learner, training.draw("counting"))
    pacer = Pacer(checkpoint)

    def keep() -> None:
        pacer.save(lambda: progress.save(learner))

    while progress.epoch < options.epochs:
        while progress.step < meta_steps:
            began = time.perf_counter()
            progress.loss += _train(learner, training, of_theta, seed, progress.epoch, progress.step) / meta_steps
            progress.step += 1
            passes = 1 if of_theta is None else 2
            _charge(
                progress.costs["training"], began, passes * options.meta_batch_size, options.inner_steps, operations
            )
            problem.bar.update(1)
            keep()
        began = time.perf_counter()
        accuracy, genotypes = validate(learner, validation, seed)
        _charge(
            progress.costs["validation"],
            began,
            options.validation_episodes,
            options.validation_inner_steps,
            operations,
        )
        progress.end_epoch(accuracy, genotypes, learner)
        keep()
    learner.load_tensors(progress.best)
    return Found(learner.genotype(), pd.DataFrame(progress.rows), progress.costs, _facts(learner), progress.best)


def _tasks_of(
    problem: Problem, split: Split, options: TNasOptions, name: str, indices: np.ndarray | None = None
) -> TaskSource:
    return TaskSource(
        problem,
        split,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        image_size=options.image_size,
        where=f"search t-nas, {name} classes",
        indices=indices,
    )


def _training_tasks(problem: Problem, options: TNasOptions, seed: int) -> tuple[TaskSource, TaskSource | None]:
    """Tasks of w, and, if they have images of their own, those of theta."""
    if options.variant == "t-nas":
        return _tasks_of(problem, problem.train, options, "training"), None
    of_weights, of_theta = (
        _tasks_of(problem, problem.train, options, "half of the images of the training", indices)
        for indices in halve(problem.train.labels, seed)
    )
    return of_weights, of_theta


def _train(
    learner: MetaLearner, training: TaskSource, of_theta: TaskSource | None, seed: int, epoch: int, step: int
) -> float:
    """One meta-step; the loss of the queries that moved the weights."""
    indices = range(learner.options.meta_batch_size)
    tasks = [training.draw(seed, epoch, step, index) for index in indices]
    if of_theta is None:
        return learner.meta_step(tasks, learner.optimisers)
    others = [of_theta.draw("theta", seed, epoch, step, index) for index in indices]
    learner.meta_step(others, [learner.theta_optimiser])
    return learner.meta_step(tasks, [learner.weight_optimiser])


def validate(learner: MetaLearner, tasks: TaskSource, seed: int) -> tuple[float, int]:
    """Accuracy in percent over the validation tasks, the same after each epoch, and their distinct genotypes."""
    accuracies, genotypes = [], set()
    for index in range(learner.options.validation_episodes):
        task = tasks.draw("validation", seed, index)
        with learner.adapted(task, learner.options.validation_inner_steps), torch.no_grad():
            correct = learner.logits(task.query).argmax(1) == task.query_labels
            accuracies.append(correct.double().mean().item())
            genotypes.add(json.dumps(learner.genotype()))
    return 100 * sum(accuracies) / len(accuracies), len(genotypes)


class _Progress:
    """How far the search is: what a killed run leaves, beside the learner's tensors and moments."""

    def __init__(self) -> None:
        self.epoch, self.step = 0, 0
        self.loss = 0.0  # of this epoch's training queries so far
        self.rows: list[dict] = []
        self.best_accuracy = -1.0
        self.best: dict[str, Tensor] = {}
        self.costs = {"training": Cost(), "validation": Cost()}

    def end_epoch(self, accuracy: float, genotypes: int, learner: MetaLearner) -> None:
        """Raises `DivergedError` where the loss is not finite."""
        check_loss(self.loss, self.epoch + 1, learner.options)
        is_best = accuracy > self.best_accuracy
        if is_best:
            self.best_accuracy, self.best = accuracy, learner.tensors()
        self.epoch += 1
        row = {"epoch": self.epoch, "loss": self.loss, "accuracy": accuracy, "genotypes": genotypes}
        self.rows.append(row | {"validation_episodes": learner.options.validation_episodes})
        self.rows[-1] |= _entropies(learner) | {"best": is_best}
        self.step, self.loss = 0, 0.0

    def save(self, learner: MetaLearner) -> dict:
        return vars(self) | {
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "tensors": learner.tensors(),
            "optimisers": [optimiser.state_dict() for optimiser in learner.optimisers],
        }

    @classmethod
    def load(cls, tensors: dict, learner: MetaLearner) -> "_Progress":
        """As `save` gave it; the learner goes on from there, too."""
        learner.load_tensors(tensors["tensors"])
        for optimiser, state in zip(learner.optimisers, tensors["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        progress = cls()
        for name in vars(progress):
            setattr(progress, name, tensors[name])
        progress.costs = {name: Cost(**cost) for name, cost in tensors["costs"].items()}
        return progress


def _charge(cost: Cost, began: float, tasks: int, steps: int, operations: tuple[int, int]) -> None:
    """Add tasks of `steps` gradients on the support and one on the queries."""
    support, query = operations
    cost.evaluations += tasks * (steps + 1)
    cost.operations += tasks * (steps * support + query)
    cost.seconds += time.perf_counter() - began


def _operations_of_gradients(learner: MetaLearner, task: Task) -> tuple[int, int]:
    """Of a gradient of the support's loss, and of the queries'."""
    tensors = [*learner.weights, *learner.thetas]
    support, query = (
        count_operations(lambda loss=loss: gradients_of(loss(), tensors))
        for loss in (learner.support_loss(task), learner.query_loss(task))
    )
    return support, query


def _entropies(learner: MetaLearner) -> dict[str, float]:
    weights = {kind: theta.detach().softmax(-1).cpu().numpy() for kind, theta in learner.theta.items()}
    return {f"entropy_{kind}": entropy(weights[kind]) for kind in CELL_TYPES}


def _facts(learner: MetaLearner) -> dict:
    return {
        "network": learner.network.layout.describe(),
        "network_parameters": sum(weight.numel() for weight in learner.weights),
        "architecture_parameters": sum(theta.numel() for theta in learner.thetas),
        "theta": {kind: theta.tolist() for kind, theta in learner.theta.items()},
        "genotype_is_of": "the shared architecture of the epoch of best validation accuracy",
    }
