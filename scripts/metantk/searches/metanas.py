"""MetaNAS (Elsken et al. 2020): Reptile over tasks, each learned with DARTS and soft pruning.

A task learns weights and architecture side by side, a batch for each; softmaxes over operations and over pairs of
inputs sharpen as their temperature falls, and what falls below a threshold is skipped. The meta-parameters of both
move towards where the tasks led. The search's result is the decoded meta-architecture; `adapt_to_task` instead
adapts the architecture to a task, as the learner `metanas` (the meta-trained network of Table 1) does.

Gradients of the architecture are first order and at the current weights. (The published code takes them at a copy
that its commands never update; that is not meant, and not done here.)
"""

import time
from dataclasses import asdict
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from metantk.backbones.initial import uniform_
from metantk.flops import count_operations
from metantk.options.searches.metanas import Adaptation, MetaNasOptions, TaskLearning
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.decoding import decode_pairs, entropy, to_genotype
from metantk.searches.pacing import Pacer
from metantk.searches.reptile import check_loss, draw_batch, make_adam, reptile_step, step_on
from metantk.searches.tasks import TaskSource
from metantk.space.genotype import CELL_TYPES, SPACES, Space
from metantk.space.layouts import few_shot_layout, metanas_layout
from metantk.space.mixed import Arch, MixedNetwork, pairs_of, pairwise_mixture

Options = MetaNasOptions
REMOVED = -1e9  # logit of an operation that is removed for good: no step of a float32 moves it
ROWS = 200  # of the trace, about


class TaskGenerators(NamedTuple):
    """Generators of a task: of its batches, on the CPU, and of drop path, on the images' device."""

    batches: torch.Generator
    paths: torch.Generator


def make_generators(device: torch.device, *key: int | str) -> TaskGenerators:
    return TaskGenerators(generator("metanas batches", *key), generator("metanas paths", *key, device=device))


class Alphas(NamedTuple):
    """Logits of the architecture of a type of cell: of operations `(edges, operations)`, of pairs `(pairs,)`."""

    operations: Tensor
    pairs: Tensor


def temperature_at(step: int, steps: int, minimum: float) -> float:
    """Linear from 1 at a task's first architecture step to `minimum` at its last, and so from there on."""
    if step >= steps - 1:
        return minimum if steps > 1 or step > 0 else 1.0
    return 1 - step * (1 - minimum) / (steps - 1)


