"""Accuracy on validation episodes after a short training: what criteria without training compete with.

Each architecture is trained by itself, so that a measurement costs what its training costs. Supports and queries
are compared by the cosines of their features to the classes' means: no classifier is fitted.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from metantk import transforms
from metantk.backbones import cells
from metantk.backbones.counting import count_macs
from metantk.backbones.initial import uniform_
from metantk.criteria.base import Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.pictures import KERNEL_MEAN, KERNEL_STD
from metantk.datasets.store import Split
from metantk.devices import generator
from metantk.episodes import EpisodeSampler
from metantk.options.augmentation import AugmentationOptions
from metantk.options.criteria.short_training import ShortTrainingOptions
from metantk.space.genotype import to_genotype

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of RFS
PICTURES_AT_ONCE = 256


def measure(setting: Setting, options: ShortTrainingOptions, draws: Draws, masks: Masks) -> Measured:
    values, operations = [], 0
    for number in range(len(masks["normal"])):
        mask = {kind: candidates[number] for kind, candidates in masks.items()}
        accuracy, spent = train_and_test(setting, options, draws, mask, [options.epochs])[0]
        values.append(accuracy)
        operations += spent
        setting.advance(1)
    return Measured(np.array(values, np.float64), operations)


def train_and_test(
    setting: Setting, options: ShortTrainingOptions, draws: Draws, mask: Masks, epochs: list[float]
) -> list[tuple[float, int]]:
    """Accuracy in percent after each of `epochs` (ascending) of one training, and operations spent up to there.

    Args:
        mask: of one architecture, `(edges, operations)` for each cell type.
    """
    channels = options.channels or setting.channels
    genotype = to_genotype(setting.operations, mask)
    network = cells.stack(genotype, cells=setting.cells, channels=channels, classes=setting.classes)
    uniform_(network, generator("short training", *draws.weights))
    network.to(setting.device)
    macs = count_macs(network, setting.image_size)
    pictures = len(setting.train.labels)
    steps = [max(1, round(each * pictures / options.batch_size)) for each in epochs]
    results, trained = [], 0
    for number in _train(network, setting, options, draws, steps[-1]):
        if number in steps:
            trained = number * options.batch_size
            # A backward pass costs two forward passes; a multiply-accumulate is two operations.
            operations = 2 * macs * (3 * trained + len(setting.val.labels))
            results += [(_test(network, setting, options), operations)] * steps.count(number)
    return results


def _train(
    network: nn.Module, setting: Setting, options: ShortTrainingOptions, draws: Draws, steps: int
) -> Iterator[int]:
    """Numbers of the steps that are done, from 1 on."""
    optimiser = torch.optim.SGD(
        network.parameters(), lr=options.learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    augmentation = AugmentationOptions(padding=options.padding, jitter=0.0)
    augmenting = generator("short augmentation", *draws.pictures)
    labels = torch.from_numpy(np.asarray(setting.train.labels)).to(setting.device)
    for step, numbers in enumerate(_batches(len(labels), options.batch_size, draws), start=1):
        network.train()
        images = torch.from_numpy(setting.train.images[numbers]).to(setting.device)
        images = _prepare(transforms.augment(images, augmentation, augmenting), setting)
        nn.functional.cross_entropy(network(images), labels[torch.from_numpy(numbers)]).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield step
        if step == steps:
            return


def _batches(pictures: int, size: int, draws: Draws) -> Iterator[np.ndarray]:
    """Numbers of pictures, epoch after epoch without end; a batch may span two of them."""
    left = np.zeros(0, int)
    for epoch in count():
        order = torch.randperm(pictures, generator=generator("short order", *draws.pictures, epoch)).numpy()
        left = np.concatenate([left, order])
        while len(left) >= size:
            yield left[:size]
            left = left[size:]


def _prepare(images: Tensor, setting: Setting) -> Tensor:
    return transforms.normalise(transforms.resize(images, setting.image_size), KERNEL_MEAN, KERNEL_STD)


@torch.no_grad()
def _test(network: nn.Module, setting: Setting, options: ShortTrainingOptions) -> float:
    """Mean accuracy of the validation episodes, in percent."""
    network.eval()
    features = nn.functional.normalize(_features(network, setting), dim=1)
    sampler = EpisodeSampler(
        setting.val.labels,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        where="validation split, episodes of short_training",
    )
    right = []
    for episode in sampler.episodes(options.episodes, seed=0):
        support, query = (features[torch.from_numpy(numbers)] for numbers in episode)
        answers = (query.flatten(0, 1) @ support.mean(1).T).argmax(1)
        targets = torch.arange(options.ways, device=answers.device).repeat_interleave(options.queries)
        right.append(float((answers == targets).double().mean()))
    return 100 * float(np.mean(right))


def _features(network: nn.Module, setting: Setting) -> Tensor:
    val: Split = setting.val
    parts = []
    for first in range(0, len(val.labels), PICTURES_AT_ONCE):
        images = torch.from_numpy(val.images[first : first + PICTURES_AT_ONCE]).to(setting.device)
        parts.append(network.features(_prepare(transforms.to_float(images), setting)))
    return torch.cat(parts)


CRITERION = Criterion(
    measure,
    larger_is_better=True,
    title="validation accuracy (%)\nafter short training",
    change="difference",
    section="short_training",
    options=ShortTrainingOptions,
)
