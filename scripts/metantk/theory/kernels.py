"""Kernels of the theory: empirical ones by Jacobians, the MetaNTK by definition and by formula, kernel regression.

Rows of all kernels are image by image and, within an image, output by output; images lie as `meta_ntk` wants
them: all queries task by task, then all supports.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from metantk.kernels import adaptation, adaptation_rows, meta_ntk
from metantk.theory.maml import InnerLoop, Model, Tasks, meta_output
from metantk.theory.networks import HEAD, Network, Weights, closed_form_kernels


class Pair(NamedTuple):
    """Two kernels between the same rows, `(rows, rows)` each.

    Attributes:
        ntk: Θ, over all weights.
        nngp: the same over the head alone, ANIL's K.
    """

    ntk: Tensor
    nngp: Tensor

    def base(self, inner: InnerLoop) -> Tensor:
        """K of the inner loop: Θ for MAML, the NNGP for ANIL."""
        return self.nngp if inner.head_only else self.ntk


def all_inputs(tasks: Tasks) -> Tensor:
    """`(images, ...)`: all queries task by task, then all supports."""
    return torch.cat([tasks.query.flatten(0, 1), tasks.support.flatten(0, 1)])


def empirical_kernels(model: Model, weights: Weights, inputs: Tensor) -> Pair:
    """Θ̂ of Definition 1 and the NNGP, `(images * outputs, images * outputs)`, by Jacobians of each image."""

    def outputs(weights: Weights, image: Tensor) -> Tensor:
        return model(weights, image[None])[0]

    grams = _grams(vmap(jacrev(outputs), in_dims=(None, 0))(weights, inputs))
    return Pair(sum(grams.values()), grams[HEAD])


def meta_ntk_by_definition(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """Eq. 4: the Gram matrix of the Jacobian of the meta-output, the inner loop's Hessian included.

    Returns:
        `(tasks * queries * outputs, tasks * queries * outputs)`.
    """

    def outputs(weights: Weights, *task: Tensor) -> Tensor:
        return meta_output(model, weights, Tasks(*task), inner).flatten()

    return sum(_grams(vmap(jacrev(outputs), in_dims=(None, *[0] * len(tasks)))(weights, *tasks)).values())


def _grams(jacobian: Weights) -> Weights:
    """Gram matrix of the rows of each weight's Jacobian `(batch, outputs, *weight)`."""
    rows = {name: part.flatten(0, 1).flatten(1) for name, part in jacobian.items()}
    return {name: part @ part.T for name, part in rows.items()}


def infinite_kernels(network: Network, inputs: Tensor) -> Pair:
    """Θ of Eq. 9 and the NNGP for all outputs of the infinitely wide network: outputs do not mix."""
    identity = torch.eye(network.outputs, dtype=torch.float64)
    return Pair(*(torch.kron(kernel, identity) for kernel in closed_form_kernels(network, inputs)))


