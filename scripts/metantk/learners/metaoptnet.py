"""MetaOptNet: features that a convex classifier of each task can use; gradients go through its solution.

Lee et al., "Meta-learning with differentiable convex optimization", 2019. As in the published code, the epoch that
is best on validation episodes is the result.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from metantk.backbones.drop import Drop
from metantk.data import transforms
from metantk.data.images import ImageData
from metantk.learners import heads
from metantk.learners.base import Outcome, StepContext
from metantk.learners.episodic import TaskSampler, prepare, steps_of_epoch
from metantk.meta_learning.balance import support_weights
from metantk.models import Model, OnFeatures, Tasks
from metantk.options.learners.metaoptnet import Options
from metantk.runtime import devices


def outputs(options: Options, classes: int) -> int:
    """Of the network's own head, which is not used."""
    return options.ways


class Scale(nn.Module):
    """The learned factor of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class Learner:
    """Stochastic gradient descent with Nesterov momentum on the loss of tasks' queries."""

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        devices.set_precision(options.precision)
        self.options, self.network, self.data, self.seed = options, network, data, seed
        self.epochs, self.steps = options.epochs, options.steps_per_epoch
        self.validate = self._validate if options.validation_episodes else None
        self.validated = options.validation_episodes * options.ways * options.validation_queries
        self.sampler = TaskSampler(
            data,
            seed,
            tasks=options.meta_batch_size,
            ways=options.ways,
            shots=options.shots,
            queries=options.queries,
        )
        self.extra = Scale().to(data.device)
        self.parameters = [*network.parameters(), *self.extra.parameters()]
        self.optimiser = torch.optim.SGD(
            self.parameters,
            lr=options.lr,
            momentum=options.momentum,
            nesterov=True,
            weight_decay=options.weight_decay,
        )

    def lr(self, epoch: int) -> float:
        return self.options.lr * self.options.factor(epoch)

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        return steps_of_epoch([self.sampler], epoch, first, self.steps)

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        """Supports and queries pass the network apart, each with statistics of their own (published code)."""
        sampler, device = self.sampler, images.device
        drop = Drop(
            self.options.drop_rate,
            progress=(context.epoch + 1) / self.epochs,
            step=context.epoch * self.steps + context.step,
            generator=context.generator("drop", device),
        )
        inputs = prepare(images, self.data, self.options.augmentation, context)
        with devices.lowered(self.options.precision, device):
            support, query = (
                self.network.features(images.flatten(0, 1), drop).float().unflatten(0, images.shape[:2])
                for images in sampler.split(inputs)
            )
        logits = self.extra.scale * task_logits(
            self.options, support, sampler.labels(sampler.shots, device), query, ways=sampler.ways
        )
        targets = sampler.labels(sampler.queries, device).flatten()
        probabilities = smoothed(targets, sampler.ways, self.options.label_smoothing)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), probabilities)
        loss.backward()
        correct = (logits.detach().flatten(0, 1).argmax(1) == targets).sum()
        return Outcome(loss.detach(), correct, len(targets))

    def validation_tasks(self, data: ImageData) -> TaskSampler:
        """Raises `InputError` where the split has too little for them."""
        options = self.options
        return TaskSampler(
            data,
            self.seed,
            tasks=1,
            ways=options.ways,
            shots=options.validation_shots,
            queries=options.validation_queries,
            where="validation split",
        )

    @torch.no_grad()
    def _validate(self, data: ImageData, epoch: int, advance: Callable[[], None]) -> float:
        """Episodes of an epoch's own; the network is in evaluation mode, and images are not augmented."""
        options, shots, queries = self.options, self.options.validation_shots, self.options.validation_queries
        sampler = self.validation_tasks(data)
        indices = range(options.validation_episodes)
        chunks = [indices[first : first + options.meta_batch_size] for first in indices[:: options.meta_batch_size]]
        orders = (torch.cat([sampler.indices(epoch, index) for index in chunk]) for chunk in chunks)
        labels = sampler.labels(shots, data.device)
        targets = sampler.labels(queries, data.device)
        self.network.eval()
        correct = torch.zeros((), dtype=torch.int64, device=data.device)
        for images, _ in data.batches(orders):
            prepared = transforms.normalise(transforms.to_float(images), data.mean, data.std)
            features = self.network.features(prepared).unflatten(0, (-1, sampler.size))
            support, query = features.split([options.ways * shots, options.ways * queries], dim=1)
            logits = task_logits(options, support, labels.expand(len(support), -1), query, ways=options.ways)
            correct += (logits.argmax(-1) == targets).sum()
            advance()
        return 100 * correct.item() / (options.validation_episodes * targets.numel())


def task_logits(
    options: Options, support: Tensor, labels: Tensor, query: Tensor, *, ways: int, weights: Tensor | None = None
) -> Tensor:
    """Of the classifier of each task, `(tasks, queries, ways)`, without the scale; `weights` are of supports."""
    if options.head == "svm":
        return heads.svm_logits(support, labels, query, ways=ways, penalty=options.svm_c, weights=weights)
    return heads.ridge_logits(support, labels, query, ways=ways, ridge=options.ridge, weights=weights)


def smoothed(labels: Tensor, ways: int, smoothing: float) -> Tensor:
    """Target probabilities `(queries, ways)`: the true class has 1 - smoothing, and the others share the rest.

    As published; `label_smoothing` of PyTorch's cross-entropy shares it among all classes.
    """
    others = torch.full((len(labels), ways), smoothing / (ways - 1), device=labels.device)
    return others.scatter_(1, labels[:, None], 1 - smoothing)


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Scaled logits of the classifier of each task, `(episodes, queries, ways)`; supports are not augmented."""
    support, query = tasks.support_features(), tasks.query_features()
    labels = tasks.labels.expand(len(support), -1)
    weights = support_weights(tasks.labels, tasks.ways)
    logits = task_logits(model.learner, support, labels, query, ways=tasks.ways, weights=weights)
    return model.extra["scale"] * logits


def classifier(model: Model, tasks: Tasks) -> nn.Module:
    """The convex classifier of one task, with the network below it; see `metantk.learners.base`.

    Its logits are linear in a query's features: the weights are their derivative.
    """
    support, labels = tasks.support_features().clone(), tasks.labels[None]
    weights = support_weights(tasks.labels, tasks.ways)

    def logits(query: Tensor) -> Tensor:
        found = task_logits(model.learner, support, labels, query[None, None], ways=tasks.ways, weights=weights)
        return found[0, 0]

    weight = torch.autograd.functional.jacobian(logits, support.new_zeros(support.shape[-1]))
    return OnFeatures(model.network, model.extra["scale"] * weight, None, normalises=False)
