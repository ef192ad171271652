"""Reptile (Nichol et al. 2018): learn a task by plain steps, then move the meta-parameters its way."""

import math
from collections.abc import Callable, Iterable

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional

from metantk.runtime.devices import upload
from metantk.runtime.divergence import advice
from metantk.runtime.files import DivergedError


def snapshot(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def restore(tensors: Iterable[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def mean_displacements(tensors: list[Tensor], tasks: int, learn: Callable[[int], None]) -> list[Tensor]:
    """Where tasks lead, on average, from the same start: the mean over tasks of (learned - start) of each tensor.

    Args:
        learn: learns the task of an index, in place; every task begins at the same tensors, bit for bit, and they
            are left as they were.
    """
    start = snapshot(tensors)
    totals = [torch.zeros_like(value) for value in start]
    for task in range(tasks):
        learn(task)
        with torch.no_grad():
            for total, tensor, value in zip(totals, tensors, start, strict=True):
                total += tensor - value
        restore(tensors, start)
    return [total / tasks for total in totals]


def reptile_step(groups: list[tuple[list[Tensor], float]], tasks: int, learn: Callable[[int], None]) -> None:
    """One meta-step: each group moves by its rate times the mean displacement of the tasks.

    Args:
        groups: tensors that are learned in place, and their meta-rate.
        learn: as of `mean_displacements`.
    """
    tensors = [tensor for group, _ in groups for tensor in group]
    rates = [rate for group, rate in groups for _ in group]
    moves = mean_displacements(tensors, tasks, learn)
    with torch.no_grad():
        for tensor, move, rate in zip(tensors, moves, rates, strict=True):
            tensor.add_(move, alpha=rate)


def make_adam(parameters: Iterable[Tensor], rate: float, decay: float = 0.0) -> torch.optim.Adam:
    """Adam without a first moment, as Reptile learns tasks; `decay` is folded into the gradient (L2)."""
    return torch.optim.Adam(parameters, lr=rate, betas=(0.0, 0.999), weight_decay=decay)


def step_on(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One step of the optimiser; parameters that the loss does not reach stay as they are."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()
    optimiser.zero_grad()


def check_loss(loss: float, epoch: int, options: BaseModel) -> None:
    """Raises `DivergedError` where a search's training has come to nothing."""
    if not math.isfinite(loss):
        raise DivergedError(f"search: the loss is not finite in epoch {epoch}: {advice(options)}")


def draw_batch(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of `size` images, sampled with replacement; `generator` is on the CPU."""
    return upload(torch.randint(len(labels), (size,), generator=generator), labels.device)


def learn_weights(
    network: Callable[[Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch: int,
    generator: torch.Generator,
) -> None:
    """Learn a task: `steps` steps, each on a batch of its own.

    Args:
        network: images to logits.
    """
    for _ in range(steps):
        chosen = draw_batch(labels, batch, generator)
        step_on(functional.cross_entropy(network(images[chosen]), labels[chosen]), optimiser)
