"""Supports that weigh per class: where classes have unequal numbers of them, each class counts as much."""

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


def unequal_weights(labels: Tensor, ways: int) -> Tensor | None:
    """`class_weights` of the supports `(supports,)` of a task; None where classes have as many."""
    weights = class_weights(labels, ways)
    return None if bool((weights == 1).all()) else weights
