"""Supports that weigh per class: where classes have unequal numbers of them, each class counts as much."""

import torch
from torch import Tensor
from torch.nn import functional


def class_weights(labels: Tensor, ways: int) -> Tensor:
    """Weight of a support of each class: mean number of supports by the class's own (scikit-learn's "balanced").

    Args:
        labels: int64 `(..., supports)` in 0..ways - 1; each class has one or more.

    Returns:
        float64 `(..., ways)`; exactly 1 where all classes have as many supports.
    """
    return labels.shape[-1] / (ways * functional.one_hot(labels, ways).sum(-2).double())


def support_weights(labels: Tensor, ways: int) -> Tensor:
    """Weight of each support, `(..., supports)` like `labels`; their mean is 1."""
    return class_weights(labels, ways).gather(-1, labels)


def repeat_to_equal(labels: Tensor, ways: int) -> Tensor:
    """Indices of supports, as many of every class as the largest has: smaller classes repeat their own in turn.

    Args:
        labels: int64 `(supports,)`.

    Returns:
        int64 `(ways * most,)`; all supports in their order where they are equal in number.
    """
    counts = torch.bincount(labels, minlength=ways)
    most = int(counts.max())
    if bool((counts == most).all()):
        return torch.arange(len(labels), device=labels.device)
    members = [torch.nonzero(labels == way).view(-1) for way in range(ways)]
    return torch.cat([own.repeat(-(-most // len(own)))[:most] for own in members])
