"""MetaNAS: weights and architecture are meta-learned together, and each task adapts both (Elsken et al. 2020).

The search `metanas` stops at the decoded meta-architecture; this learner is the model itself, on the backbone
`mixed`. Tasks are learned as in `metantk.meta_learning.metanas`; a test's queries are normalised by their own
statistics, all at once (transductive; the published protocol has one query per class, here they are as many as for
all rows).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from metantk.data.images import ImageData
from metantk.learners.base import Outcome, StepContext
from metantk.learners.episodic import TaskSampler, balanced, prepare, require_ways, steps_of_epoch
from metantk.meta_learning.metanas import (
    TaskGenerators,
    TaskLearner,
    adapt_to_task,
    initial_alphas,
    make_generators,
)
from metantk.meta_learning.reptile import mean_displacements
from metantk.models import Model, Tasks
from metantk.options.learners.metanas import Options
from metantk.runtime import devices
from metantk.runtime.files import InputError

WEIGHTS = "weights."


def outputs(options: Options, classes: int) -> int:
    return options.ways


class MetaState:
    """What is meta-learned beside the weights: the architecture and the moments of the tasks' optimisers."""

    def __init__(self, learner: TaskLearner) -> None:
        self.learner = learner

    def state_dict(self) -> dict[str, Tensor]:
        tensors = self.learner.tensors()
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(WEIGHTS)}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        own = self.learner.tensors()
        self.learner.load_tensors({name: own[name] for name in own if name.startswith(WEIGHTS)} | tensors)


class Learner:
    """Reptile on weights and architecture: minus the mean displacement of the tasks is the outer gradient."""

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        devices.set_precision(options.precision)
        self.options, self.network, self.data = options, network, data
        self.epochs, self.steps = options.epochs, options.steps_per_epoch
        self.sampler = TaskSampler(
            data, seed, tasks=options.meta_batch_size, ways=options.ways, shots=options.shots, queries=0
        )
        self.tasks = task_learner(network, options, seed, data.device)
        self.extra = MetaState(self.tasks)
        self.moving = [*self.tasks.weights, *self.tasks.alpha_tensors]
        self.optimiser = torch.optim.SGD(self.moving, lr=1.0)

    def lr(self, epoch: int) -> float:
        return 1.0  # the meta-rates, which differ, are in the gradients

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        return steps_of_epoch([self.sampler], epoch, first, self.steps)

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        """The loss is the mean of the tasks' last ones; it is of batches, so nothing is counted as correct."""
        options, sampler, device = self.options, self.sampler, images.device
        inputs, _ = sampler.split(prepare(images, self.data, None, context))
        own = torch.arange(options.ways, device=device).repeat_interleave(options.shots)
        warm = context.epoch < options.warm_up_epochs
        done = context.epoch * self.steps + context.step
        if done and done % options.prune_every_steps == 0:
            self.tasks.remove_tiny()
        losses = []

        def learn(index: int) -> None:
            losses.append(
                self.tasks.learn(
                    inputs[index],
                    own,
                    make_generators(device, *context, index),
                    steps=options.inner_steps,
                    architecture_steps=None if warm else options.inner_steps,
                    batch=options.inner_batch_size,
                    threshold=options.threshold,
                    drop_path=options.drop_path_rate,
                )
            )

        moves = mean_displacements(self.moving, options.meta_batch_size, learn)
        count = len(self.tasks.weights)
        rates = [options.meta_lr] * count + [options.arch_meta_lr] * (len(self.moving) - count)
        for tensor, move, rate in zip(self.moving, moves, rates, strict=True):
            tensor.grad = -rate * move
        loss = torch.tensor(sum(losses) / len(losses), device=device)
        return Outcome(loss, None, options.meta_batch_size * options.inner_batch_size)


def task_learner(network: nn.Module, options: Options, seed: int, device: torch.device) -> TaskLearner:
    """The learner of tasks on a backbone `mixed`.

    Raises:
        InputError: the backbone is another.
    """
    mixed = getattr(network, "mixed", None)
    if mixed is None:
        raise InputError("learner metanas: its backbone must be of kind mixed")
    return TaskLearner(mixed, initial_alphas(mixed.space, seed, device), options)


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Logits of the network that each task has adapted, weights and architecture, `(episodes, queries, ways)`.

    Raises:
        InputError: the tasks have not as many classes as those of the training.
    """
    options = model.learner
    require_ways(options.ways, tasks.ways)
    learner = task_learner(model.network, options, 0, model.device)
    MetaState(learner).load_state_dict(model.extra)
    model.network.train()
    tasks = balanced(tasks)
    each = zip(tasks.support_images(), tasks.query_images(), strict=True)
    generators: TaskGenerators = make_generators(model.device, "test", len(tasks.labels))
    with torch.enable_grad():
        answers = [
            adapt_to_task(
                learner,
                support,
                tasks.labels,
                query,
                options.adaptation,
                generators,
                inductive=not tasks.transductive,
            ).logits
            for support, query in each
        ]
    model.network.eval()
    return torch.stack(answers)
