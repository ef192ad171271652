"""What a search measures of an untrained candidate: one function per criterion, and the draws they share.

A criterion takes a `Setting`, the key of a draw and the masks of many candidates, and returns one value per
candidate, float64. Equal keys give equal weights and pictures.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk import transforms
from metantk.config import SearchOptions
from metantk.datasets.store import Split
from metantk.devices import generator, numpy_generator
from metantk.episodes import EpisodeSampler
from metantk.kernels import condition_numbers, empirical_kernels, meta_ntk
from metantk.linear_regions import regions_of_candidates
from metantk.space.genotype import CELL_TYPES, SPACES, Space, cell_types
from metantk.space.supernet import Supernet, initialise
from metantk.storage import InputError

Key = tuple[int, ...]
Masks = dict[str, Tensor]

# Normalisation of the pictures in the published search: CIFAR-10's for kernels, miniImageNet's for regions.
KERNEL_MEAN, KERNEL_STD = [125.3 / 255, 123.0 / 255, 113.9 / 255], [63.0 / 255, 62.1 / 255, 66.7 / 255]
REGIONS_MEAN = [120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255]
REGIONS_STD = [70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255]
CROP_PADDING = 4  # pixels, before the random crop
# Activations of a chunk of candidates stay near a CPU's caches; on a GPU large chunks keep it busy.
CHUNK_NUMBERS = {"cpu": 2**19, "mps": 2**22, "cuda": 2**26}


class Setting(NamedTuple):
    """All that a search looks at.

    Attributes:
        options: the search options.
        cells: cells in the stack.
        channels: after the stem.
        train: the training split.
        device: where candidates are evaluated.
        advance: called with the number of candidates just evaluated, for a progress bar.
    """

    options: SearchOptions
    cells: int
    channels: int
    train: Split
    device: torch.device
    advance: Callable[[int], None]

    @property
    def space(self) -> Space:
        return SPACES[self.options.space]

    @property
    def classes(self) -> int:
        return len(self.train.class_names)


class Criterion(NamedTuple):
    """A measure and which way is better.

    Attributes:
        measure: `(setting, key, masks)` to `(candidates,)`.
        larger_is_better: whether the search keeps what makes the value large (regions) or small (conditions).
    """

    measure: Callable[[Setting, Key, Masks], np.ndarray]
    larger_is_better: bool


def meta_ntk_condition(setting: Setting, key: Key, masks: Masks) -> np.ndarray:
    """Condition number of the MetaNTK (paper, Eqs. 10, 11 and 14), lower is better.

    One batch of few-shot tasks of the training split; supports are augmented, queries are not (published code).
    """
    options = setting.options.meta_ntk
    pictures = _draw_tasks(setting, key)

    def measure(network: Supernet, chunk: Masks) -> Tensor:
        ntk, nngp = empirical_kernels(network, pictures, chunk)
        kernel = meta_ntk(
            ntk,
            ntk if options.kernel == "maml" else nngp,
            tasks=options.tasks,
            queries=options.ways * options.queries,
            supports=options.ways * options.shots,
            time=float("inf") if options.time == "infinite" else options.time,
            ridge=options.ridge,
        )
        return condition_numbers(kernel)

    return _over_chunks(setting, key, masks, options.ways, len(pictures), measure)


def ntk_condition(setting: Setting, key: Key, masks: Masks) -> np.ndarray:
    """Condition number of the NTK of the supervised network (TE-NAS, Section 3.1.1), lower is better."""
    pictures = _draw_pictures(setting, key)

    def measure(network: Supernet, chunk: Masks) -> Tensor:
        return condition_numbers(empirical_kernels(network, pictures, chunk)[0])

    return _over_chunks(setting, key, masks, setting.classes, len(pictures), measure)


def linear_regions(setting: Setting, key: Key, masks: Masks) -> np.ndarray:
    """Number of linear regions of the thin network (paper, Eq. 15; TE-NAS, Section 3.2.1), higher is better.

    The thin network: one channel, a normal and a reduction cell, no stem, batch norm over a batch.
    """
    network = Supernet(
        setting.space, _union(masks), list(CELL_TYPES), 1, outputs=None, norm="batch", inputs=1, stem=False
    )
    initialise(network, setting.options.initialisation, generator("thin weights", *key))
    network.to(setting.device)
    batches = _draw_crops(setting, key)
    values = []
    for chunk in _chunks(masks, size=16):
        values.append(regions_of_candidates(network, batches, _to(chunk, setting.device)))
        setting.advance(len(values[-1]))
    return np.concatenate(values).astype(np.float64)


CRITERIA: dict[str, Criterion] = {
    "meta_ntk_condition": Criterion(meta_ntk_condition, larger_is_better=False),
    "ntk_condition": Criterion(ntk_condition, larger_is_better=False),
    "linear_regions": Criterion(linear_regions, larger_is_better=True),
}


def _over_chunks(
    setting: Setting, key: Key, masks: Masks, outputs: int, pictures: int, measure: Callable
) -> np.ndarray:
    """Build one supernet, draw its weights, and measure all candidates on it, chunk by chunk."""
    kinds = cell_types(setting.cells)
    network = Supernet(setting.space, _union(masks), kinds, setting.channels, outputs=outputs)
    initialise(network, setting.options.initialisation, generator("weights", *key))
    network.to(setting.device)
    per_candidate = pictures * setting.channels * setting.options.image_size**2
    size = max(1, CHUNK_NUMBERS[setting.device.type] // per_candidate)
    values = []
    for chunk in _chunks(masks, size):
        values.append(measure(network, _to(chunk, setting.device)))
        setting.advance(len(values[-1]))
    return torch.cat(values).cpu().numpy()


def _union(masks: Masks) -> Masks:
    return {kind: mask.any(0) for kind, mask in masks.items()}


def _chunks(masks: Masks, size: int) -> Iterator[Masks]:
    for start in range(0, len(masks["normal"]), size):
        yield {kind: mask[start : start + size] for kind, mask in masks.items()}


def _to(masks: Masks, device: torch.device) -> Masks:
    return {kind: mask.to(device) for kind, mask in masks.items()}


def _draw_tasks(setting: Setting, key: Key) -> Tensor:
    """Pictures of the few-shot tasks: all queries task by task, then all supports."""
    options = setting.options.meta_ntk
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
    supports = _shake(supports, generator("augmentation", *key, device=setting.device))
    return transforms.normalise(torch.cat([queries, supports]), KERNEL_MEAN, KERNEL_STD)


def _draw_pictures(setting: Setting, key: Key) -> Tensor:
    count = setting.options.ntk.pictures
    if count > len(setting.train.labels):
        raise InputError(f"training split: {len(setting.train.labels)} pictures are too few for an NTK of {count}")
    numbers = numpy_generator("pictures", *key).choice(len(setting.train.labels), count, replace=False)
    pictures = _shake(_load(setting, numbers), generator("augmentation", *key, device=setting.device))
    return transforms.normalise(pictures, KERNEL_MEAN, KERNEL_STD)


def _draw_crops(setting: Setting, key: Key) -> list[Tensor]:
    """Batches of small one-channel parts of pictures, `(pictures, 1, crop_size, crop_size)` each."""
    options = setting.options.linear_regions
    draws = numpy_generator("crops", *key)
    numbers = draws.choice(
        len(setting.train.labels), options.pictures, replace=options.pictures > len(setting.train.labels)
    )
    channels = torch.from_numpy(draws.integers(3, size=options.pictures)).to(setting.device)
    pictures = transforms.random_crop(
        _load(setting, numbers), options.crop_size, 0, generator("crops", *key, device=setting.device)
    )
    pictures = transforms.normalise(pictures, REGIONS_MEAN, REGIONS_STD)
    pictures = pictures[torch.arange(len(pictures), device=setting.device), channels][:, None]
    return list(pictures.tensor_split(options.batches))


def _load(setting: Setting, numbers: np.ndarray) -> Tensor:
    """Pictures by number, resized, in 0..1, on the device."""
    chosen = torch.from_numpy(setting.train.images[numbers]).to(setting.device)
    return transforms.resize(transforms.to_float(chosen), setting.options.image_size)


def _shake(pictures: Tensor, draws: torch.Generator) -> Tensor:
    pictures = transforms.random_flip(pictures, draws)
    return transforms.random_crop(pictures, pictures.shape[-1], CROP_PADDING, draws)
