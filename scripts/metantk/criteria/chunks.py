"""Many candidates through one supernet: kernels, chunks that fit the device, chunks side by side on a CPU.

Candidates go through in chunks: on a GPU one after another, and kernels stay there until the last one; on a CPU
side by side, one thread each.
"""

import copy
import logging
import math
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys
from metantk.kernels import Kernels, empirical_kernels
from metantk.runtime import devices
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.space.genotype import cell_types
from metantk.space.supernet import Supernet, initialise

log = logging.getLogger("metantk")
T = TypeVar("T")
MeasureChunk = Callable[[Supernet, Masks], dict[str, Measured]]

# The images of a chunk of candidates, as numbers after the stem, stay near a CPU's caches.
CHUNK_NUMBERS = 2**19
# On a GPU a chunk fills this share of the free memory, by an estimate of what the backward pass keeps: so many
# numbers per remaining operation and number of the cell's state (counted: 3.5 for kernels, 4.3 for gradients).
MEMORY_SHARE, KEPT_PER_OPERATION = 0.8, 4.5
SPARSE_SHARE = 0.5  # of the operations: candidates that have at most so many go through networks of their own
CPU_MEMORY_SHARE = 0.5  # of all there is, for the chunks that go side by side


def kernels_of_candidates(
    context: MeasurementContext, draws: RandomKeys, masks: Masks, images: Tensor, *, outputs: int
) -> Kernels:
    """Build one supernet, draw its weights, and compute the kernels of all candidates; the result on the CPU.

    Candidates that have heads of their own (`draws.head`) go through one by one.
    """
    network = build(context, draws, masks, outputs=outputs)

    def measure(own: Supernet, chunk: Masks) -> Kernels:
        chunk = {kind: devices.upload(mask, context.device) for kind, mask in chunk.items()}
        return empirical_kernels(own, images, chunk)

    chunks = over_candidates(context, draws, network, masks, images, measure)
    ntk, nngp = (torch.cat([getattr(chunk, name) for chunk in chunks]).cpu() for name in ("ntk", "nngp"))
    return Kernels(ntk, nngp, sum(chunk.operations for chunk in chunks))


def build(
    context: MeasurementContext,
    draws: RandomKeys,
    masks: Masks,
    *,
    outputs: int | None,
    norm: str = "group",
    dtype: torch.dtype | None = None,
    initialisation: str | None = None,
) -> Supernet:
    """The supernet of all operations that any candidate has, its weights drawn, on the device.

    Args:
        outputs: of the head; None for no head.
        norm: see `metantk.space.supernet.Norms`.
        dtype, initialisation: those of the context if left out.
    """
    kinds = cell_types(context.cells)
    network = Supernet(context.operations, union(masks), kinds, context.channels, outputs=outputs, norm=norm)
    initialise(network, initialisation or context.initialisation, generator("weights", *draws.weights))
    return network.to(context.device, dtype or context.dtype)


def over_candidates(
    context: MeasurementContext,
    draws: RandomKeys,
    network: Supernet,
    masks: Masks,
    images: Tensor,
    measure: Callable[[Supernet, Masks], T],
) -> list[T]:
    """Measure all candidates in chunks that fit the device.

    Candidates that have only a few of the network's operations (whole architectures of a random sample) go one by
    one through networks of their operations alone: the others would cost as much and add nothing.

    Args:
        images: that go through at once, for the size of the chunks.
        measure: of a network and the masks of some candidates, on the CPU.
    """
    counts = {kind: int(mask.sum()) for kind, mask in union(masks).items()}
    most = int(sum(mask.sum((1, 2)) for mask in masks.values()).max())
    are_sparse = most <= SPARSE_SHARE * sum(counts.values())
    numbers = images[:, 0].numel() * context.channels
    if are_sparse:
        counts = {kind: int(mask.sum((1, 2)).max()) for kind, mask in masks.items()}
    bytes_each = kept_numbers(counts, context.cells, numbers) * images.element_size()
    size = 1 if are_sparse else _chunk_size(context, numbers=numbers, bytes_each=bytes_each)
    workers = _workers(context, size * bytes_each)

    def on_own_network(own: Supernet, chunk: Masks) -> T:
        return measure(own.restricted(union(chunk)) if are_sparse else own, chunk)

    if draws.head is None or network.head is None:
        return over_chunks(context, network, masks, size, workers, on_own_network)
    results = []
    for number in range(len(masks["normal"])):
        initialise(network.head, context.initialisation, generator("head", *draws.head, number))
        alone = {kind: mask[number : number + 1] for kind, mask in masks.items()}
        results += over_chunks(context, network, alone, 1, 1, on_own_network)
    return results


def kept_numbers(operations: dict[str, int], cells: int, numbers: int) -> int:
    """Numbers that the backward pass keeps of a candidate, by an estimate.

    Args:
        operations: that remain, by type of cell.
        cells: of the stack.
        numbers: of the images after the stem; a reduction cell halves those of a state.
    """
    total, share = 0.0, 1.0
    for kind in cell_types(cells):
        share /= 2 if kind == "reduce" else 1
        total += share * operations[kind]
    return max(1, int(KEPT_PER_OPERATION * total * numbers))


def measure_in_chunks(
    context: MeasurementContext,
    draws: RandomKeys,
    masks: Masks,
    parts: Sequence[str],
    prepare: Callable[[], tuple[Supernet, Tensor, MeasureChunk]],
) -> dict[str, Measured]:
    """Measure all candidates by several criteria that share their networks and images.

    Args:
        prepare: makes the network, the images that go through at once, and what measures a chunk of candidates; its
            time is charged to all parts.

    Returns:
        By part, the values of all chunks one after the other, and their costs added up.
    """
    meter = CostMeter(parts)
    with meter.of():
        network, images, measure = prepare()
    chunks = over_candidates(context, draws, network, masks, images, measure)
    return {
        part: Measured(
            np.concatenate([chunk[part].values for chunk in chunks]),
            sum(chunk[part].operations for chunk in chunks),
            meter.seconds[part] + sum(chunk[part].seconds for chunk in chunks),
        )
        for part in parts
    }


def _chunk_size(context: MeasurementContext, *, numbers: int, bytes_each: int) -> int:
    """Candidates that go through at once; `numbers`: of one candidate's images after the stem."""
    if context.device.type != "cuda":
        return max(1, CHUNK_NUMBERS // numbers)
    free, _ = torch.cuda.mem_get_info(context.device)
    free += torch.cuda.memory_reserved(context.device) - torch.cuda.memory_allocated(context.device)
    return max(1, int(MEMORY_SHARE * free) // bytes_each)


def _workers(context: MeasurementContext, bytes_each: int) -> int:
    """Chunks that go side by side: on a CPU as many as there are threads and room."""
    if context.device.type != "cpu":
        return 1
    room = int(CPU_MEMORY_SHARE * devices.physical_memory())
    return max(1, min(torch.get_num_threads(), room // bytes_each))


def over_chunks(
    context: MeasurementContext,
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
        return _side_by_side(context, networks, chunks, measure)
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
        context.advance(len(chunk["normal"]))
    return results


def _side_by_side(
    context: MeasurementContext,
    networks: list[Supernet],
    chunks: list[Masks],
    measure: Callable[[Supernet, Masks], T],
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
            context.advance(len(chunk["normal"]))
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
                "out of memory with a single candidate: use fewer channels or images, or a larger GPU"
            ) from None
    torch.cuda.empty_cache()
    return None


def union(masks: Masks) -> Masks:
    return {kind: mask.any(0) for kind, mask in masks.items()}
