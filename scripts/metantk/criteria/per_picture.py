"""Criteria of the gradients of single pictures' losses: gradsign and KNAS.

Networks have group norm, so that one pass holds each picture as if it were alone.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting, criterion_of
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.networks import Networks, candidates_of, forward, weight_gradients
from metantk.criteria.pictures import draw_labelled
from metantk.options.criteria.gradients import GradientsOptions


def per_picture_criterion(part: str, **facts) -> Criterion:
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
        network = build(setting, draws, masks, outputs=outputs)
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
    """Those of gradsign and knas that `parts` name, of networks in which pictures do not mix."""
    bill = Bill(parts)
    with bill.of():
        seen = forward(networks, images)
        bill.count(3 * seen.operations)
        labels = labels.repeat(networks.count)
        backprops = seen.gradients(functional.cross_entropy(seen.answers.flatten(0, 1), labels, reduction="sum"))
    sums = dict.fromkeys(("gradsign", "knas"), 0.0)
    for layer, x, gradient in zip(networks.layers, seen.inputs, backprops, strict=True):
        with bill.of():
            rows = weight_gradients(layer, x, gradient, len(x)).flatten(1).unflatten(0, (networks.count, -1))
        if "gradsign" in parts:
            with bill.of("gradsign"):
                sums["gradsign"] += rows.sign().sum(1).abs().double().sum(1)
        if "knas" in parts:
            with bill.of("knas"):
                sums["knas"] += rows.mean(1).double().square().sum(1)
    return bill.measured(sums)
