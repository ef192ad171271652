"""Criteria of gradients for labelled images: of a batch's loss, of single images' losses, of the outputs.

A forward and a backward pass hold all candidates of a chunk. The gradients of each candidate's weights follow layer
by layer from the layer's input and the gradient of its output. Networks have batch norm in training mode, as
published; those for single images have group norm, so that one pass holds each image as if it were alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.criteria import formulas
from metantk.criteria.base import (
    LOGARITHMIC,
    CostMeter,
    Criterion,
    Family,
    Masks,
    Measured,
    MeasurementContext,
    RandomKeys,
    criterion_of,
)
from metantk.criteria.chunks import MeasureChunk, build, measure_in_chunks
from metantk.criteria.inputs import draw_labelled
from metantk.criteria.networks import Networks, Seen, backward, candidates_of, forward, weight_gradients
from metantk.options.criteria.gradients import GradientsOptions
from metantk.space.supernet import Supernet

Batch = tuple[Tensor, Tensor]  # images and their labels
# Of the scale of the weights, for GraSP. The difference's error goes with its square, that of rounding with its
# inverse: values are right to about a thousandth in float32, to 1e-9 in float64.
SCALE_STEPS = {torch.float32: 5e-3, torch.float64: 1e-5}


def family_of(
    measure_networks: Callable[[Networks, Sequence[Batch], Sequence[str]], dict[str, Measured]],
    *,
    norm: str = "batch",
    batches: int = 1,
) -> Family:
    """Criteria that `measure_networks` measures of networks with this norm, and so many batches."""

    def measure(
        context: MeasurementContext,
        options: GradientsOptions,
        draws: RandomKeys,
        masks: Masks,
        parts: Sequence[str],
    ) -> dict[str, Measured]:
        def prepare() -> tuple[Supernet, Tensor, MeasureChunk]:
            outputs = options.ways if options.sampling == "episode" else context.classes
            network = build(context, draws, masks, outputs=outputs, norm=norm)
            drawn = [draw_labelled(context, options, draws.images, index) for index in range(batches)]

            def measure_chunk(own: Supernet, chunk: Masks) -> dict[str, Measured]:
                return measure_networks(candidates_of(own, chunk), drawn, parts)

            return network, drawn[0][0], measure_chunk

        return measure_in_chunks(context, draws, masks, parts, prepare)

    return measure


def measure_losses(networks: Networks, batches: Sequence[Batch], parts: Sequence[str]) -> dict[str, Measured]:
    """Those of grad_norm, snip, fisher and zico that `parts` name.

    Args:
        batches: the first for all but zico, which compares them all.
    """
    meter, count = CostMeter(parts), networks.count
    zeros = torch.zeros(count, dtype=torch.float64, device=batches[0][0].device)
    sums = {part: zeros.clone() for part in ("grad_norm", "snip", "fisher")}
    first_gradients: dict[nn.Module, Tensor] = {}

    def consume(seen: Seen, gradient: Tensor) -> None:
        layer, weight = seen.layer, seen.layer.module.weight.detach()
        if "fisher" in parts:
            with meter.of("fisher"):
                both = (x.unflatten(0, (count, -1)) for x in (seen.output, gradient))
                taps = torch.einsum("cnk...,cnk...->cnk", *both).double()
                sums["fisher"] += taps.square().mean(1).sum(1) / 2 * weight[0].numel()
        if set(parts) == {"fisher"}:
            return
        with meter.of("grad_norm", "snip", "zico"):
            own = weight_gradients(layer, seen.input, gradient, count)
        if "grad_norm" in parts:
            with meter.of("grad_norm"):
                sums["grad_norm"] += networks.as_tensors(layer, own).norm(dim=-1).double().sum(1)
        if "snip" in parts:
            with meter.of("snip"):
                sums["snip"] += (weight * own).abs().flatten(1).double().sum(1)
        if "zico" in parts:
            first_gradients[layer.module] = own

    with meter.of():
        operations = _through(networks, batches[0], consume)
    meter.count(2 * operations)
    meter.count(operations, "grad_norm", "snip", "zico")
    if "zico" in parts:
        with meter.of("zico"):
            others = [_gradients(networks, batch) for batch in batches[1:]]
            sums["zico"] = _zico(networks, [first_gradients, *others])
        meter.count(3 * operations * (len(batches) - 1), "zico")
    return meter.measured(sums)


def _zico(networks: Networks, gradients: list[dict[nn.Module, Tensor]]) -> Tensor:
    """ZiCo of each candidate, from the gradients of each batch by each layer's weight."""
    logs = []
    for layer in (layer for layer in networks.layers if layer.module in gradients[0]):
        tensors = networks.as_tensors(layer, torch.stack([found[layer.module] for found in gradients], 1))
        logs.append(formulas.log_signals(tensors.transpose(1, 2).double()))
    return formulas.sum_of_logs(torch.cat(logs, 1).T) if logs else torch.full((networks.count,), -math.inf)


def measure_grasp(networks: Networks, batches: Sequence[Batch], parts: Sequence[str]) -> dict[str, Measured]:
    """GraSP of the first batch.

    −w·Hg is −½ d/ds ‖∇L(s w)‖² at s = 1: two gradients give it for all candidates without second derivatives.
    """
    meter, step = CostMeter(parts), SCALE_STEPS[batches[0][0].dtype]
    with meter.of():
        weights = [layer.module.weight for layer in networks.layers]
        originals = [weight.detach().clone() for weight in weights]
        squares = []
        try:
            for scale in (1 + step, 1 - step):
                _copy(weights, [scale * original for original in originals])
                squares.append(_squared_norms(networks, batches[0], meter))
        finally:
            _copy(weights, originals)
        values = -(squares[0] - squares[1]) / (4 * step)
        values[squares[0] == 0] = math.nan  # a network without any gradient: 0 would be better than most
    return meter.measured({"grasp": values})