def meta_ntk_by_formula(kernels: Pair, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """Eqs. 10-11 (last term transposed) for MAML and ANIL; for a single inner step, T = λI.

    Returns:
        `(tasks * queries * outputs, tasks * queries * outputs)`.
    """
    if inner.steps:
        return meta_ntk(kernels.ntk, kernels.base(inner), **_shape(tasks), time=inner.time, ridge=0.0)
    adapt = _adaptation_rows(kernels, tasks, inner)
    return adapt @ kernels.ntk @ adapt.T


def meta_ntk_as_printed(kernels: Pair, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """Eq. 11 to the letter: its last term, Θ(X'_i, X'_j) T_jᵀ Θ(X'_j, X_j), begins with supports.

    The term has the block's shape only where a task has as many queries as supports.
    """
    count, queries, supports = _shape(tasks).values()
    rows = count * queries
    adapt = _adaptation_rows(kernels, tasks, inner)
    query, support = slice(0, rows), slice(rows, None)
    applied = -adapt[:, support]  # block diagonal: A_i = K_QiSi T_i
    theta = kernels.ntk
    inverses = torch.block_diag(*(_inverse(block, inner) for block in _support_blocks(kernels.base(inner), tasks)))
    own = torch.block_diag(*[torch.ones(supports, supports, dtype=bool)] * count)
    # T_j stands between supports and queries of the same task j only.
    last = theta[support, support] @ inverses.T @ (theta[support, query] * own)
    third = applied @ theta[support, query]
    return theta[query, query] + applied @ theta[support, support] @ applied.T - third - last


def _support_blocks(kernel: Tensor, tasks: Tasks) -> list[Tensor]:
    count, queries, supports = _shape(tasks).values()
    starts = range(count * queries, len(kernel), supports)
    return [kernel[start : start + supports, start : start + supports] for start in starts]


def _shape(tasks: Tasks) -> dict[str, int]:
    """Rows of the kernels: number of tasks, and queries and supports per task times outputs."""
    return {
        "tasks": len(tasks.query),
        "queries": tasks.query_targets[0].numel(),
        "supports": tasks.support_targets[0].numel(),
    }


def _inverse(kernel: Tensor, inner: InnerLoop) -> Tensor:
    """T of a task's support kernel: K⁻¹(I − exp(−λτK)) for the flow, λI for a single step."""
    if inner.steps:
        return adaptation(kernel, inner.time, 0.0)
    return inner.time * torch.eye(len(kernel), dtype=kernel.dtype)


def _adaptation_rows(kernels: Pair, tasks: Tasks, inner: InnerLoop) -> Tensor:
    return adaptation_rows(kernels.base(inner), **_shape(tasks), inverse=lambda k: _inverse(k, inner))


def adapted_regression(kernels: Pair, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """G of Eq. 13, K(X, X') T Y' of each task: the meta-output before meta-training, from zero outputs.

    Returns:
        `(tasks, queries, outputs)`.
    """
    count, queries, _ = _shape(tasks).values()
    rows = _adaptation_rows(kernels, tasks, inner)[:, count * queries :]
    return -(rows @ tasks.support_targets.flatten()).view_as(tasks.query_targets)


def kernel_regression(
    phi: Tensor, start: Tensor, targets: Tensor, trained: int, *, time: float, rate: float | None = None
) -> Tensor:
    """Eq. 8 on every task, `start` plus what the MetaNTK carries over from training tasks; Eq. 12 if `start` is G.

    Args:
        phi: the MetaNTK between the queries of all tasks.
        start: meta-outputs before meta-training, `(tasks, queries, outputs)`.
        targets: the queries' targets, the same shape; those of the first `trained` tasks are looked at.
        time: ηt, the learning rate times the steps; infinite for the end of training.
        rate: η of finite steps: the residual is then (I − ηΦ)^t, not exp(−ηtΦ), its limit for small η.

    Returns:
        F_t, `(tasks, queries, outputs)`.
    """
    rows = targets[:trained].numel()
    residual = (targets - start)[:trained].flatten()
    change = phi[:, :rows] @ learned(phi[:rows, :rows], residual, time=time, rate=rate)
    return start + change.view_as(start)


def learned(phi: Tensor, residual: Tensor, *, time: float, rate: float | None = None) -> Tensor:
    """T_Φ(t) residual with T = Φ⁻¹(I − exp(−ηtΦ)), through the eigenvalues: a singular Φ is no trouble.

    Directions in which Φ is zero to rounding are not learned, whatever the time.
    """
    values, vectors = torch.linalg.eigh((phi + phi.T) / 2)
    seen = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    if math.isinf(time):
        share = seen.double()
    elif rate is None:
        share = -torch.expm1(-time * values)
    else:
        share = 1 - (1 - rate * values) ** round(time / rate)
    factors = torch.where(seen, share / torch.where(seen, values, torch.ones_like(values)), 0.0)
    return vectors @ (factors * (vectors.T @ residual))


def relative_distance(got: Tensor, expected: Tensor) -> float:
    """‖got − expected‖ / ‖expected‖, Frobenius."""
    return float((got - expected).norm() / expected.norm())
