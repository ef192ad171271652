"""The criteria as functions of arrays, apart from the networks that the arrays come from.

Arrays are numpy's or tensors; sums are in float64. A value that does not exist is NaN, or infinite where a limit is
meant (the logarithm of a determinant of 0); `metantk.criteria.base` makes the worst of either.
Where two definitions are about, the published program's is meant, by the name of its project.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from metantk.kernels import condition_numbers, spectral_entropies

Array = Tensor | np.ndarray | Sequence
CORRELATION_OFFSET = 1e-5  # k of jacob_cov (nas-without-training) and of EPE-NAS
MANY_CLASSES = 100  # with more outputs than these EPE-NAS compares classes instead of adding them up

# Summaries of Gram matrices, `(..., n, n)` to `(...)` float64. Condition number: TE-NAS; trace: NASI; mean: KNAS.
GRAM_SUMMARIES: dict[str, Callable[[Tensor], Tensor]] = {
    "condition": condition_numbers,
    "trace": lambda gram: gram.double().diagonal(dim1=-2, dim2=-1).sum(-1),
    "frobenius": lambda gram: gram.double().square().sum((-2, -1)).sqrt(),
    "mean": lambda gram: gram.double().mean((-2, -1)),
    "spectral_entropy": spectral_entropies,
}


def double(array: Array) -> Tensor:
    return torch.as_tensor(array).detach().double()


def as_bytes(packed: np.ndarray) -> np.ndarray:
    """`(rows, bytes)` as one opaque value per row, which sorts and compares much faster than a row of numbers."""
    packed = np.ascontiguousarray(packed)
    return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]


def _distinct_rows(patterns: np.ndarray) -> int:
    return len(np.unique(as_bytes(np.packbits(patterns > 0, axis=1))))


def linear_regions(patterns: Array) -> int:
    """Number of distinct rows of on/off patterns (TE-NAS); exact.

    Args:
        patterns: `(images, units)`; a unit is on where its value is positive.
    """
    return _distinct_rows(np.asarray(patterns))


def swap(patterns: Array) -> int:
    """Number of distinct columns of the same patterns (SWAP): how many units see the images differently."""
    return _distinct_rows(np.asarray(patterns).T)


def naswot(patterns: Array) -> float:
    """ln |det K| with K_ij the number of units in which images i and j agree (nas-without-training)."""
    on = double(np.asarray(patterns) > 0)
    return float(log_determinants(on @ on.T + (1 - on) @ (1 - on).T))


def log_determinants(agreements: Array) -> Tensor:
    """ln |det K| of `(..., n, n)` agreements, minus infinity where two images agree in every unit.

    Two such images make K singular, which rounding would hide.
    """
    kernel = double(agreements)
    count = kernel.shape[-1]
    same = kernel == kernel.diagonal(dim1=-2, dim2=-1)[..., None]
    twins = (same & ~torch.eye(count, dtype=torch.bool, device=kernel.device)).any(-1).any(-1)
    return torch.where(twins, -math.inf, torch.linalg.slogdet(kernel).logabsdet)


def correlations(jacobian: Array) -> Tensor:
    """Pearson's correlations of the rows of `(images, inputs)`; NaN for a row that is constant."""
    rows = double(jacobian).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(norms > 0, norms, math.nan)
    return (rows @ rows.T).clamp(-1, 1)  # NaN stays


def jacob_cov(jacobian: Array) -> float:
    """−Σ (ln(v + k) + 1 / (v + k)) over the eigenvalues v of the rows' correlations (nas-without-training, v1).

    Args:
        jacobian: ∂(Σ of all outputs) / ∂images, `(images, inputs)`.
    """
    matrix = correlations(jacobian)
    if not torch.isfinite(matrix).all():
        return math.nan
    # Rounding can take an eigenvalue of 0 below −k.
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2).clamp(min=0) + CORRELATION_OFFSET
    return -float((values.log() + 1 / values).sum())


