"""Neural tangent kernels at initialisation, the MetaNTK built from them, and condition numbers.

Per-sample gradients come from Opacus' hooks; each layer's are contracted to a Gram matrix at once and dropped.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn
from torch.nn import functional

from metantk.flops import layer_macs
from metantk.space.supernet import Convolution, Supernet


@register_grad_sampler(Convolution)
def sample_convolution(layer: Convolution, activations: list[Tensor], backprops: Tensor) -> dict:
    """Per-sample weight gradients, `(images, channels_out, channels_in / groups, height, width)`."""
    x = activations[0]
    is_depthwise = layer.weight.shape[1] == 1
    # Folding is faster on a CPU (measured: by 15 % of a kernel); cuDNN is slow with many groups that are no
    # depthwise convolution.
    as_products = layer.is_pointwise or (x.device.type != "cpu" and not is_depthwise)
    sample = sample_by_products if as_products else sample_by_folding
    return {layer.weight: sample(layer, x, backprops)}


def sample_by_products(layer: Convolution, x: Tensor, backprops: Tensor) -> Tensor:
    """One matrix product per image and group; 1×1 kernels need no unfolding."""
    left = backprops.flatten(2).unflatten(1, (layer.groups, -1)).flatten(0, 1)
    right = x.reshape(len(left), -1, *x.shape[2:])
    if layer.is_pointwise:
        right = right.flatten(2)
    else:
        right = functional.unfold(right, layer.weight.shape[2:], padding=layer.padding, stride=layer.stride)
    return torch.bmm(left, right.transpose(1, 2)).view(len(x), *layer.weight.shape)


def sample_by_folding(layer: Convolution, x: Tensor, backprops: Tensor) -> Tensor:
    """Images folded into groups: the weight gradient of the folded convolution *is* the per-sample one."""
    shape = (len(x), *layer.weight.shape)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        backprops.reshape(1, -1, *backprops.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        x.new_empty(shape).flatten(0, 1),
        None,
        [layer.stride] * 2,
        list(layer.padding),
        [1, 1],
        False,
        [0, 0],
        len(x) * layer.groups,
        [False, True, False],
    )
    return gradient.view(shape)


class GramModule(GradSampleModule):
    """Opacus' module, with each layer's per-sample gradients contracted as soon as they are known.

    Attributes:
        ntk: `(candidates, images, images)` float64, summed over the layers seen in the backward pass.
        nngp: the same, over the head alone.
        operations: floating-point operations of the convolutions, the head and the Grams so far.
    """

    def __init__(self, network: Supernet, candidates: int) -> None:
        super().__init__(network, loss_reduction="sum")
        self.candidates = candidates
        self.ntk: Tensor | float = 0.0
        self.nngp: Tensor | float = 0.0
        self.operations = 0

    def capture_backprops_hook(
        self, module: nn.Module, _inputs: Tensor, outputs: Tensor, loss_reduction: str, batch_first: bool
    ) -> None:
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=outputs[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        del module.max_batch_len
        for gradient in self.GRAD_SAMPLERS[type(module)](module, activations, backprops).values():
            rows = gradient.reshape(self.candidates, -1, gradient[0].numel())
            if rows.device.type != "cpu":  # there float64 is cheap, and products of float32 may be TF32's
                rows = rows.double()
            gram = (rows @ rows.transpose(1, 2)).double()
            self.ntk = self.ntk + gram
            # Multiply-accumulates of the forward pass, as many for each of both gradients, then the Gram's.
            products = 3 * layer_macs(module, backprops) + gram.numel() * gradient[0].numel()
            self.operations += 2 * products
            if module is self._module.head:
                self.nngp = self.nngp + gram


class Kernels(NamedTuple):
    """Kernels of many candidates on the same images, and what they cost.

    Attributes:
        ntk: `(candidates, images, images)` float64 (paper, Definition 1).
        nngp: the same, over the weights of the head alone.
        operations: floating-point operations spent.
    """

    ntk: Tensor
    nngp: Tensor
    operations: int


def empirical_kernels(network: Supernet, images: Tensor, masks: dict[str, Tensor]) -> Kernels:
    """NTK and NNGP of each candidate for the sum of the outputs, over all convolution and linear weights.

    Args:
        network: a supernet with a head and with group norm.
        images: `(images, channels, height, width)`.
        masks: for each cell type, `(candidates, edges, operations)` bool.
    """
    candidates = len(masks["normal"])
    grams = GramModule(network, candidates)
    try:
        # Convolutions use their weights detached: the images keep the graph alive down to the stem.
        grams(images.detach().requires_grad_(), masks).sum().backward()
    finally:
        grams.remove_hooks()
    return Kernels(grams.ntk, grams.nngp, grams.operations)


def meta_ntk(
    ntk: Tensor | np.ndarray,
    base: Tensor | np.ndarray,
    *,
    tasks: int,
    queries: int,
    supports: int,
    time: float,
    ridge: float,
) -> Tensor:
    """The MetaNTK of Eqs. 10-11, with the transpose that the printed last term lacks.

    Args:
        ntk: Θ, `(..., m, m)` with m = tasks * (queries + supports): all queries task by task, then all supports.
        base: K of the inner loop, the same shape: the NTK for MAML, the NNGP for ANIL.
        tasks: number of tasks.
        queries: queries per task.
        supports: supports per task.
        time: λτ of the inner loop; `math.inf` drops the exponential.
        ridge: ρ, added to the inverted support kernel's diagonal (not within the exponential).

    Returns:
        `(..., tasks * queries, tasks * queries)` in float64.
    """
    theta = torch.as_tensor(ntk).double()
    kernel = torch.as_tensor(base).double()
    size = tasks * (queries + supports)
    if theta.shape[-2:] != (size, size) or kernel.shape != theta.shape:
        raise ValueError(
            f"kernels are {tuple(theta.shape)} and {tuple(kernel.shape)}, expected (..., {size}, {size})"
        )
    adapt = adaptation_rows(
        kernel, tasks=tasks, queries=queries, supports=supports, inverse=lambda k: adaptation(k, time, ridge)
    )
    return adapt @ theta @ adapt.transpose(-1, -2)


def adaptation_rows(
    kernel: Tensor, *, tasks: int, queries: int, supports: int, inverse: Callable[[Tensor], Tensor]
) -> Tensor:
    """Rows that take gradients of all images to those of the adapted queries: query − A_i support.

    Args:
        kernel: K, `(..., m, m)`, in the order of `meta_ntk`.
        inverse: makes T_i of K_SiSi; A_i = K_QiSi T_i.

    Returns:
        `(..., tasks * queries, m)`.
    """
    count = tasks * queries
    adapt = kernel.new_zeros(*kernel.shape[:-2], count, kernel.shape[-1])
    adapt[..., torch.arange(count), torch.arange(count)] = 1
    for task in range(tasks):
        query = slice(task * queries, (task + 1) * queries)
        support = slice(count + task * supports, count + (task + 1) * supports)
        adapt[..., query, support] = -kernel[..., query, support] @ inverse(kernel[..., support, support])
    return adapt


def adaptation(kernel: Tensor, time: float, ridge: float) -> Tensor:
    """T = (K + ρI)⁻¹ (I − exp(−tK)) of a symmetric K."""
    identity = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    change = identity.expand_as(kernel) if math.isinf(time) else identity - torch.linalg.matrix_exp(-time * kernel)
    return torch.linalg.solve_ex(kernel + ridge * identity, change)[0]


def eigenvalues(matrices: Tensor) -> Tensor:
    """Eigenvalues of symmetric `(..., n, n)` matrices, ascending, `(..., n)` float64; NaN for one not finite."""
    matrices = matrices.double()
    matrices = (matrices + matrices.transpose(-1, -2)) / 2
    finite = torch.isfinite(matrices).all(-1).all(-1)[..., None]
    values = torch.linalg.eigvalsh(torch.where(finite[..., None], matrices, 0.0))
    return torch.where(finite, values, math.nan)


def condition_numbers(matrices: Tensor) -> Tensor:
    """Largest over smallest eigenvalue of each symmetric `(..., n, n)` matrix (Eq. 14), float64.

    Infinite where a matrix is not finite or its smallest eigenvalue is not positive: worse than any other.
    """
    values = eigenvalues(matrices)
    smallest, largest = values[..., 0], values[..., -1]
    return torch.where(smallest > 0, largest / smallest, math.inf)


def spectral_entropies(matrices: Tensor) -> Tensor:
    """Entropy of the eigenvalues of each symmetric `(..., n, n)` matrix, divided by their sum; nats, float64.

    ln n for equal eigenvalues, 0 where one is all there is. Eigenvalues below 0 (rounding) count as 0. Minus
    infinity for a matrix that is not finite or has no positive eigenvalue: worse than any other.
    """
    values = eigenvalues(matrices).clamp(min=0)  # NaN stays
    total = values.sum(-1, keepdim=True)
    entropy = torch.special.entr(values / total).sum(-1)
    return torch.where(total[..., 0] > 0, entropy, -math.inf)
