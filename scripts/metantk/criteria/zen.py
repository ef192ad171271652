"""Zen score (Zen-NAS): how far the features of a network with N(0, 1) weights move with noise; higher is better.

Images are noise, norms batch norm. The variance of the batch is taken, where the published program reads running
ones that hardly move, and skip connections stay, which it removes. In the DARTS space it correlates 0.98 with the
parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys, criterion_of
from metantk.criteria.chunks import MeasureChunk, build, measure_in_chunks
from metantk.flops import macs_of_calls
from metantk.options.criteria.zen import ZenOptions
from metantk.runtime.devices import generator
from metantk.space.supernet import Supernet


class Variances:
    """Adds up ½ ln of the mean over channels of each norm's variance; to be shown each norm's input.

    Attributes:
        total: `(candidates,)` float64; of one candidate as long as all are alike.
    """

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0

    def __call__(self, x: Tensor, used: Tensor) -> None:
        """Args: `x`, `(candidates * images, copies, channels, ...)`; `used`, `(candidates, copies)` counts."""
        x = x.unflatten(0, (len(used), -1)).flatten(4)  # candidates, images, copies, channels, pixels
        logs = x.var((1, 4), correction=0).double().mean(2).log() / 2
        self.total = self.total + torch.where(used > 0, used * logs, 0.0).sum(1)


def measure(
    context: MeasurementContext, options: ZenOptions, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    def prepare() -> tuple[Supernet, Tensor, MeasureChunk]:
        network = build(context, draws, masks, outputs=None, norm="batch", initialisation="normal")
        shape = (2, options.images, 3, context.image_size, context.image_size)
        noise = torch.randn(shape, generator=generator("noise", *draws.images))
        images, second = noise.to(context.device, context.dtype)
        moved = images + options.noise_scale * second
        return network, images, lambda own, chunk: measure_chunk(own, images, moved, chunk)

    return measure_in_chunks(context, draws, masks, parts, prepare)


@torch.no_grad()
def measure_chunk(network: Supernet, images: Tensor, moved: Tensor, masks: Masks) -> dict[str, Measured]:
    """The score of each candidate; arguments as of `metantk.criteria.formulas.zen`."""
    meter, variances, count = CostMeter(["zen"]), Variances(), len(masks["normal"])
    layers = network.layers().values()
    with meter.of(), macs_of_calls((layer.shown, layer.module) for layer in layers) as macs:
        features = network.features(images, masks, watch_norms=variances)
        change = (features - network.features(moved, masks)).abs().flatten(1).double().sum(1)
        logs = change.unflatten(0, (-1, len(images))).mean(1).log()
        values = (logs + variances.total).expand(count)
    meter.count(2 * sum(macs))
    return meter.measured({"zen": values})


CRITERIA = {"zen": criterion_of(measure, "zen", title="Zen score", change="difference", options=ZenOptions)}
