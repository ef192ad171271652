"""RFS: plain classification of all training classes, then a linear classifier per task (paper, section 6.1).

Tian et al., "Rethinking few-shot image classification: a good embedding is all you need?", 2020.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from metantk.backbones.drop import Drop
from metantk.data import transforms
from metantk.data.images import ImageData
from metantk.learners import linear
from metantk.learners.base import Outcome, StepContext
from metantk.models import Model, OnFeatures, Tasks
from metantk.options.learners.rfs import Options
from metantk.runtime import devices
from metantk.runtime.devices import generator

CLASSIFIERS = {"logistic_regression": linear.logistic_regression, "svm": linear.hinge_loss}


def outputs(options: Options, classes: int) -> int:
    return classes


class Learner:
    """Stochastic gradient descent on the cross-entropy of all training classes."""

    extra = None

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        devices.set_precision(options.precision)
        self.options, self.network, self.data, self.seed = options, network, data, seed
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self.epochs = options.epochs
        self.batch_size = min(options.batch_size, len(data.labels))
        self.steps = len(data.labels) // self.batch_size

    def lr(self, epoch: int) -> float:
        passed = sum(epoch >= milestone for milestone in self.options.falls)
        return self.options.lr * self.options.lr_decay**passed

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        """Shuffled; an incomplete last batch is dropped."""
        order = torch.randperm(len(self.data.labels), generator=generator("order", self.seed, epoch))
        for step in range(first, self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        inputs = transforms.augment(images, self.options.augmentation, context.generator("augmentation"))
        inputs = transforms.normalise(inputs, self.data.mean, self.data.std)
        drop = Drop(
            self.options.drop_rate,
            progress=(context.epoch + 1) / self.epochs,
            step=context.epoch * self.steps + context.step,
            generator=context.generator("drop path", images.device),
        )
        with devices.lowered(self.options.precision, images.device):
            logits = self.network(inputs, drop)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        return Outcome(loss.detach(), (logits.detach().argmax(1) == labels).sum(), len(labels))


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Of the linear classifier of each task on features divided by their L2 norm, `(episodes, queries, ways)`."""
    support, labels = tasks.augmented_features()
    support, query = (nn.functional.normalize(features, dim=-1) for features in (support, tasks.query_features()))
    return CLASSIFIERS[tasks.classifier](support, labels, query, ways=tasks.ways)


def classifier(model: Model, tasks: Tasks) -> nn.Module:
    """The logistic regression of one task, with the network below it; see `metantk.learners.base`."""
    support, labels = tasks.augmented_features()
    support = nn.functional.normalize(support[0], dim=-1)
    weight, bias = linear.logistic_weights(support, labels, ways=tasks.ways)
    return OnFeatures(model.network, weight, bias, normalises=True)
