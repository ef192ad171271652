"""Baselines that no image is passed for: parameters, multiply-accumulates, layers.

Convolutions and the head, with an output per training class; no biases, and no affine terms of norms. A constant
and a cost per operation: exact for all candidates at once, the same for every draw.
"""

from collections.abc import Sequence

import torch

from metantk.criteria.base import (
    LOGARITHMIC,
    CostMeter,
    Masks,
    Measured,
    MeasurementContext,
    RandomKeys,
    criterion_of,
)
from metantk.criteria.chunks import union
from metantk.space.genotype import cell_types
from metantk.space.supernet import Layer, Supernet, full_masks


def measure(
    context: MeasurementContext, options: None, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    meter = CostMeter(parts)
    with meter.of():
        kinds = cell_types(context.cells)
        network = Supernet(context.operations, union(masks), kinds, context.channels, outputs=context.classes)
        layers = list(network.layers().values())
    costs = {"parameters": lambda: [layer.module.weight.numel() / layer.copies for layer in layers]}
    costs["multiply_accumulates"] = lambda: multiply_accumulates(network, layers, context.image_size)
    costs["layers"] = lambda: [1.0] * len(layers)
    values = {}
    for part in parts:
        with meter.of(part):
            each = zip(layers, costs[part](), strict=True)
            values[part] = sum(layer.used(masks).sum(1).double() * cost for layer, cost in each)
    context.advance(len(masks["normal"]))
    return meter.measured(values)


@torch.no_grad()
def multiply_accumulates(network: Supernet, layers: list[Layer], image_size: int) -> list[float]:
    """Of one operation of each layer, for one image."""
    pixels: dict[torch.nn.Module, int] = {}
    hooks = [
        layer.shown.register_forward_hook(lambda shown, _, output: pixels.update({shown: output[0, 0].numel()}))
        for layer in layers
    ]
    masks = {kind: mask[None] for kind, mask in full_masks(network.arguments["space"]).items()}
    network(torch.zeros(1, 3, image_size, image_size), masks)
    for hook in hooks:
        hook.remove()
    return [layer.module.weight.numel() / layer.copies * pixels[layer.shown] for layer in layers]


CRITERIA = {
    "parameters": criterion_of(measure, "parameters", title="parameters", **LOGARITHMIC),
    "multiply_accumulates": criterion_of(
        measure, "multiply_accumulates", title="multiply-\naccumulates", **LOGARITHMIC
    ),
    "layers": criterion_of(measure, "layers", title="layers"),  # weight tensors (VKDNW)
}