class TaskLearner:
    """The mixed network, the architecture's parameters and an optimiser of each: all that is meta-learned.

    The optimisers' moments go on from task to task (published code).
    """

    def __init__(self, network: MixedNetwork, alphas: dict[str, Alphas], options: TaskLearning) -> None:
        self.network, self.alphas, self.options = network, alphas, options
        self.weights = list(network.parameters())
        self.weight_optimiser = make_adam(self.weights, options.inner_lr)
        self.alpha_optimiser = make_adam(self.alpha_tensors, options.arch_inner_lr, options.arch_weight_decay)

    @property
    def alpha_tensors(self) -> list[Tensor]:
        return [tensor for kind in CELL_TYPES for tensor in self.alphas[kind]]

    def arch(self, temperature: float, threshold: float) -> Arch:
        """The mixture of each type of cell; differentiable."""
        space = self.network.space
        return {
            kind: pairwise_mixture(*alphas, space, temperature=temperature, threshold=threshold)
            for kind, alphas in self.alphas.items()
        }

    def loss(
        self, images: Tensor, labels: Tensor, arch: Arch, threshold: float, rate: float, generators: TaskGenerators
    ) -> Tensor:
        logits = self.network(images, arch, threshold=threshold, rate=rate, generator=generators.paths)
        return functional.cross_entropy(logits, labels)

    def learn(
        self,
        images: Tensor,
        labels: Tensor,
        generators: TaskGenerators,
        *,
        steps: int,
        architecture_steps: int | None,
        batch: int,
        threshold: float,
        drop_path: float,
    ) -> float:
        """Learn a task in place.

        Args:
            steps: of the weights.
            architecture_steps: the first steps, that learn the architecture too while the temperature falls; None
                is warm-up, where neither happens.
            batch: images of a step.
            threshold: of what is skipped.
            drop_path: probability.

        Returns:
            the loss of the last step's batch, in nats; nan without steps.
        """
        loss = torch.tensor(float("nan"))
        for step in range(steps):
            temperature = 1.0
            if architecture_steps is not None:
                temperature = temperature_at(step, architecture_steps, self.options.min_temperature)
            if step < (architecture_steps or 0):
                chosen = draw_batch(labels, batch, generators.batches)
                arch = self.arch(temperature, threshold)
                loss = self.loss(images[chosen], labels[chosen], arch, threshold, drop_path, generators)
                step_on(loss, self.alpha_optimiser)
            chosen = draw_batch(labels, batch, generators.batches)
            with torch.no_grad():
                arch = self.arch(temperature, threshold)
            loss = self.loss(images[chosen], labels[chosen], arch, threshold, drop_path, generators)
            step_on(loss, self.weight_optimiser)
        return loss.item()

    @torch.no_grad()
    def remove_tiny(self) -> int:
        """Remove operations of less weight than the threshold at the lowest temperature; how many are removed."""
        weights = self.final_weights()
        for kind in CELL_TYPES:
            logits = self.alphas[kind].operations
            logits[weights[kind] < self.options.threshold] = REMOVED
        return sum(int((alphas.operations == REMOVED).sum()) for alphas in self.alphas.values())

    @torch.no_grad()
    def final_weights(self) -> dict[str, Tensor]:
        """Weights of the operations at the lowest temperature, by type of cell."""
        arch = self.arch(self.options.min_temperature, 0.0)
        return {kind: mixture.operations for kind, mixture in arch.items()}

    def genotype(self) -> dict:
        space = self.network.space
        nodes = {
            kind: decode_pairs(*(tensor.detach().cpu().numpy() for tensor in alphas), space)
            for kind, alphas in self.alphas.items()
        }
        return to_genotype(nodes, space)

    def tensors(self) -> dict[str, Tensor]:
        """All that is meta-learned, by name: weights, alphas and the optimisers' second moments, on the CPU."""
        named = {f"weights.{name}": value for name, value in self.network.named_parameters()}
        for kind, alphas in self.alphas.items():
            named |= {f"alphas.{kind}.{name}": value for name, value in alphas._asdict().items()}
        tensors = {name: value.detach().cpu().clone() for name, value in named.items()}
        for name, value in named.items():
            state = self._optimiser_of(name).state.get(value)
            if state:
                tensors[f"moments.{name}"] = state["exp_avg_sq"].cpu().clone()
                tensors[f"steps.{name}"] = state["step"].cpu().clone()
        return tensors

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """As `tensors()` gave them."""
        named = {f"weights.{name}": value for name, value in self.network.named_parameters()}
        for kind, alphas in self.alphas.items():
            named |= {f"alphas.{kind}.{name}": value for name, value in alphas._asdict().items()}
        for name, value in named.items():
            with torch.no_grad():
                value.copy_(tensors[name])
            states = self._optimiser_of(name).state
            states.pop(value, None)
            if f"moments.{name}" in tensors:
                states[value] = {
                    "step": tensors[f"steps.{name}"].clone(),
                    "exp_avg": torch.zeros_like(value),  # of no weight: it is overwritten by the next gradient
                    "exp_avg_sq": tensors[f"moments.{name}"].to(value.device, copy=True),
                }

    def _optimiser_of(self, name: str) -> torch.optim.Adam:
        return self.weight_optimiser if name.startswith("weights.") else self.alpha_optimiser


