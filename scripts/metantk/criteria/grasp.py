"""GraSP: −Σ w (H w's gradient) over all weights (zero-cost-nas, whose sign is minus); higher is better.

−w·Hg is −½ d/ds ‖∇L(s w)‖² at s = 1: two gradients in float64 give it for all candidates without second
derivatives (a test compares with the Hessian).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria.base import Bill, Draws, Masks, Measured, Setting, criterion_of
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.loss import mean_losses
from metantk.criteria.networks import Networks, candidates_of, forward, weight_gradients
from metantk.criteria.pictures import draw_labelled
from metantk.options.criteria.gradients import GradientsOptions

STEP = 1e-5  # of the scale: the error is of its square, and rounding of float64 divided by it


def measure(
    setting: Setting, options: GradientsOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    bill = Bill(parts)
    with bill.of():
        outputs = options.ways if options.draw == "episode" else setting.classes
        network = build(setting, draws, masks, outputs=outputs, norm="batch", dtype=torch.float64)
        images, labels = draw_labelled(setting, options, draws.pictures)
        images = images.double()
    chunks = over_candidates(
        setting,
        draws,
        network,
        masks,
        images,
        lambda own, chunk: measure_networks(candidates_of(own, chunk), images, labels),
    )
    return join(bill, chunks)


def measure_networks(networks: Networks, images: Tensor, labels: Tensor) -> dict[str, Measured]:
    """`grasp` of networks and pictures of float64."""
    bill = Bill(["grasp"])
    with bill.of():
        weights = [layer.module.weight for layer in networks.layers]
        originals = [weight.detach().clone() for weight in weights]
        squares = []
        try:
            for scale in (1 + STEP, 1 - STEP):
                with torch.no_grad():
                    for weight, original in zip(weights, originals, strict=True):
                        weight.copy_(scale * original)
                squares.append(_squared_norms(networks, images, labels, bill))
        finally:
            with torch.no_grad():
                for weight, original in zip(weights, originals, strict=True):
                    weight.copy_(original)
        values = -(squares[0] - squares[1]) / (4 * STEP)
    return bill.measured({"grasp": values})


def _squared_norms(networks: Networks, images: Tensor, labels: Tensor, bill: Bill) -> Tensor:
    """Squared norm of the gradient of each candidate's loss, `(candidates,)`."""
    seen = forward(networks, images)
    bill.count(3 * seen.operations)
    backprops = seen.gradients(mean_losses(seen.answers, labels).sum())
    total = 0.0
    for layer, x, gradient in zip(networks.layers, seen.inputs, backprops, strict=True):
        total = total + weight_gradients(layer, x, gradient, networks.count).flatten(1).square().sum(1)
    return total


CRITERION = criterion_of(
    measure, "grasp", larger_is_better=True, title="GraSP", section="gradients", options=GradientsOptions
)
