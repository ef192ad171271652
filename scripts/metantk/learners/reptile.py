"""Reptile: train on a task's batches, then move towards where that led ("facts", from boschresearch/metanas)."""

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from metantk.data.images import ImageData
from metantk.learners.base import Outcome, StepContext
from metantk.learners.episodic import TaskSampler, balanced, prepare, require_ways, steps_of_epoch
from metantk.meta_learning.reptile import learn_weights, make_adam, mean_displacements, step_on
from metantk.meta_learning.schedules import cosine_rate
from metantk.meta_learning.statistics import answer_by_support_statistics, take_statistics
from metantk.models import Model, Tasks
from metantk.options.learners.reptile import Options
from metantk.runtime import devices
from metantk.runtime.devices import generator, require_memory
from metantk.runtime.files import InputError


def outputs(options: Options, classes: int) -> int:
    return options.ways


class Learner:
    """Each outer step goes a share of the way to where the tasks' own trainings lead, on average."""

    extra = None

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        devices.set_precision(options.precision)
        self.options, self.network, self.data = options, network, data
        self.epochs, self.steps = options.epochs, options.steps_per_epoch
        self.sampler = TaskSampler(
            data, seed, tasks=options.meta_batch_size, ways=options.ways, shots=options.shots, queries=0
        )
        require_memory(
            options.meta_batch_size * options.inner_steps * options.inner_batch_size,
            side=data.images.shape[1],
            device=data.device,
            options="meta_batch_size, inner_steps, inner_batch_size",
        )
        self.optimiser = torch.optim.SGD(network.parameters(), lr=options.meta_lr)
        self.inner = inner_optimiser(network, "adam", rate=options.inner_lr, weight_decay=options.weight_decay)

    def lr(self, epoch: int) -> float:
        if self.options.lr_schedule == "constant":
            return self.options.meta_lr
        return cosine_rate(epoch, steps=self.epochs, rate=self.options.meta_lr)

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        return steps_of_epoch([self.sampler], epoch, first, self.steps)

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        """Each task takes batches of its images, sampled with replacement; the loss is that of its last batches.

        Its optimiser begins anew, so that a resumed training needs no state of it.
        """
        options, sampler = self.options, self.sampler
        inputs, _ = sampler.split(prepare(images, self.data, None, context))
        own = sampler.labels(sampler.shots, images.device)
        shape = (sampler.tasks, options.inner_steps * options.inner_batch_size)
        chosen = torch.randint(inputs.shape[1], shape, generator=context.generator("reptile batches"))
        chosen = devices.upload(chosen, images.device)
        tasks = torch.arange(sampler.tasks, device=images.device)[:, None]
        batches = [
            values.unflatten(1, (options.inner_steps, options.inner_batch_size))
            for values in (inputs[tasks, chosen], own[tasks, chosen])
        ]
        losses, correct = reptile_displacement(self.network, *batches, self.inner)
        return Outcome(losses[:, -1].mean(), correct[:, -1].sum(), sampler.tasks * options.inner_batch_size)


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Logits of the network trained on each task's supports, `(episodes, queries, ways)`.

    Batches are sampled with replacement, no larger than the support. All queries pass the network at once, and are
    normalised by the statistics of the supports where the tasks are not transductive.

    Raises:
        InputError: the tasks have not as many classes as those of the training.
    """
    options = model.learner
    require_ways(options.ways, tasks.ways)
    tasks = balanced(tasks)
    each = zip(tasks.support_images(), tasks.query_images(), strict=True)
    inductive = options.transductive and not tasks.transductive
    return torch.stack(
        [_logits(model, support, tasks.labels, query, inductive=inductive) for support, query in each]
    )


def classifier(model: Model, tasks: Tasks) -> nn.Module:
    """The network trained on one task, normalising as `scores` does; see `metantk.learners.base`."""
    require_ways(model.learner.ways, tasks.ways)
    tasks = balanced(tasks)
    support = tasks.support_images()[0]
    network = _adapted(model, support, tasks.labels)
    if model.learner.transductive:
        take_statistics(network, network, support)
    return network


def _logits(model: Model, support: Tensor, labels: Tensor, query: Tensor, *, inductive: bool) -> Tensor:
    """Of the queries of one task, `(queries, ways)`."""
    network = _adapted(model, support, labels)
    if inductive:
        return answer_by_support_statistics(network, network, support, query)
    with torch.no_grad():
        return network(query)


def _adapted(model: Model, support: Tensor, labels: Tensor) -> nn.Module:
    """A copy of the network trained on one task; in training mode where the learner is transductive."""
    options = model.learner
    network = copy.deepcopy(model.network).train(options.transductive)
    optimiser = inner_optimiser(network, "adam", rate=options.inner_lr, weight_decay=options.weight_decay)
    learn_weights(
        network,
        optimiser,
        support,
        labels,
        steps=options.test_steps,
        batch=min(options.inner_batch_size, len(labels)),
        generator=generator("reptile test", len(labels)),
    )
    return network


def inner_optimiser(
    network: nn.Module, name: Literal["sgd", "adam"], *, rate: float, weight_decay: float = 0.0
) -> Optimizer:
    """The optimiser of a task: plain SGD, or Adam without momentum (betas 0 and 0.999).

    Raises:
        InputError: another name.
    """
    match name:
        case "sgd":
            return SGD(network.parameters(), lr=rate, weight_decay=weight_decay)
        case "adam":
            return make_adam(network.parameters(), rate, weight_decay)
    raise InputError(f"the inner optimiser is {name!r}; it may be 'sgd' or 'adam'")


def reptile_displacement(
    network: nn.Module, images: Tensor, labels: Tensor, optimiser: Optimizer, *, keep_moments: bool = False
) -> tuple[Tensor, Tensor]:
    """Train on each task in turn from the same weights, and write minus the mean displacement to `.grad`.

    Plain SGD of rate 1 then moves the weights to the mean of the tasks' weights. Every task begins at the same
    weights and buffers; running averages end at the mean of what the tasks made of them.

    Args:
        images: `(tasks, steps, batch, 3, height, width)`; the minibatches of each task's steps.
        labels: int64 `(tasks, steps, batch)`.
        optimiser: of the network's parameters.
        keep_moments: carry the optimiser's state from task to task, as the published code does in meta-training;
            else each task starts with none.

    Returns:
        The loss before each step and how many of its batch were correct, `(tasks, steps)` each.
    """
    parameters = list(network.parameters())
    state = [*parameters, *network.buffers()]
    losses = torch.zeros(labels.shape[:2], dtype=parameters[0].dtype, device=labels.device)
    correct = torch.zeros(labels.shape[:2], dtype=torch.int64, device=labels.device)

    def learn(task: int) -> None:
        if not keep_moments:
            optimiser.state.clear()
        for step in range(images.shape[1]):
            logits = network(images[task, step])
            loss = functional.cross_entropy(logits, labels[task, step])
            step_on(loss, optimiser)
            losses[task, step] = loss.detach()
            correct[task, step] = (logits.detach().argmax(1) == labels[task, step]).sum()

    moves = mean_displacements(state, len(images), learn)
    for parameter, move in zip(parameters, moves, strict=False):
        parameter.grad = -move
    with torch.no_grad():
        for buffer, move in zip(network.buffers(), moves[len(parameters) :], strict=True):
            if buffer.is_floating_point():  # not the number of batches
                buffer.add_(move)
    return losses, correct