def make_learner(
    options: MetaNasOptions, cells: int, channels: int, seed: int, device: torch.device
) -> TaskLearner:
    """The learner before the search, for a backbone of `cells` × `channels`.

    Raises:
        InputError: a reduction cell that the stack does not have.
    """
    cells = cells if options.cells is None else options.cells
    channels = channels if options.channels is None else options.channels
    if options.layout == "metanas":
        if not set(options.reductions) <= set(range(cells)):
            raise InputError(f"search metanas: reductions {options.reductions} are not among its {cells} cells")
        layout = metanas_layout(channels, cells, tuple(options.reductions))
    else:
        layout = few_shot_layout(cells, channels)
    space = SPACES[options.space]
    network = MixedNetwork(space, layout, options.ways)
    uniform_(network, generator("initial weights", seed))
    return TaskLearner(network.to(device), draw_alphas(space, seed, device), options)


def draw_alphas(space: Space, seed: int, device: torch.device) -> dict[str, Alphas]:
    """Logits of an architecture that mixes all nearly alike: normal, of deviation 0.001 (published code)."""
    generators = generator("metanas alphas", seed)
    shapes = [(len(space.edges), len(space.operations)), (sum(len(pairs) for pairs in pairs_of(space)),)]
    return {
        kind: Alphas(*((1e-3 * torch.randn(s, generator=generators)).to(device).requires_grad_() for s in shapes))
        for kind in CELL_TYPES
    }


