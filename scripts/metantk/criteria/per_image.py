"""Criteria of the gradients of single images' losses: gradsign and KNAS.

Networks have group norm, so that one pass holds each image as if it were alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from metantk.criteria.base import (
    CostMeter,
    Criterion,
    Masks,
    Measured,
    MeasurementContext,
    RandomKeys,
    criterion_of,
)
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.inputs import draw_labelled
from metantk.criteria.networks import Networks, Seen, backward, candidates_of, forward, weight_gradients
from metantk.options.criteria.gradients import GradientsOptions


def per_image_criterion(part: str, **facts) -> Criterion:
    """A criterion of `measure_networks`."""
    return criterion_of(
        measure, part, larger_is_better=True, section="gradients", options=GradientsOptions, **facts
    )


def measure(
    context: MeasurementContext, options: GradientsOptions, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    meter = CostMeter(parts)
    with meter.of():
        outputs = options.ways if options.sampling == "episode" else context.classes
        network = build(context, draws, masks, outputs=outputs)
        images, labels = draw_labelled(context, options, draws.images)
    chunks = over_candidates(
        context,
        draws,
        network,
        masks,
        images,
        lambda own, chunk: measure_networks(candidates_of(own, chunk), images, labels, parts),
    )
    return join(meter, chunks)


def measure_networks(
    networks: Networks, images: Tensor, labels: Tensor, parts: Sequence[str]
) -> dict[str, Measured]:
    """Those of gradsign and knas that `parts` name, of networks in which images do not mix."""
    meter, count = CostMeter(parts), networks.count
    sums = {part: torch.zeros(count, dtype=torch.float64) for part in ("gradsign", "knas")}

    def consume(seen: Seen, gradient: Tensor) -> None:
        rows = weight_gradients(seen.layer, seen.input, gradient, len(gradient))
        rows = rows.flatten(1).unflatten(0, (count, -1))
        if "gradsign" in parts:
            with meter.of("gradsign"):
                sums["gradsign"] += rows.sign().sum(1).abs().double().sum(1).cpu()
        if "knas" in parts:
            with meter.of("knas"):
                sums["knas"] += rows.mean(1).double().square().sum(1).cpu()

    with meter.of():
        done = forward(networks, images)
        losses = functional.cross_entropy(done.answers.flatten(0, 1), labels.repeat(count), reduction="sum")
        backward(done, losses, consume)
    meter.count(3 * done.operations)
    return meter.measured(sums)
