"""RFS: plain classification of all training classes, then a linear classifier per task (paper, section 6.1).

Tian et al., "Rethinking few-shot image classification: a good embedding is all you need?", 2020.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from metantk import devices, transforms
from metantk.backbones.drop import Drop
from metantk.devices import generator
from metantk.learners import linear
from metantk.learners.base import Moment, Outcome
from metantk.models import Model, Tasks
from metantk.options.learners.rfs import Options
from metantk.training import Pictures

CLASSIFIERS = {"logistic_regression": linear.logistic_regression, "svm": linear.hinge_loss}


def outputs(options: Options, classes: int) -> int:
    return classes


class Learner:
    """Stochastic gradient descent on the cross-entropy of all training classes."""

    extra = None

    def __init__(self, options: Options, network: nn.Module, pictures: Pictures, seed: int) -> None:
        devices.set_precision(options.precision)
        devices.lowered(options.precision, pictures.device)  # refuses what the device cannot do
        self.options, self.network, self.pictures, self.seed = options, network, pictures, seed
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self.epochs = options.epochs
        self.batch_size = min(options.batch_size, len(pictures.labels))
        self.steps = len(pictures.labels) // self.batch_size

    def learning_rate(self, epoch: int) -> float:
        passed = sum(epoch >= milestone for milestone in self.options.falls)
        return self.options.learning_rate * self.options.decay**passed

    def numbers(self, epoch: int, first: int) -> Iterator[Tensor]:
        """Shuffled; an incomplete last batch is dropped."""
        order = torch.randperm(len(self.pictures.labels), generator=generator("order", self.seed, epoch))
        for step in range(first, self.steps):
            yield order[step * self.batch_size : (step + 1) * self.batch_size]

    def step(self, images: Tensor, labels: Tensor, moment: Moment) -> Outcome:
        pictures = transforms.augment(images, self.options.augmentation, moment.generator("augmentation"))
        pictures = transforms.normalise(pictures, self.pictures.mean, self.pictures.std)
        drop = Drop(
            self.options.drop_rate,
            progress=(moment.epoch + 1) / self.epochs,
            step=moment.epoch * self.steps + moment.step,
            generator=moment.generator("drop path", images.device),
        )
        with devices.lowered(self.options.precision, images.device):
            logits = self.network(pictures, drop)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        devices.backward(loss, self.network.parameters(), self.options.precision)
        return Outcome(loss.detach(), (logits.detach().argmax(1) == labels).sum(), len(labels))


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Of the linear classifier of each task on features divided by their L2 norm, `(episodes, queries, ways)`."""
    support, labels = tasks.augmented_features()
    support, query = (nn.functional.normalize(part, dim=-1) for part in (support, tasks.query_features()))
    return CLASSIFIERS[tasks.classifier](support, labels, query, ways=tasks.ways)