def find(problem: Problem, options: MetaNasOptions, seed: int, checkpoint: Checkpoint) -> Found:
    """Search by meta-training.

    Costs are of the parts "warm-up" and "search"; an evaluation is a gradient step, of weights or architecture.
    Floating-point operations are those of the whole network, though skipped operations cost none.

    Trace: a row of event "epoch" for some 200 meta-epochs: mean over tasks of the last step's `loss`, in nats, and
    the `entropy` of the operations' weights by type of cell, in nats, at the lowest temperature; "removal" rows
    say how many `removed` operations there are in all.
    """
    tasks = TaskSource(
        problem,
        problem.train,
        ways=options.ways,
        shots=options.shots,
        queries=0,
        image_size=options.image_size,
        where="search metanas, training classes",
    )
    learner = make_learner(options, problem.backbone.cells, problem.backbone.channels, seed, problem.device)
    first, rows = 0, []
    costs = {"warm-up": Cost(), "search": Cost()}
    if checkpoint.state:
        first, rows = checkpoint.state["epoch"], checkpoint.kept["rows"]
        costs = {name: Cost(**cost) for name, cost in checkpoint.state["costs"].items()}
        learner.load_tensors(checkpoint.state["tensors"])
    problem.bar.reset(total=options.meta_steps)
    problem.bar.update(first)
    weight_operations, alpha_operations = _operations_of_steps(learner, tasks, problem.device)
    pacer = Pacer(checkpoint)
    for epoch in range(first, options.meta_steps):
        began = time.perf_counter()
        warm = epoch < options.warm_up_steps
        losses = _meta_step(learner, tasks, problem.device, seed, epoch, architecture=not warm)
        finished = epoch + 1
        if finished % max(1, options.meta_steps // ROWS) == 0 or finished == options.meta_steps:
            loss = sum(losses) / len(losses)
            check_loss(loss, finished)
            rows.append({"event": "epoch", "epoch": finished, "loss": loss} | _entropies(learner))
        if finished % options.prune_every_steps == 0:
            removed = learner.remove_tiny()
            rows.append({"event": "removal", "epoch": finished, "removed": removed} | _entropies(learner))
        cost, steps = costs["warm-up" if warm else "search"], options.meta_batch_size * options.inner_steps
        cost.evaluations += steps * (1 if warm else 2)
        cost.operations += steps * (weight_operations + (0 if warm else alpha_operations))
        cost.seconds += time.perf_counter() - began
        problem.bar.update(1)
        state = {"epoch": finished, "rows": rows, "costs": {name: asdict(cost) for name, cost in costs.items()}}
        pacer.save(lambda state=state: state | {"tensors": learner.tensors()})
    return Found(learner.genotype(), pd.DataFrame(rows), costs, _facts(learner), learner.tensors())


def _meta_step(
    learner: TaskLearner, tasks: TaskSource, device: torch.device, seed: int, epoch: int, *, architecture: bool
) -> list[float]:
    """One step of Reptile on weights and, unless warming up, on the architecture; the tasks' last losses."""
    options, losses = learner.options, []

    def learn(index: int) -> None:
        task = tasks.draw(seed, epoch, index)
        losses.append(
            learner.learn(
                task.support,
                task.support_labels,
                make_generators(device, seed, epoch, index),
                steps=options.inner_steps,
                architecture_steps=options.inner_steps if architecture else None,
                batch=options.inner_batch_size,
                threshold=options.threshold,
                drop_path=options.drop_path_rate,
            )
        )

    groups = [(learner.weights, options.meta_lr), (learner.alpha_tensors, options.arch_meta_lr)]
    reptile_step(groups, options.meta_batch_size, learn)
    return losses


def _operations_of_steps(learner: TaskLearner, tasks: TaskSource, device: torch.device) -> tuple[int, int]:
    """Of a step of the weights and of one of the architecture."""
    task = tasks.draw("counting")
    generators = make_generators(device, "counting")
    chosen = draw_batch(task.support_labels, learner.options.inner_batch_size, generators.batches)

    def backward(tensors: list[Tensor]) -> None:
        arch = learner.arch(1.0, 0.0)
        loss = learner.loss(task.support[chosen], task.support_labels[chosen], arch, 0.0, 0.0, generators)
        torch.autograd.grad(loss, tensors, allow_unused=True)

    return count_operations(lambda: backward(learner.weights)), count_operations(
        lambda: backward(learner.alpha_tensors)
    )


def _entropies(learner: TaskLearner) -> dict[str, float]:
    weights = learner.final_weights()
    return {f"entropy_{kind}": entropy(weights[kind].cpu().numpy()) for kind in CELL_TYPES}


def _facts(learner: TaskLearner) -> dict:
    arch = learner.arch(learner.options.min_temperature, learner.options.threshold)
    return {
        "warm_up_steps": learner.options.warm_up_steps,
        "network": learner.network.layout.describe(),
        "network_parameters": sum(weight.numel() for weight in learner.weights),
        "surviving_parameters": learner.network.count_surviving(arch, learner.options.threshold),
        "architecture_parameters": sum(tensor.numel() for tensor in learner.alpha_tensors),
        "alphas": {
            kind: {name: value.tolist() for name, value in alphas._asdict().items()}
            for kind, alphas in learner.alphas.items()
        },
    }


class Adapted(NamedTuple):
    """What the network that is adapted to a task says.

    Attributes:
        logits: of the queries, `(queries, ways)`.
        parameters: that survive in the network of this task.
    """

    logits: Tensor
    parameters: int


def adapt_to_task(
    learner: TaskLearner,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    options: Adaptation,
    generators: TaskGenerators,
) -> Adapted:
    """Learn a task from its support, weights and architecture, and answer its queries all at once.

    Batch normalisation uses the statistics of the queries, so the answers depend on each other: the published,
    transductive protocol (one query per class). Afterwards the learner is as it was before, moments included.

    Args:
        support, query: normalised images, `(images, 3, height, width)`.
        labels: of the support, in 0..ways - 1.
    """
    before = learner.tensors()
    learner.learn(
        support,
        labels,
        generators,
        steps=options.inner_steps,
        architecture_steps=round(options.inner_steps * options.architecture_share),
        batch=options.inner_batch_size,
        threshold=options.threshold,
        drop_path=0.0,
    )
    with torch.no_grad():
        arch = learner.arch(learner.options.min_temperature, options.threshold)
        logits = learner.network(query, arch, threshold=options.threshold)
        parameters = learner.network.count_surviving(arch, options.threshold)
    learner.load_tensors(before)
    return Adapted(logits, parameters)
