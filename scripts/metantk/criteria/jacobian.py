"""Criteria of the gradient of all outputs by the pictures: jacob_cov and EPE-NAS.

Batch norm in training mode, as published; correlations in float64 with the symmetric eigensolver, where the
published programs take a general one in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria import formulas
from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting, criterion_of
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.networks import Networks, candidates_of, forward
from metantk.criteria.pictures import draw_labelled
from metantk.options.criteria.gradients import GradientsOptions


def jacobian_criterion(part: str, **facts) -> Criterion:
    """A criterion of `measure_networks`."""
    return criterion_of(
        measure, part, larger_is_better=True, section="gradients", options=GradientsOptions, **facts
    )


def measure(
    setting: Setting, options: GradientsOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    bill = Bill(parts)
    with bill.of():
        outputs = options.ways if options.draw == "episode" else setting.classes
        network = build(setting, draws, masks, outputs=outputs, norm="batch")
        images, labels = draw_labelled(setting, options, draws.pictures)
    chunks = over_candidates(
        setting,
        draws,
        network,
        masks,
        images,
        lambda own, chunk: measure_networks(candidates_of(own, chunk), images, labels, parts),
    )
    return join(bill, chunks)


def measure_networks(
    networks: Networks, images: Tensor, labels: Tensor, parts: Sequence[str]
) -> dict[str, Measured]:
    """Those of jacob_cov and epe_nas that `parts` name."""
    bill = Bill(parts)
    with bill.of():
        done = forward(networks, images)
        bill.count(2 * done.operations)
        outputs = done.answers.shape[2]
        (gradient,) = torch.autograd.grad(
            done.answers.sum(), done.pictures, allow_unused=True, materialize_grads=True
        )
        jacobians = gradient.unflatten(0, (networks.count, -1)).flatten(2).cpu()
    of = {
        "jacob_cov": formulas.jacob_cov,
        "epe_nas": lambda jacobian: formulas.epe_nas(jacobian, labels.cpu(), outputs),
    }
    values = {}
    for part in parts:
        with bill.of(part):
            values[part] = torch.tensor([of[part](jacobian) for jacobian in jacobians], dtype=torch.float64)
    return bill.measured(values)