def epe_nas(jacobian: Array, labels: Array, outputs: int = 0) -> float:
    """Correlations within each class, by the sum of ln(|corr| + k) over all pairs of its images (EPE-NAS).

    Args:
        jacobian: as of `jacob_cov`.
        labels: `(images,)`.
        outputs: of the head. Up to 100 the classes' sums are added up, each without its sign; of more, the mean
            over classes of the differences between the classes' means per image.
    """
    indices = np.asarray(labels)
    rows = double(jacobian).flatten(1)
    sums, sizes = [], []
    for label in np.unique(indices):
        members = correlations(rows[torch.from_numpy(indices == label).to(rows.device)])
        sums.append(float((members.abs() + CORRELATION_OFFSET).log().sum()))
        sizes.append(len(members))
    if outputs <= MANY_CLASSES:
        return sum(map(abs, sums))
    means = [total / size for total, size in zip(sums, sizes, strict=True)]
    pairs = [abs(means[i] - means[j]) for i in range(len(means)) for j in range(i + 1, len(means))]
    return sum(pairs) / len(means)


def snip(weight: Array, gradient: Array) -> float:
    """Σ |w g| over the weights of a tensor (zero-cost-nas)."""
    return float((double(weight) * double(gradient)).abs().sum())


def grad_norm(gradients: Sequence[Array]) -> float:
    """Sum of the Euclidean norms of the tensors' gradients (zero-cost-nas)."""
    return sum(float(double(gradient).norm()) for gradient in gradients)


def zico(gradients: Sequence[Array]) -> float:
    """Σ over tensors of `log_signal` (ZiCo).

    Args:
        gradients: for each tensor, `(batches, weights)`: the gradient of each batch's mean loss.
    """
    return float(sum_of_logs(torch.stack([log_signals(double(gradient)) for gradient in gradients])))


def log_signals(gradients: Tensor) -> Tensor:
    """ln Σ_w (mean over batches of |g|) / (standard deviation over batches of g), of each of many tensors.

    Weights whose gradients are alike in all batches are left out.

    Args:
        gradients: `(..., batches, weights)` float64.

    Returns:
        `(...)`; minus infinity for a tensor without any other weight, which is to be left out.
    """
    deviation = gradients.std(-2, correction=0)
    signal = torch.where(deviation == 0, 0.0, gradients.abs().mean(-2) / deviation)  # NaN stays
    return signal.sum(-1).log()


def sum_of_logs(logs: Tensor) -> Tensor:
    """Sum over the first dimension of what is not minus infinity; minus infinity where nothing else is."""
    absent = logs == -math.inf
    return torch.where(absent.all(0), -math.inf, torch.where(absent, 0.0, logs).sum(0))


def gradsign(gradients: Array) -> float:
    """Σ over weights of |Σ over images of the sign of the image's own gradient| (GradSign).

    Args:
        gradients: `(images, weights)`, of each image's own loss.
    """
    return float(double(gradients).sign().sum(0).abs().sum())


def knas(gradients: Array) -> float:
    """Mean of the Gram matrix of the images' gradients, the squared norm of their mean (KNAS as meant).

    The published program adds up products of unrelated images, whose expectation is 0.
    """
    return float(double(gradients).mean(0).square().sum())


def fisher(output: Array, gradient: Array, weights_per_channel: int) -> float:
    """½ mean over images of (Σ over pixels of z ∂L/∂z)² of each channel, times its weights (zero-cost-nas).

    Args:
        output, gradient: z, a layer's output, and ∂L/∂z; `(images, channels, ...)`.
        weights_per_channel: of the layer.
    """
    taps = torch.einsum("nc...,nc...->nc", double(output), double(gradient))
    return float(taps.square().mean(0).sum() / 2 * weights_per_channel)


def synflow(weight: Array, gradient: Array) -> float:
    """Σ |w ∂R/∂w| over a tensor, R the sum of the outputs of a network of absolute weights for ones (SynFlow)."""
    return snip(weight, gradient)


def logsynflow(weight: Array, gradient: Array) -> float:
    """Σ |w ln(1 + ∂R/∂w)| over a tensor of the same network (FreeREA)."""
    return float((double(weight) * double(gradient).log1p()).abs().sum())


def zen(features: Array, moved: Array, variances: Sequence[Array]) -> float:
    """ln of the mean change of the features, plus Σ over norms of ½ ln of the channels' mean variance (Zen-NAS).

    Args:
        features: of the images, before pooling, `(images, ...)`.
        moved: of the images with a little noise.
        variances: of the inputs of each batch norm, `(channels,)`. The published program reads running variances
            instead, which a few passes hardly move from 1.
    """
    change = (double(features) - double(moved)).abs().flatten(1).sum(1).mean().log()
    return float(change) + sum(float(double(variance).mean().log()) / 2 for variance in variances)
