"""Reptile: train on a task's batches, then move towards where that led ("facts", from boschresearch/metanas)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from metantk.storage import InputError


def inner_optimiser(
    network: nn.Module, name: Literal["sgd", "adam"], *, rate: float, weight_decay: float = 0.0
) -> Optimizer:
    """The optimiser of a task: plain SGD, or Adam without momentum (betas 0 and 0.999).

    Raises:
        InputError: another name.
    """
    match name:
        case "sgd":
            return SGD(network.parameters(), lr=rate, weight_decay=weight_decay)
        case "adam":
            return Adam(network.parameters(), lr=rate, betas=(0.0, 0.999), weight_decay=weight_decay)
    raise InputError(f"the inner optimiser is {name!r}; it may be 'sgd' or 'adam'")


def reptile_displacement(
    network: nn.Module, images: Tensor, labels: Tensor, optimiser: Optimizer, *, keep_moments: bool = False
) -> Tensor:
    """Train on each task in turn from the same weights, and write minus the mean displacement to `.grad`.

    Plain SGD of rate 1 then moves the weights to the mean of the tasks' weights. Weights and buffers (running
    averages too) are restored after each task.

    Args:
        images: `(tasks, steps, batch, 3, height, width)`; the minibatches of each task's steps.
        labels: int64 `(tasks, steps, batch)`.
        optimiser: of the network's parameters.
        keep_moments: carry the optimiser's state from task to task, as the published code does in meta-training;
            else each task starts with none.

    Returns:
        The loss before each step, `(tasks, steps)`.
    """
    parameters = list(network.parameters())
    state = [*parameters, *network.buffers()]
    start = [tensor.detach().clone() for tensor in state]
    moved = [torch.zeros_like(parameter) for parameter in parameters]
    losses = torch.zeros(labels.shape[:2], dtype=start[0].dtype, device=labels.device)
    for task in range(len(images)):
        if not keep_moments:
            optimiser.state.clear()
        for step in range(images.shape[1]):
            optimiser.zero_grad()
            loss = functional.cross_entropy(network(images[task, step]), labels[task, step])
            loss.backward()
            optimiser.step()
            losses[task, step] = loss.detach()
        with torch.no_grad():
            for total, parameter, begin in zip(moved, parameters, start, strict=False):
                total += parameter - begin
            for tensor, begin in zip(state, start, strict=True):
                tensor.copy_(begin)
    for parameter, total in zip(parameters, moved, strict=True):
        parameter.grad = -total / len(images)
    return losses
