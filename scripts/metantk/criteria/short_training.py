"""Accuracy on validation episodes after a short training: what criteria without training compete with.

Each architecture is trained by itself, so that a measurement costs what its training costs. Supports and queries
are compared by the cosines of their features to the classes' means: no classifier is fitted.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from metantk.backbones import cells
from metantk.backbones.counting import count_macs
from metantk.backbones.initial import uniform_
from metantk.criteria.base import Criterion, Masks, Measured, MeasurementContext, RandomKeys
from metantk.criteria.inputs import KERNEL_MEAN, KERNEL_STD
from metantk.data import transforms
from metantk.data.episodes import EpisodeSampler
from metantk.data.store import Split
from metantk.options.augmentation import AugmentationOptions
from metantk.options.criteria.short_training import ShortTrainingOptions
from metantk.runtime import devices
from metantk.runtime.devices import generator
from metantk.space.genotype import to_genotype

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of RFS
IMAGES_AT_ONCE = 256


def measure(
    context: MeasurementContext, options: ShortTrainingOptions, draws: RandomKeys, masks: Masks
) -> Measured:
    values, operations = [], 0
    for index in range(len(masks["normal"])):
        mask = {kind: candidates[index] for kind, candidates in masks.items()}
        accuracy, spent = train_and_test(context, options, draws, mask, [options.epochs])[0]
        values.append(accuracy)
        operations += spent
        context.advance(1)
    return Measured(np.array(values, np.float64), operations)


def train_and_test(
    context: MeasurementContext, options: ShortTrainingOptions, draws: RandomKeys, mask: Masks, epochs: list[float]
) -> list[tuple[float, int]]:
    """Accuracy in percent after each of `epochs` (ascending) of one training, and operations spent up to there.

    Args:
        mask: of one architecture, `(edges, operations)` for each cell type.
    """
    channels = options.channels or context.channels
    genotype = to_genotype(context.operations, mask)
    network = cells.stack(genotype, cells=context.cells, channels=channels, classes=context.classes)
    uniform_(network, generator("short training", *draws.weights))
    network.to(context.device)
    macs = count_macs(network, context.image_size)
    images = len(context.train.labels)
    steps = [max(1, round(each * images / options.batch_size)) for each in epochs]
    results, trained = [], 0
    for index in _train(network, context, options, draws, steps[-1]):
        if index in steps:
            trained = index * options.batch_size
            # A backward pass costs two forward passes; a multiply-accumulate is two operations.
            operations = 2 * macs * (3 * trained + len(context.val.labels))
            results += [(_test(network, context, options), operations)] * steps.count(index)
    return results


def _train(
    network: nn.Module, context: MeasurementContext, options: ShortTrainingOptions, draws: RandomKeys, steps: int
) -> Iterator[int]:
    """Numbers of the steps that are done, from 1 on."""
    optimiser = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    augmentation = AugmentationOptions(padding=options.padding, jitter=0.0)
    augmenting = generator("short augmentation", *draws.images)
    labels = devices.upload(torch.from_numpy(np.asarray(context.train.labels)), context.device)
    for step, indices in enumerate(_batches(len(labels), options.batch_size, draws), start=1):
        network.train()
        images, indices = (
            devices.upload(torch.from_numpy(each), context.device)
            for each in (context.train.images[indices], indices)
        )
        images = _prepare(transforms.augment(images, augmentation, augmenting), context)
        nn.functional.cross_entropy(network(images), labels[indices]).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield step
        if step == steps:
            return


def _batches(images: int, size: int, draws: RandomKeys) -> Iterator[np.ndarray]:
    """Numbers of images, epoch after epoch without end; a batch may span two of them."""
    left = np.zeros(0, int)
    for epoch in count():
        order = torch.randperm(images, generator=generator("short order", *draws.images, epoch)).numpy()
        left = np.concatenate([left, order])
        while len(left) >= size:
            yield left[:size]
            left = left[size:]


def _prepare(images: Tensor, context: MeasurementContext) -> Tensor:
    return transforms.normalise(transforms.resize(images, context.image_size), KERNEL_MEAN, KERNEL_STD)


@torch.no_grad()
def _test(network: nn.Module, context: MeasurementContext, options: ShortTrainingOptions) -> float:
    """Mean accuracy of the validation episodes, in percent."""
    network.eval()
    features = nn.functional.normalize(_features(network, context), dim=1)
    sampler = EpisodeSampler(
        context.val.labels,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        where="validation split, episodes of short_training",
    )
    correct = []
    for episode in sampler.episodes(options.episodes, seed=0):
        support, query = (
            features[devices.upload(torch.from_numpy(indices), features.device)] for indices in episode
        )
        answers = (query.flatten(0, 1) @ support.mean(1).T).argmax(1)
        targets = torch.arange(options.ways, device=answers.device).repeat_interleave(options.queries)
        correct.append((answers == targets).double().mean())
    return 100 * float(torch.stack(correct).cpu().numpy().mean())


def _features(network: nn.Module, context: MeasurementContext) -> Tensor:
    val: Split = context.val
    parts = []
    for first in range(0, len(val.labels), IMAGES_AT_ONCE):
        images = torch.tensor(val.images[first : first + IMAGES_AT_ONCE])  # a copy: these are mapped read-only
        images = devices.upload(images, context.device)
        parts.append(network.features(_prepare(transforms.to_float(images), context)))
    return torch.cat(parts)


CRITERIA = {
    "short_training": Criterion(
        measure,
        larger_is_better=True,
        title="validation accuracy (%)\nafter short training",
        change="difference",
        options=ShortTrainingOptions,
    )
}
