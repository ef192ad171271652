"""First-order MAML (Finn et al. 2017): plain steps on the support, the queries' gradient where they led."""

from collections.abc import Callable

import torch
from torch import Tensor

from metantk.meta_learning.reptile import restore, snapshot

Group = tuple[list[Tensor], float]  # tensors, and their rate within a task


def gradients_of(loss: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Zero for what the loss does not reach."""
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def descend(loss: Callable[[], Tensor], groups: list[Group], steps: int) -> None:
    """Gradient descent in place; all groups move at once, by the gradients of one backward pass."""
    tensors = [tensor for group, _ in groups for tensor in group]
    rates = [rate for group, rate in groups for _ in group]
    for _ in range(steps):
        gradients = gradients_of(loss(), tensors)
        with torch.no_grad():
            for tensor, gradient, rate in zip(tensors, gradients, rates, strict=True):
                tensor.sub_(gradient, alpha=rate)


def add_meta_gradient(
    support_loss: Callable[[], Tensor],
    query_loss: Callable[[], Tensor],
    inner: list[Group],
    steps: int,
    outer: list[Tensor],
    share: float,
) -> float:
    """Adapt, add `share` times the queries' gradient there to the `grad` of `outer`, and undo the adaptation.

    Args:
        inner: what a task moves; what is in `outer` but not here has its gradient taken at the adapted rest.

    Returns:
        the loss of the queries after the adaptation.
    """
    moved = [tensor for group, _ in inner for tensor in group]
    meta = snapshot(moved)
    descend(support_loss, inner, steps)
    loss = query_loss()
    gradients = gradients_of(loss, outer)
    restore(moved, meta)
    for tensor, gradient in zip(outer, gradients, strict=True):
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        tensor.grad.add_(gradient, alpha=share)
    return loss.item()
