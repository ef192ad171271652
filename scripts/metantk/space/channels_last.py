"""Slices and concatenations whose gradients lie in memory as images do: channels last.

PyTorch's own give gradients in other orders, or as parts of larger tensors; what follows in the backward pass,
batch normalisation above all, is then some five times as slow on a CPU. Values and gradients are the same, can be
differentiated again, and be mapped over tasks.
"""

import torch
from torch import Tensor
from torch.nn import functional


def concatenate(parts: list[Tensor]) -> Tensor:
    """Along the channels."""
    return _Concatenation.apply(*parts) if torch.is_grad_enabled() else torch.cat(parts, dim=1)


def every_second(x: Tensor) -> Tensor:
    """The first of every two pixels of the first of every two rows, `(images, channels, ⌈h / 2⌉, ⌈w / 2⌉)`."""
    return _phases(x, 1)[0]


def first_and_second(x: Tensor) -> tuple[Tensor, Tensor]:
    """`every_second` of the images, and of them shifted by a pixel, which end in zeros where sizes are odd."""
    return _phases(x, 2)


def last(x: Tensor) -> Tensor:
    """`x` in channels-last order."""
    # A task of many under vmap has no memory format of its own.
    return (
        x if torch._C._functorch.is_functorch_wrapped_tensor(x) else x.contiguous(memory_format=torch.channels_last)
    )


def _phases(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return _Phases.apply(x, count) if torch.is_grad_enabled() else tuple(_phase(x, p) for p in range(count))


def _phase(x: Tensor, phase: int) -> Tensor:
    missing = [0, x.shape[3] % 2, 0, x.shape[2] % 2] if phase else [0] * 4
    return functional.pad(x[:, :, phase::2, phase::2], missing)


class _Concatenation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=1)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.channels = [part.shape[1] for part in inputs]

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, ...]:
        return tuple(last(part) for part in grad_output.split(ctx.channels, dim=1))


class _Phases(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, count: int) -> tuple[Tensor, ...]:
        return tuple(last(_phase(x, phase)) for phase in range(count))

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.size = inputs[0].shape[2:]

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(*ctx.size, *grad_outputs), None


class _Spread(torch.autograd.Function):
    """The adjoint of `_Phases`, and the other way round."""

    generate_vmap_rule = True

    @staticmethod
    def forward(height: int, width: int, *parts: Tensor) -> Tensor:
        images, channels = parts[0].shape[:2]
        x = parts[0].new_zeros(images, height, width, channels).permute(0, 3, 1, 2)
        for phase, part in enumerate(parts):
            place = x[:, :, phase::2, phase::2]
            place.copy_(part[:, :, : place.shape[2], : place.shape[3]])
        return x

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.count = len(inputs) - 2

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple:
        return None, None, *_Phases.apply(grad_output, ctx.count)
