"""Criteria of the gradient of all outputs by the images: jacob_cov and EPE-NAS.

Batch norm in training mode, as published; correlations in float64 with the symmetric eigensolver, where the
published programs take a general one in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria import formulas
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
from metantk.criteria.networks import Networks, candidates_of, forward
from metantk.options.criteria.gradients import GradientsOptions


def jacobian_criterion(part: str, **facts) -> Criterion:
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
        network = build(context, draws, masks, outputs=outputs, norm="batch")
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
    """Those of jacob_cov and epe_nas that `parts` name."""
    meter = CostMeter(parts)
    with meter.of():
        done = forward(networks, images)
        meter.count(2 * done.operations)
        outputs = done.answers.shape[2]
        (gradient,) = torch.autograd.grad(
            done.answers.sum(), done.images, allow_unused=True, materialize_grads=True
        )
        jacobians = gradient.unflatten(0, (networks.count, -1)).flatten(2).cpu()
    of = {
        "jacob_cov": formulas.jacob_cov,
        "epe_nas": lambda jacobian: formulas.epe_nas(jacobian, labels.cpu(), outputs),
    }
    values = {}
    for part in parts:
        with meter.of(part):
            values[part] = torch.tensor([of[part](jacobian) for jacobian in jacobians], dtype=torch.float64)
    return meter.measured(values)
