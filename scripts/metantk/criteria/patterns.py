"""Criteria of the patterns of all ReLUs of the whole network: NASWOT and SWAP.

Batch norm in training mode. Each operation has a ReLU of its own, as in published networks, though those that read
the same state are computed once. Units of operations that a candidate does not have are left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys, criterion_of
from metantk.criteria.chunks import MeasureChunk, build, measure_in_chunks
from metantk.criteria.formulas import log_determinants
from metantk.criteria.inputs import draw_batch
from metantk.flops import macs_of_calls
from metantk.options.criteria.patterns import PatternsOptions
from metantk.space.supernet import Supernet


class Agreements:
    """Adds up, over units, in how many two images agree; to be shown each ReLU's input.

    Attributes:
        kernel: `(candidates, images, images)` float64; of one candidate as long as all are alike.
    """

    def __init__(self) -> None:
        self.kernel: Tensor | float = 0.0

    def __call__(self, x: Tensor, used: Tensor) -> None:
        """Args: `x`, `(candidates * images, copies, ...)`; `used`, `(candidates, copies)` counts."""
        # 1 or -1 by unit: a product of two images is units that agree minus units that do not. Counts of 2^24 or
        # more would lose units in float32; one state is never so large.
        signs = torch.where(x > 0, 1.0, -1.0).flatten(2).unflatten(0, (len(used), -1))
        weighed = signs * used[:, None, :, None]
        difference = (weighed.flatten(2) @ signs.flatten(2).transpose(1, 2)).double()
        units = used.sum(1).double() * signs.shape[3]
        self.kernel = self.kernel + (units[:, None, None] + difference) / 2


class Columns:
    """Collects each unit's pattern over the first images, as a number of so many bits.

    Args:
        images: at most 62.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.parts: list[Tensor] = []

    def __call__(self, x: Tensor, used: Tensor) -> None:
        """Args: as of `Agreements`."""
        on = (x > 0).flatten(2).unflatten(0, (len(used), -1))[:, : self.images]
        codes = torch.zeros_like(on[:, 0], dtype=torch.int64)
        for image in range(on.shape[1]):
            codes += on[:, image].long() << image
        codes[(used == 0)[:, :, None].expand_as(codes)] = -1
        self.parts.append(codes.flatten(1))

    def count(self, candidates: int) -> Tensor:
        """Distinct patterns of each candidate, `(candidates,)`, counted on the CPU."""
        codes = torch.cat([part.expand(candidates, -1) for part in self.parts], dim=1).cpu()
        return torch.tensor([int((own.unique() >= 0).sum()) for own in codes], dtype=torch.float64)


def measure(
    context: MeasurementContext, options: PatternsOptions, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    def prepare() -> tuple[Supernet, Tensor, MeasureChunk]:
        network = build(context, draws, masks, outputs=None, norm="batch")
        images = draw_batch(context, options.images, draws.images, "patterns")
        return network, images, lambda own, chunk: measure_chunk(own, images, chunk, parts, options.swap_images)

    return measure_in_chunks(context, draws, masks, parts, prepare)


@torch.no_grad()
def measure_chunk(
    network: Supernet, images: Tensor, masks: Masks, parts: Sequence[str], swap_images: int
) -> dict[str, Measured]:
    """Those of naswot and swap that `parts` name; swap of the first `swap_images`."""
    meter = CostMeter(parts)
    agreements, columns = Agreements(), Columns(swap_images)

    def watch(x: Tensor, used: Tensor) -> None:
        if "naswot" in parts:
            with meter.of("naswot"):
                agreements(x, used)
        if "swap" in parts:
            with meter.of("swap"):
                columns(x, used)

    count = len(masks["normal"])
    layers = network.layers().values()
    with meter.of(), macs_of_calls((layer.shown, layer.module) for layer in layers) as macs:
        network.features(images, masks, watch)
    meter.count(2 * sum(macs))
    values = {}
    if "naswot" in parts:
        with meter.of("naswot"):
            values["naswot"] = log_determinants(agreements.kernel).expand(count)
    if "swap" in parts:
        with meter.of("swap"):
            values["swap"] = columns.count(count)
    return meter.measured(values)


CRITERIA = {
    # Grows with the number of units. Minus infinity where two images agree in all units.
    "naswot": criterion_of(measure, "naswot", title="NASWOT", change="difference", options=PatternsOptions),
    # The published program takes the mean of 32 draws of weights.
    "swap": criterion_of(measure, "swap", title="SWAP", options=PatternsOptions),
}
