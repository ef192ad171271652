"""Criteria of the gradient of a batch's loss, with batch norm in training mode, as published.

One forward and one backward pass of all candidates of a chunk; the gradients of each candidate's weights follow
layer by layer from what the layer got and gave.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
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
from metantk.criteria.formulas import log_signals, sum_of_logs
from metantk.criteria.inputs import draw_labelled
from metantk.criteria.networks import Networks, Seen, backward, candidates_of, forward, weight_gradients
from metantk.options.criteria.gradients import GradientsOptions

Batch = tuple[Tensor, Tensor]
BATCHES = 2  # that zico compares (published search)


def loss_criterion(part: str, **facts) -> Criterion:
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
        batches = [draw_labelled(context, options, draws.images, index) for index in range(BATCHES)]
    chunks = over_candidates(
        context,
        draws,
        network,
        masks,
        batches[0][0],
        lambda own, chunk: measure_networks(candidates_of(own, chunk), batches, parts),
    )
    return join(meter, chunks)


def mean_losses(answers: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each candidate's batch, `(candidates, images, outputs)` to `(candidates,)`."""
    count = len(answers)
    losses = functional.cross_entropy(answers.flatten(0, 1), labels.repeat(count), reduction="none")
    return losses.unflatten(0, (count, -1)).mean(1)


def measure_networks(networks: Networks, batches: Sequence[Batch], parts: Sequence[str]) -> dict[str, Measured]:
    """Those of grad_norm, snip, fisher and zico that `parts` name.

    Args:
        batches: images and labels; the first for all but zico, which compares them all.
    """
    meter, count = CostMeter(parts), networks.count
    sums = {part: torch.zeros(count, dtype=torch.float64) for part in ("grad_norm", "snip", "fisher")}
    kept: dict[nn.Module, Tensor] = {}

    def consume(seen: Seen, gradient: Tensor) -> None:
        layer, weight = seen.layer, seen.layer.module.weight.detach()
        if "fisher" in parts:
            with meter.of("fisher"):
                both = (x.unflatten(0, (count, -1)) for x in (seen.output, gradient))
                taps = torch.einsum("cnk...,cnk...->cnk", *both).double()
                sums["fisher"] += (taps.square().mean(1).sum(1) / 2 * weight[0].numel()).cpu()
        if set(parts) == {"fisher"}:
            return
        with meter.of("grad_norm", "snip", "zico"):
            own = weight_gradients(layer, seen.input, gradient, count)
        if "grad_norm" in parts:
            with meter.of("grad_norm"):
                sums["grad_norm"] += networks.as_tensors(layer, own).norm(dim=-1).double().sum(1).cpu()
        if "snip" in parts:
            with meter.of("snip"):
                sums["snip"] += (weight * own).abs().flatten(1).double().sum(1).cpu()
        if "zico" in parts:
            kept[layer.module] = own

    with meter.of():
        operations = _through(networks, batches[0], consume)
    meter.count(2 * operations)
    meter.count(operations, "grad_norm", "snip", "zico")
    if "zico" in parts:
        with meter.of("zico"):
            others = [_gradients(networks, batch) for batch in batches[1:]]
            logs = []
            for layer in (layer for layer in networks.layers if layer.module in kept):
                of_batches = torch.stack([found[layer.module] for found in (kept, *others)], 1)
                tensors = networks.as_tensors(layer, of_batches)
                logs.append(log_signals(tensors.transpose(1, 2).double()))
            sums["zico"] = sum_of_logs(torch.cat(logs, dim=1).T) if logs else torch.full((count,), -math.inf)
        meter.count(3 * operations * (len(batches) - 1), "zico")
    return meter.measured(sums)


def _through(networks: Networks, batch: Batch, consume: Callable[[Seen, Tensor], None]) -> int:
    """Forward and backward through the losses of all candidates; the operations of the forward pass."""
    images, labels = batch
    done = forward(networks, images)
    backward(done, mean_losses(done.answers, labels).sum(), consume)
    return done.operations


def _gradients(networks: Networks, batch: Batch) -> dict[nn.Module, Tensor]:
    """The gradient of the batch's mean loss by each layer's weight, `(candidates, *weight's shape)` each."""
    found: dict[nn.Module, Tensor] = {}

    def consume(seen: Seen, gradient: Tensor) -> None:
        found[seen.layer.module] = weight_gradients(seen.layer, seen.input, gradient, networks.count)

    _through(networks, batch, consume)
    return found
