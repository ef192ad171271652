"""What a search measures of an untrained candidate: one function per criterion, and the draws they share.

A criterion takes a `Setting`, the key of a draw and the masks of many candidates, and returns one value per
candidate. Equal keys give equal weights and pictures. Candidates go through in chunks: on a GPU one after another,
and kernels stay there until the last one; on a CPU side by side, one thread each. The patterns of linear regions
are counted on the CPU chunk by chunk.
"""

import copy
import logging
import math
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from metantk import devices, transforms
from metantk.config import SearchOptions
from metantk.datasets.store import Split
from metantk.devices import generator, numpy_generator
from metantk.episodes import EpisodeSampler
from metantk.kernels import Kernels, condition_numbers, empirical_kernels, meta_ntk, spectral_entropies
from metantk.linear_regions import regions_of_candidates
from metantk.space.genotype import CELL_TYPES, SPACES, Space, cell_types
from metantk.space.supernet import Supernet, initialise
from metantk.storage import InputError

log = logging.getLogger("metantk")
Key = tuple[int, ...]
Masks = dict[str, Tensor]
T = TypeVar("T")

# Normalisation of the pictures in the published search: CIFAR-10's for kernels, miniImageNet's for regions.
KERNEL_MEAN, KERNEL_STD = [125.3 / 255, 123.0 / 255, 113.9 / 255], [63.0 / 255, 62.1 / 255, 66.7 / 255]
REGIONS_MEAN = [120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255]
REGIONS_STD = [70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255]
CROP_PADDING = 4  # pixels, before the random crop
# The pictures of a chunk of candidates, as numbers after the stem, stay near a CPU's caches.
CHUNK_NUMBERS = 2**19
# On a GPU a chunk fills this share of the free memory, by an estimate of what the backward pass keeps: so many
# pictures' worth per remaining operation of a cell.
MEMORY_SHARE, KEPT_PER_OPERATION = 0.8, 8
CPU_MEMORY_SHARE = 0.5  # of all there is, for the chunks that go side by side
PATTERN_CHUNK = {"cpu": 16, "mps": 16, "cuda": 128}  # candidates of a thin network, whose pictures are tiny


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

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.options.precision == "float64" else torch.float32


class Measured(NamedTuple):
    """Values of many candidates.

    Attributes:
        values: `(candidates,)` float64; infinite, towards the worse, where a candidate has none.
        operations: floating-point operations of its kernels; 0 for a criterion without kernels.
    """

    values: np.ndarray
    operations: int


class Criterion(NamedTuple):
    """A measure and which way is better.

    Attributes:
        measure: of many candidates at once.
        larger_is_better: whether the search keeps what makes the value large (regions) or small (conditions).
    """

    measure: Callable[[Setting, Key, Masks], Measured]
    larger_is_better: bool


def meta_ntk_condition(setting: Setting, key: Key, masks: Masks) -> Measured:
    """Condition number of the MetaNTK (paper, Eqs. 10, 11 and 14), lower is better.

    One batch of few-shot tasks of the training split; supports are augmented, queries are not (published code).
    """
    options = setting.options.meta_ntk
    kernels = _kernels(setting, key, masks, _draw_tasks(setting, key), outputs=options.ways)
    adapted = meta_ntk(
        kernels.ntk,
        kernels.ntk if options.kernel == "maml" else kernels.nngp,
        tasks=options.tasks,
        queries=options.ways * options.queries,
        supports=options.ways * options.shots,
        time=float("inf") if options.time == "infinite" else options.time,
        ridge=options.ridge,
    )
    return Measured(condition_numbers(adapted).numpy(), kernels.operations)


def ntk_condition(setting: Setting, key: Key, masks: Masks) -> Measured:
    """Condition number of the NTK of the supervised network (TE-NAS, Section 3.1.1), lower is better."""
    kernels = _kernels(setting, key, masks, _draw_pictures(setting, key), outputs=setting.classes)
    return Measured(condition_numbers(kernels.ntk).numpy(), kernels.operations)


def ntk_spectral_entropy(setting: Setting, key: Key, masks: Masks) -> Measured:
    """Entropy of the supervised NTK's normalised eigenvalues (such a score is used by IBFS, Kang, ICML 2025).

    Higher is better: all directions are learned at a like rate. Equal keys give the very kernels of
    `ntk_condition`.
    """
    kernels = _kernels(setting, key, masks, _draw_pictures(setting, key), outputs=setting.classes)
    return Measured(spectral_entropies(kernels.ntk).numpy(), kernels.operations)


def linear_regions(setting: Setting, key: Key, masks: Masks) -> Measured:
    """Number of linear regions of the thin network (paper, Eq. 15; TE-NAS, Section 3.2.1), higher is better.

    The thin network: one channel, a normal and a reduction cell, no stem, batch norm over a batch.
    """
    network = Supernet(
        setting.space, _union(masks), list(CELL_TYPES), 1, outputs=None, norm="batch", inputs=1, stem=False
    )
    initialise(network, setting.options.initialisation, generator("thin weights", *key))
    network.to(setting.device, setting.dtype)
    batches = _draw_crops(setting, key)
    size = PATTERN_CHUNK[setting.device.type]
    workers = torch.get_num_threads() if setting.device.type == "cpu" else 1
    counts = _over_chunks(
        setting, network, masks, size, workers, lambda own, chunk: regions_of_candidates(own, batches, chunk)
    )
    return Measured(np.concatenate(counts).astype(np.float64), operations=0)


