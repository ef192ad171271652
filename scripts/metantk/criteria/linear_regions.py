"""Number of linear regions of the thin network (paper, Eq. 15; TE-NAS, Section 3.2.1); higher is better.

The thin network: one channel, a normal and a reduction cell, no stem, batch norm over a batch. Its patterns are
counted on the CPU chunk by chunk.
"""

import numpy as np
import torch
from torch import Tensor

from metantk.criteria.base import Criterion, Masks, Measured, MeasurementContext, RandomKeys
from metantk.criteria.chunks import over_chunks, union
from metantk.criteria.formulas import as_bytes
from metantk.criteria.inputs import draw_crops
from metantk.flops import macs_of_calls
from metantk.options.criteria.linear_regions import LinearRegionsOptions
from metantk.runtime.devices import generator
from metantk.space.genotype import CELL_TYPES
from metantk.space.supernet import Supernet, initialise

CPU_CHUNK, GPU_CHUNK = 16, 128  # candidates of a thin network, whose images are tiny


def measure(
    context: MeasurementContext, options: LinearRegionsOptions, draws: RandomKeys, masks: Masks
) -> Measured:
    network = Supernet(
        context.operations, union(masks), list(CELL_TYPES), 1, outputs=None, norm="batch", inputs=1, stem=False
    )
    initialise(network, context.initialisation, generator("thin weights", *draws.weights))
    network.to(context.device, context.dtype)
    batches = draw_crops(context, options, draws.images)
    size, workers = (CPU_CHUNK, torch.get_num_threads()) if context.device.type == "cpu" else (GPU_CHUNK, 1)

    def measure_chunk(own: Supernet, chunk: Masks) -> tuple[np.ndarray, int]:
        with macs_of_calls((layer.shown, layer.module) for layer in own.layers().values()) as macs:
            counts = regions_of_candidates(own, batches, chunk)
        return counts, 2 * sum(macs)

    counts, operations = zip(*over_chunks(context, network, masks, size, workers, measure_chunk), strict=True)
    return Measured(np.concatenate(counts).astype(np.float64), sum(operations))


class PatternRecorder:
    """Collects the patterns of every candidate of a batch; pass it to `Supernet.forward` as `watch`."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def __call__(self, x: Tensor, used: Tensor) -> None:
        """Args: `x`, `(candidates * images, copies, ...)`; `used`, `(candidates, copies)`."""
        on = (x > 0).flatten(2).unflatten(0, (len(used), -1))
        # A copy that a candidate does not have is off for all its inputs: it distinguishes nothing.
        self.parts.append((on & (used > 0)[:, None, :, None]).flatten(2))

    def packed(self) -> np.ndarray:
        """`(candidates, images, bytes)`; what one candidate showed for all is repeated."""
        candidates = max(map(len, self.parts))
        parts = [part.expand(candidates, -1, -1) for part in self.parts]
        return np.packbits(torch.cat(parts, dim=2).cpu().numpy(), axis=2)


@torch.no_grad()
def regions_of_candidates(network: Supernet, batches: list[Tensor], masks: dict[str, Tensor]) -> np.ndarray:
    """R_N of each candidate over all inputs of all batches.

    Args:
        network: a thin supernet (batch norm, no stem, no head).
        batches: each `(images, 1, height, width)`; batch normalisation sees one of them.
        masks: for each cell type, `(candidates, edges, operations)` bool.

    Returns:
        int64 `(candidates,)`.
    """
    recorded = []
    for batch in batches:
        recorder = PatternRecorder()
        network(batch, masks, watch=recorder)
        recorded.append(recorder.packed())
    patterns = np.concatenate(recorded, axis=1)
    return np.array([len(np.unique(as_bytes(rows))) for rows in patterns])


CRITERIA = {
    "linear_regions": Criterion(
        measure,
        larger_is_better=True,
        title="linear regions",
        options=LinearRegionsOptions,
        weights_per_candidate=True,
    )
}
