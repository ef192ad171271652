"""Criteria of the gradient of a batch's loss, with batch norm in training mode, as published.

One forward and one backward pass of all candidates of a chunk; the gradients of each candidate's weights follow
layer by layer from what the layer got and gave.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting, criterion_of
from metantk.criteria.chunks import build, join, over_candidates
from metantk.criteria.formulas import log_signals, sum_of_logs
from metantk.criteria.networks import Networks, Pass, candidates_of, forward, weight_gradients
from metantk.criteria.pictures import draw_labelled
from metantk.options.criteria.gradients import GradientsOptions

Batch = tuple[Tensor, Tensor]
BATCHES = 2  # that zico compares (published search)


def loss_criterion(part: str, **facts) -> Criterion:
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
        batches = [draw_labelled(setting, options, draws.pictures, number) for number in range(BATCHES)]
    chunks = over_candidates(
        setting,
        draws,
        network,
        masks,
        batches[0][0],
        lambda own, chunk: measure_networks(candidates_of(own, chunk), batches, parts),
    )
    return join(bill, chunks)


def mean_losses(answers: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each candidate's batch, `(candidates, pictures, outputs)` to `(candidates,)`."""
    count = len(answers)
    losses = functional.cross_entropy(answers.flatten(0, 1), labels.repeat(count), reduction="none")
    return losses.unflatten(0, (count, -1)).mean(1)


def measure_networks(networks: Networks, batches: Sequence[Batch], parts: Sequence[str]) -> dict[str, Measured]:
    """Those of grad_norm, snip, fisher and zico that `parts` name.

    Args:
        batches: pictures and labels; the first for all but zico, which compares them all.
    """
    bill = Bill(parts)
    with bill.of():
        seen, backprops = _pass(networks, batches[0])
        bill.count(2 * seen.operations)
    sums: dict[str, Tensor | float] = dict.fromkeys(("grad_norm", "snip", "fisher"), 0.0)
    kept = []
    for number, layer in enumerate(networks.layers):
        weight = layer.module.weight.detach()
        if "fisher" in parts:
            with bill.of("fisher"):
                both = (seen.outputs[number].detach(), backprops[number])
                taps = torch.einsum("cnk...,cnk...->cnk", *(x.unflatten(0, (networks.count, -1)) for x in both))
                sums["fisher"] += taps.double().square().mean(1).sum(1) / 2 * weight[0].numel()
        if set(parts) == {"fisher"}:
            continue
        with bill.of("grad_norm", "snip", "zico"):
            gradient = weight_gradients(layer, seen.inputs[number], backprops[number], networks.count)
        if "grad_norm" in parts:
            with bill.of("grad_norm"):
                norms = networks.as_tensors(layer, gradient).norm(dim=-1)
                sums["grad_norm"] += norms.double().sum(1)
        if "snip" in parts:
            with bill.of("snip"):
                sums["snip"] += (weight * gradient).abs().flatten(1).double().sum(1)
        if "zico" in parts:
            kept.append(gradient)
    bill.count(seen.operations, "grad_norm", "snip", "zico")
    del seen, backprops
    if "zico" in parts:
        with bill.of("zico"):
            gradients = [kept, *(_gradients(networks, batch) for batch in batches[1:])]
            logs = []
            for layer, *of_batches in zip(networks.layers, *gradients, strict=True):
                tensors = networks.as_tensors(layer, torch.stack(of_batches, 1))
                logs.append(log_signals(tensors.transpose(1, 2).double()))
            sums["zico"] = sum_of_logs(torch.cat(logs, dim=1).T)
        bill.count(bill.operations["zico"] * (len(batches) - 1), "zico")
    return bill.measured(sums)


def _pass(networks: Networks, batch: Batch) -> tuple[Pass, list[Tensor]]:
    images, labels = batch
    seen = forward(networks, images)
    return seen, seen.gradients(mean_losses(seen.answers, labels).sum())


def _gradients(networks: Networks, batch: Batch) -> list[Tensor]:
    """The gradient of the batch's mean loss by each layer's weight, `(candidates, *weight's shape)` each."""
    seen, backprops = _pass(networks, batch)
    parts = zip(networks.layers, seen.inputs, backprops, strict=True)
    return [weight_gradients(layer, x, gradient, networks.count) for layer, x, gradient in parts]