CRITERIA: dict[str, Criterion] = {
    "meta_ntk_condition": Criterion(meta_ntk_condition, larger_is_better=False),
    "ntk_condition": Criterion(ntk_condition, larger_is_better=False),
    "ntk_spectral_entropy": Criterion(ntk_spectral_entropy, larger_is_better=True),
    "linear_regions": Criterion(linear_regions, larger_is_better=True),
}


def _kernels(setting: Setting, key: Key, masks: Masks, pictures: Tensor, *, outputs: int) -> Kernels:
    """Build one supernet, draw its weights, and compute the kernels of all candidates; the result on the CPU."""
    remaining = _union(masks)
    network = Supernet(setting.space, remaining, cell_types(setting.cells), setting.channels, outputs=outputs)
    initialise(network, setting.options.initialisation, generator("weights", *key))
    network.to(setting.device, setting.dtype)
    numbers = pictures[:, 0].numel() * setting.channels
    operations = sum(int(mask.sum()) for mask in remaining.values())
    bytes_each = KEPT_PER_OPERATION * max(1, operations) * numbers * pictures.element_size()
    size = _chunk_size(setting, numbers=numbers, bytes_each=bytes_each)
    workers = _workers(setting, size * bytes_each)
    masks = {kind: mask.to(setting.device) for kind, mask in masks.items()}
    chunks = _over_chunks(
        setting, network, masks, size, workers, lambda own, chunk: empirical_kernels(own, pictures, chunk)
    )
    ntk, nngp = (torch.cat([getattr(chunk, name) for chunk in chunks]).cpu() for name in ("ntk", "nngp"))
    return Kernels(ntk, nngp, sum(chunk.operations for chunk in chunks))


def _chunk_size(setting: Setting, *, numbers: int, bytes_each: int) -> int:
    """Candidates that go through at once; `numbers`: of one candidate's pictures after the stem."""
    if setting.device.type != "cuda":
        return max(1, CHUNK_NUMBERS // numbers)
    free, _ = torch.cuda.mem_get_info(setting.device)
    free += torch.cuda.memory_reserved(setting.device) - torch.cuda.memory_allocated(setting.device)
    return max(1, int(MEMORY_SHARE * free) // bytes_each)


def _workers(setting: Setting, bytes_each: int) -> int:
    """Chunks that go side by side: on a CPU as many as there are threads and room."""
    if setting.device.type != "cpu":
        return 1
    room = int(CPU_MEMORY_SHARE * devices.physical_memory())
    return max(1, min(torch.get_num_threads(), room // bytes_each))


def _over_chunks(
    setting: Setting,
    network: Supernet,
    masks: Masks,
    size: int,
    workers: int,
    measure: Callable[[Supernet, Masks], T],
) -> list[T]:
    """Measure all candidates, chunk by chunk; chunks are halved as often as the device runs out of memory."""
    count = len(masks["normal"])
    if workers > 1:
        size = min(size, math.ceil(count / workers))
        chunks = [
            {kind: mask[start : start + size] for kind, mask in masks.items()} for start in range(0, count, size)
        ]
        networks = [copy.deepcopy(network) for _ in range(min(workers, len(chunks)))]
        return _side_by_side(setting, networks, chunks, measure)
    results: list[T] = []
    start = 0
    while start < count:
        chunk = {kind: mask[start : start + size] for kind, mask in masks.items()}
        result = _within_memory(lambda chunk: measure(network, chunk), chunk, can_shrink=size > 1)
        if result is None:
            size = (min(size, count - start) + 1) // 2
            log.warning("out of memory: going on with %d candidates at a time", size)
            continue
        results.append(result)
        start += size
        setting.advance(len(chunk["normal"]))
    return results


def _side_by_side(
    setting: Setting, networks: list[Supernet], chunks: list[Masks], measure: Callable[[Supernet, Masks], T]
) -> list[T]:
    """Measure each chunk in a thread of its own, among which PyTorch's threads are divided.

    Two chunks with a thread each take less time than one after the other with two: most operations are small. Each
    has one of the networks, alike, for itself, because hooks are a network's own.
    """
    threads = torch.get_num_threads()
    idle: queue.SimpleQueue[Supernet] = queue.SimpleQueue()
    for network in networks:
        idle.put(network)

    def work(chunk: Masks) -> T:
        torch.set_num_threads(max(1, threads // len(networks)))
        network = idle.get()
        try:
            return measure(network, chunk)
        finally:
            idle.put(network)

    results: list[T] = []
    pool = ThreadPoolExecutor(len(networks))
    try:
        for chunk, future in zip(chunks, [pool.submit(work, chunk) for chunk in chunks], strict=True):
            results.append(future.result())
            setting.advance(len(chunk["normal"]))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return results


def _within_memory(measure: Callable[[Masks], T], chunk: Masks, *, can_shrink: bool) -> T | None:
    """None if the device ran out of memory. What the failed attempt held is free once this has returned."""
    try:
        return measure(chunk)
    except torch.OutOfMemoryError:
        if not can_shrink:
            raise InputError(
                "out of memory with a single candidate: use fewer channels or pictures, or a larger GPU"
            ) from None
    torch.cuda.empty_cache()
    return None


def _union(masks: Masks) -> Masks:
    return {kind: mask.any(0) for kind, mask in masks.items()}


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
    return transforms.resize(transforms.to_float(chosen), setting.options.image_size).to(setting.dtype)


def _shake(pictures: Tensor, draws: torch.Generator) -> Tensor:
    return transforms.random_crop(pictures, pictures.shape[-1], CROP_PADDING, draws, flip=True)
