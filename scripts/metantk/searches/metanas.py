"""MetaNAS (Elsken et al. 2020): Reptile over tasks, each learned with DARTS and soft pruning.

A task learns weights and architecture (`metantk.meta_learning.metanas`), and the meta-parameters of both move
towards where the tasks led. The search's result is the decoded meta-architecture; the learner `metanas` (the
meta-trained network of Table 1) adapts the architecture to each task instead.
"""

import time
from dataclasses import asdict

import pandas as pd
import torch
from torch import Tensor

from metantk.backbones.initial import uniform_
from metantk.flops import count_operations
from metantk.meta_learning.metanas import TaskLearner, initial_alphas, make_generators
from metantk.meta_learning.reptile import check_loss, draw_batch, reptile_step
from metantk.options.searches.metanas import MetaNasOptions
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.decoding import decode_pairs, entropy, to_genotype
from metantk.searches.pacing import Pacer
from metantk.searches.tasks import TaskSource
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.space.layouts import few_shot_layout, metanas_layout
from metantk.space.mixed import MixedNetwork

Options = MetaNasOptions
ROWS = 200  # of the trace, about


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
    return TaskLearner(network.to(device), initial_alphas(space, seed, device), options)


def find(problem: Problem, options: MetaNasOptions, seed: int, checkpoint: Checkpoint) -> Found:
    """Search by meta-training.

    Costs are of the phases "warm-up" and "search"; an evaluation is a gradient step, of weights or architecture.
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
        first, rows = checkpoint.state["epoch"], checkpoint.state["rows"]
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
            check_loss(loss, finished, options)
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
    return Found(decode(learner), pd.DataFrame(rows), costs, _facts(learner), learner.tensors())


def decode(learner: TaskLearner) -> dict:
    """The genotype of the shared architecture."""
    space = learner.network.space
    nodes = {
        kind: decode_pairs(*(tensor.detach().cpu().numpy() for tensor in alphas), space)
        for kind, alphas in learner.alphas.items()
    }
    return to_genotype(nodes, space)


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
