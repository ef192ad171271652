"""Pictures that criteria look at: few-shot tasks, plain batches, tiny crops; drawn by key from the training split.

Options of single criteria are not imported here: an edit of one would search with all of them again.
"""

import numpy as np
import torch
from torch import Tensor

from metantk import transforms
from metantk.criteria.base import Key, Setting
from metantk.devices import generator, numpy_generator
from metantk.episodes import EpisodeSampler
from metantk.options.base import Options
from metantk.storage import InputError

# Normalisation of the pictures in the published search: CIFAR-10's for kernels, miniImageNet's for regions.
KERNEL_MEAN, KERNEL_STD = [125.3 / 255, 123.0 / 255, 113.9 / 255], [63.0 / 255, 62.1 / 255, 66.7 / 255]
REGIONS_MEAN = [120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255]
REGIONS_STD = [70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255]
CROP_PADDING = 4  # pixels, before the random crop


def draw_tasks(setting: Setting, options: Options, key: Key) -> Tensor:
    """Pictures of the few-shot tasks: all queries task by task, then all supports.

    Args:
        options: with `tasks`, `ways`, `shots` and `queries`.
    """
    sampler = EpisodeSampler(
        setting.train.labels,
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        where="training split, tasks of the MetaNTK",
    )
    draws = numpy_generator("tasks", *key)
    tasks = [sampler.draw(draws) for _ in range(options.tasks)]
    queries = _load(setting, np.concatenate([task.query.ravel() for task in tasks]))
    supports = _load(setting, np.concatenate([task.support.ravel() for task in tasks]))
    supports = _shake(supports, generator("augmentation", *key))
    return transforms.normalise(torch.cat([queries, supports]), KERNEL_MEAN, KERNEL_STD)


def draw_batch(setting: Setting, count: int, key: Key, what: str = "an NTK") -> Tensor:
    """`count` different pictures of any class, augmented; `what` they are for is told where they are too few."""
    _check_count(setting, count, what)
    numbers = numpy_generator("pictures", *key).choice(len(setting.train.labels), count, replace=False)
    pictures = _shake(_load(setting, numbers), generator("augmentation", *key))
    return transforms.normalise(pictures, KERNEL_MEAN, KERNEL_STD)


def draw_labelled(setting: Setting, options: Options, key: Key, batch: int = 0) -> tuple[Tensor, Tensor]:
    """Augmented pictures with labels: of a few-shot task, or of any class.

    Args:
        options: with `draw`, `pictures` and `ways`.
        batch: number of the batch, for criteria that compare several; another one is another task.

    Returns:
        `(pictures, 3, height, width)` and int64 `(pictures,)`, classes of the task numbered from 0.
    """
    draws = numpy_generator("labelled", *key, batch)
    if options.draw == "episode":
        sampler = EpisodeSampler(
            setting.train.labels,
            ways=options.ways,
            shots=options.pictures // options.ways,
            queries=0,
            where="training split, criteria.gradients",
        )
        support = sampler.draw(draws).support
        numbers, labels = support.ravel(), np.repeat(np.arange(options.ways), support.shape[1])
    else:
        _check_count(setting, options.pictures, "a batch")
        numbers = draws.choice(len(setting.train.labels), options.pictures, replace=False)
        labels = setting.train.labels[numbers]
    pictures = _shake(_load(setting, numbers), generator("augmentation", *key, batch))
    labels = torch.from_numpy(np.asarray(labels, np.int64)).to(setting.device)
    return transforms.normalise(pictures, KERNEL_MEAN, KERNEL_STD), labels


def _check_count(setting: Setting, count: int, what: str) -> None:
    if count > len(setting.train.labels):
        raise InputError(f"training split: {len(setting.train.labels)} pictures are too few for {what} of {count}")


def draw_crops(setting: Setting, options: Options, key: Key) -> list[Tensor]:
    """Batches of small one-channel parts of pictures, `(pictures, 1, crop_size, crop_size)` each.

    Args:
        options: with `pictures`, `batches` and `crop_size`.

    Raises:
        InputError: crops are larger than the pictures.
    """
    if options.crop_size > setting.image_size:
        raise InputError(
            f"criteria.linear_regions: crop_size {options.crop_size} is larger than image_size {setting.image_size}"
        )
    draws = numpy_generator("crops", *key)
    numbers = draws.choice(
        len(setting.train.labels), options.pictures, replace=options.pictures > len(setting.train.labels)
    )
    channels = torch.from_numpy(draws.integers(3, size=options.pictures)).to(setting.device)
    pictures = transforms.random_crop(_load(setting, numbers), options.crop_size, 0, generator("crops", *key))
    pictures = transforms.normalise(pictures, REGIONS_MEAN, REGIONS_STD)
    pictures = pictures[torch.arange(len(pictures), device=setting.device), channels][:, None]
    return list(pictures.tensor_split(options.batches))


def _load(setting: Setting, numbers: np.ndarray) -> Tensor:
    """Pictures by number, resized, in 0..1, on the device; devices differ by the rounding of the setting's type."""
    chosen = torch.from_numpy(setting.train.images[numbers]).to(setting.device)
    return transforms.resize(transforms.to_float(chosen, setting.dtype), setting.image_size)


def _shake(pictures: Tensor, draws: torch.Generator) -> Tensor:
    return transforms.random_crop(pictures, pictures.shape[-1], CROP_PADDING, draws, flip=True)
