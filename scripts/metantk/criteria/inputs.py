"""Images that criteria look at: few-shot tasks, plain batches, tiny crops; drawn by key from the training split.

Options of single criteria are not imported here: an edit of one would search with all of them again.
"""

import numpy as np
import torch
from torch import Tensor

from metantk.criteria.base import Key, MeasurementContext
from metantk.data import transforms
from metantk.data.episodes import EpisodeSampler
from metantk.options.base import Options
from metantk.runtime import devices
from metantk.runtime.devices import generator, numpy_generator
from metantk.runtime.files import InputError

# Normalisation of the images in the published search: CIFAR-10's for kernels, miniImageNet's for regions.
KERNEL_MEAN, KERNEL_STD = [125.3 / 255, 123.0 / 255, 113.9 / 255], [63.0 / 255, 62.1 / 255, 66.7 / 255]
REGIONS_MEAN = [120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255]
REGIONS_STD = [70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255]
CROP_PADDING = 4  # pixels, before the random crop


def draw_tasks(context: MeasurementContext, options: Options, key: Key) -> Tensor:
    """Images of the few-shot tasks: all queries task by task, then all supports.

    Args:
        options: with `tasks`, `ways`, `shots` and `queries`.
    """
    sampler = EpisodeSampler(
        context.train.labels,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        where="training split, tasks of the MetaNTK",
    )
    draws = numpy_generator("tasks", *key)
    tasks = [sampler.draw(draws) for _ in range(options.tasks)]
    queries = _load(context, np.concatenate([task.query.ravel() for task in tasks]))
    supports = _load(context, np.concatenate([task.support.ravel() for task in tasks]))
    supports = _shake(supports, generator("augmentation", *key))
    return transforms.normalise(torch.cat([queries, supports]), KERNEL_MEAN, KERNEL_STD)


def draw_batch(context: MeasurementContext, count: int, key: Key, what: str = "an NTK") -> Tensor:
    """`count` different images of any class, augmented; `what` they are for is told where they are too few."""
    _check_count(context, count, what)
    indices = numpy_generator("pictures", *key).choice(len(context.train.labels), count, replace=False)
    images = _shake(_load(context, indices), generator("augmentation", *key))
    return transforms.normalise(images, KERNEL_MEAN, KERNEL_STD)


def draw_labelled(context: MeasurementContext, options: Options, key: Key, batch: int = 0) -> tuple[Tensor, Tensor]:
    """Augmented images with labels: of a few-shot task, or of any class.

    Args:
        options: with `sampling`, `images` and `ways`.
        batch: number of the batch, for criteria that compare several; another one is another task.

    Returns:
        `(images, 3, height, width)` and int64 `(images,)`, classes of the task numbered from 0.
    """
    draws = numpy_generator("labelled", *key, batch)
    if options.sampling == "episode":
        sampler = EpisodeSampler(
            context.train.labels,
            ways=options.ways,
            shots=options.images // options.ways,
            queries=0,
            where="training split, criteria.gradients",
        )
        support = sampler.draw(draws).support
        indices, labels = support.ravel(), np.repeat(np.arange(options.ways), support.shape[1])
    else:
        _check_count(context, options.images, "a batch")
        indices = draws.choice(len(context.train.labels), options.images, replace=False)
        labels = context.train.labels[indices]
    images = _shake(_load(context, indices), generator("augmentation", *key, batch))
    labels = devices.upload(torch.from_numpy(np.asarray(labels, np.int64)), context.device)
    return transforms.normalise(images, KERNEL_MEAN, KERNEL_STD), labels


def _check_count(context: MeasurementContext, count: int, what: str) -> None:
    if count > len(context.train.labels):
        raise InputError(f"training split: {len(context.train.labels)} images are too few for {what} of {count}")


def draw_crops(context: MeasurementContext, options: Options, key: Key) -> list[Tensor]:
    """Batches of small one-channel parts of images, `(images, 1, crop_size, crop_size)` each.

    Args:
        options: with `images`, `batches` and `crop_size`.

    Raises:
        InputError: crops are larger than the images, or the images fill more than the memory.
    """
    if options.crop_size > context.image_size:
        raise InputError(
            f"criteria.linear_regions: crop_size {options.crop_size} is larger than image_size {context.image_size}"
        )
    devices.require_memory(
        options.images,
        side=max(context.train.images.shape[1], context.image_size),
        device=context.device,
        options="criteria.linear_regions: images",
    )
    draws = numpy_generator("crops", *key)
    indices = draws.choice(
        len(context.train.labels), options.images, replace=options.images > len(context.train.labels)
    )
    channels = devices.upload(torch.from_numpy(draws.integers(3, size=options.images)), context.device)
    images = transforms.random_crop(_load(context, indices), options.crop_size, 0, generator("crops", *key))
    images = transforms.normalise(images, REGIONS_MEAN, REGIONS_STD)
    images = images[torch.arange(len(images), device=context.device), channels][:, None]
    return list(images.tensor_split(options.batches))


def _load(context: MeasurementContext, indices: np.ndarray) -> Tensor:
    """Images by number, resized, in 0..1, on the device; devices differ by the rounding of the setting's type."""
    chosen = devices.upload(torch.from_numpy(context.train.images[indices]), context.device)
    return transforms.resize(transforms.to_float(chosen, context.dtype), context.image_size)


def _shake(images: Tensor, draws: torch.Generator) -> Tensor:
    return transforms.random_crop(images, images.shape[-1], CROP_PADDING, draws, flip=True)
