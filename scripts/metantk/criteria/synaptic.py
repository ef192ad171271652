"""Synflow and logsynflow: gradients of a network of absolute weights, without norms, for one image of ones.

In float64 always: values exceed what float32 can hold.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria.base import (
    LOGARITHMIC,
    CostMeter,
    Masks,
    Measured,
    MeasurementContext,
    RandomKeys,
    criterion_of,
)
from metantk.criteria.chunks import MeasureChunk, build, measure_in_chunks
from metantk.criteria.networks import Networks, Seen, backward, candidates_of, forward, weight_gradients
from metantk.space.supernet import Supernet


def measure(
    context: MeasurementContext, options: None, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    def prepare() -> tuple[Supernet, Tensor, MeasureChunk]:
        network = build(context, draws, masks, outputs=context.classes, norm="none", dtype=torch.float64)
        size = context.image_size
        ones = torch.ones(1, 3, size, size, dtype=torch.float64, device=context.device)

        def measure_chunk(own: Supernet, chunk: Masks) -> dict[str, Measured]:
            with torch.no_grad():  # here, since a head of the candidate's own is drawn just before
                for weight in own.parameters():
                    weight.abs_()
            return measure_networks(candidates_of(own, chunk), ones, parts)

        return network, ones, measure_chunk

    return measure_in_chunks(context, draws, masks, parts, prepare)


def measure_networks(networks: Networks, ones: Tensor, parts: Sequence[str]) -> dict[str, Measured]:
    """Those of synflow and logsynflow that `parts` name.

    Args:
        networks: without norms; all parameters, biases too, are 0 or larger.
        ones: one image, `(1, channels, height, width)`.
    """
    meter = CostMeter(parts)
    zeros = torch.zeros(networks.count, dtype=torch.float64, device=ones.device)
    sums = {part: zeros.clone() for part in ("synflow", "logsynflow")}

    def consume(seen: Seen, gradient: Tensor) -> None:
        weight = seen.layer.module.weight.detach()
        flow = weight_gradients(seen.layer, seen.input, gradient, networks.count)
        if "synflow" in parts:
            sums["synflow"] += (weight * flow).abs().flatten(1).sum(1)
        if "logsynflow" in parts:
            sums["logsynflow"] += (weight * flow.log1p()).abs().flatten(1).sum(1)

    with meter.of():
        done = forward(networks, ones)
        backward(done, done.answers.sum(), consume)
    meter.count(3 * done.operations)
    return meter.measured(sums)


CRITERIA = {
    # Σ |w ∂R/∂w|, R the sum of all outputs (SynFlow, zero-cost-nas).
    "synflow": criterion_of(measure, "synflow", title="SynFlow", **LOGARITHMIC),
    # Σ |w ln(1 + ∂R/∂w)| (FreeREA, which averages 3 draws).
    "logsynflow": criterion_of(measure, "logsynflow", title="LogSynFlow", **LOGARITHMIC),
}