@torch.no_grad()
def _copy(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def _squared_norms(networks: Networks, batch: Batch, meter: CostMeter) -> Tensor:
    """Squared norm of the gradient of each candidate's loss, `(candidates,)`."""
    total = torch.zeros(networks.count, dtype=torch.float64, device=batch[0].device)

    def consume(seen: Seen, gradient: Tensor) -> None:
        own = weight_gradients(seen.layer, seen.input, gradient, networks.count)
        total.add_(own.flatten(1).double().square().sum(1))

    meter.count(3 * _through(networks, batch, consume))
    return total


def _through(networks: Networks, batch: Batch, consume: Callable[[Seen, Tensor], None]) -> int:
    """Forward and backward through the mean losses of all candidates; the operations of the forward pass."""
    images, labels = batch
    done = forward(networks, images)
    losses = functional.cross_entropy(done.answers.flatten(0, 1), labels.repeat(networks.count), reduction="none")
    backward(done, losses.unflatten(0, (networks.count, -1)).mean(1).sum(), consume)
    return done.operations


def _gradients(networks: Networks, batch: Batch) -> dict[nn.Module, Tensor]:
    """The gradient of the batch's mean loss by each layer's weight, `(candidates, *weight's shape)` each."""
    found: dict[nn.Module, Tensor] = {}

    def consume(seen: Seen, gradient: Tensor) -> None:
        found[seen.layer.module] = weight_gradients(seen.layer, seen.input, gradient, networks.count)

    _through(networks, batch, consume)
    return found


def measure_single_images(
    networks: Networks, batches: Sequence[Batch], parts: Sequence[str]
) -> dict[str, Measured]:
    """Those of gradsign and knas that `parts` name, of networks in which images do not mix."""
    meter, count = CostMeter(parts), networks.count
    ((images, labels),) = batches
    zeros = torch.zeros(count, dtype=torch.float64, device=images.device)
    sums = {part: zeros.clone() for part in ("gradsign", "knas")}

    def consume(seen: Seen, gradient: Tensor) -> None:
        rows = weight_gradients(seen.layer, seen.input, gradient, len(gradient))
        rows = rows.flatten(1).unflatten(0, (count, -1))
        if "gradsign" in parts:
            with meter.of("gradsign"):
                sums["gradsign"] += rows.sign().sum(1).abs().double().sum(1)
        if "knas" in parts:
            with meter.of("knas"):
                sums["knas"] += rows.mean(1).double().square().sum(1)

    with meter.of():
        done = forward(networks, images)
        losses = functional.cross_entropy(done.answers.flatten(0, 1), labels.repeat(count), reduction="sum")
        backward(done, losses, consume)
    meter.count(3 * done.operations)
    return meter.measured(sums)


def measure_jacobians(networks: Networks, batches: Sequence[Batch], parts: Sequence[str]) -> dict[str, Measured]:
    """Those of jacob_cov and epe_nas that `parts` name: of the gradient of all outputs by the images.

    Correlations are in float64 with the symmetric eigensolver, where the published programs take a general one in
    float32.
    """
    meter = CostMeter(parts)
    ((images, labels),) = batches
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


LOSSES = family_of(measure_losses, batches=2)  # that zico compares (published search)
HESSIAN = family_of(measure_grasp)
SINGLE_IMAGES = family_of(measure_single_images, norm="group")
JACOBIANS = family_of(measure_jacobians)


def _criterion(family: Family, part: str, title: str, **attributes: object) -> Criterion:
    return criterion_of(family, part, title=title, options=GradientsOptions, **attributes)


CRITERIA = {
    # Sum over weight tensors of the norm of the loss's gradient (zero-cost-nas).
    "grad_norm": _criterion(LOSSES, "grad_norm", "gradient norm", **LOGARITHMIC),
    # Σ |w ∂L/∂w| over all weights (zero-cost-nas).
    "snip": _criterion(LOSSES, "snip", "SNIP", **LOGARITHMIC),
    # Half the mean square of each channel's Σ z ∂L/∂z, times its weights (zero-cost-nas). Its value goes with the
    # inverse square of the number of images.
    "fisher": _criterion(LOSSES, "fisher", "Fisher", **LOGARITHMIC),
    # ln of mean over standard deviation of two batches' gradients, summed by tensor. Each tensor adds at least
    # about the logarithm of its size: close to a count of layers. Weights whose gradients nearly agree dominate,
    # so that values of float32 are noisier than those of float64.
    "zico": _criterion(LOSSES, "zico", "ZiCo", change="difference"),
    # −Σ w (H g) over all weights (zero-cost-nas, whose sign is minus).
    "grasp": _criterion(HESSIAN, "grasp", "GraSP"),
    # Σ over weights of |Σ of the signs of the images' own gradients|.
    "gradsign": _criterion(SINGLE_IMAGES, "gradsign", "GradSign"),
    # Mean of the Gram matrix of the images' loss gradients: KNAS as meant. It is the squared norm of the mean
    # loss's gradient. The published program multiplies those of unrelated images.
    "knas": _criterion(SINGLE_IMAGES, "knas", "KNAS", **LOGARITHMIC),
    # How little the images' gradients resemble one another (nas-without-training, version 1). Never above minus the
    # number of images.
    "jacob_cov": _criterion(JACOBIANS, "jacob_cov", "jacob_cov", change="difference"),
    # The same within classes. It grows with the size of the classes: episodes, whose classes are of one size, suit
    # it.
    "epe_nas": _criterion(JACOBIANS, "epe_nas", "EPE-NAS"),
}
