"""GraSP: −Σ w (H w's gradient) over all weights (zero-cost-nas, whose sign is minus); higher is better.

−w·Hg is −½ d/ds ‖∇L(s w)‖² at s = 1: two gradients give it for all candidates without second derivatives. In
float32 it is right to about a thousandth, in float64 to 1e-9.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys, criterion_of
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.inputs import draw_labelled
from metantk.criteria.loss import mean_losses
from metantk.criteria.networks import Networks, Seen, backward, candidates_of, forward, weight_gradients
from metantk.options.criteria.gradients import GradientsOptions

# Of the scale. The difference's error goes with its square, that of rounding with its inverse.
STEPS = {torch.float32: 5e-3, torch.float64: 1e-5}


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
        lambda own, chunk: measure_networks(candidates_of(own, chunk), images, labels),
    )
    return join(meter, chunks)


def measure_networks(networks: Networks, images: Tensor, labels: Tensor) -> dict[str, Measured]:
    """`grasp` of each candidate."""
    meter, step = CostMeter(["grasp"]), STEPS[images.dtype]
    with meter.of():
        weights = [layer.module.weight for layer in networks.layers]
        originals = [weight.detach().clone() for weight in weights]
        squares = []
        try:
            for scale in (1 + step, 1 - step):
                with torch.no_grad():
                    for weight, original in zip(weights, originals, strict=True):
                        weight.copy_(scale * original)
                squares.append(_squared_norms(networks, images, labels, meter))
        finally:
            with torch.no_grad():
                for weight, original in zip(weights, originals, strict=True):
                    weight.copy_(original)
        values = -(squares[0] - squares[1]) / (4 * step)
        values[squares[0] == 0] = math.nan  # a network without any gradient: 0 would be better than most
    return meter.measured({"grasp": values})


def _squared_norms(networks: Networks, images: Tensor, labels: Tensor, meter: CostMeter) -> Tensor:
    """Squared norm of the gradient of each candidate's loss, `(candidates,)`."""
    total = torch.zeros(networks.count, dtype=torch.float64)

    def consume(seen: Seen, gradient: Tensor) -> None:
        own = weight_gradients(seen.layer, seen.input, gradient, networks.count)
        total.add_(own.flatten(1).double().square().sum(1).cpu())

    done = forward(networks, images)
    backward(done, mean_losses(done.answers, labels).sum(), consume)
    meter.count(3 * done.operations)
    return total


CRITERION = criterion_of(
    measure, "grasp", larger_is_better=True, title="GraSP", section="gradients", options=GradientsOptions
)
