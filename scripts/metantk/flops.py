"""Floating-point operations: of layers by their shapes, and of any computation as PyTorch counts them.

A multiply-accumulate is two operations. Convolutions and products alone count; norms, pooling, activations and
optimisers are left out.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def layer_macs(layer: nn.Module, output: Tensor) -> int:
    """Multiply-accumulates by which a convolution or a linear layer came to `output`, for all its images."""
    return output.numel() * layer.weight[0].numel()


@contextmanager
def macs_of_calls(layers: Iterable[tuple[nn.Module, nn.Module]]) -> Iterator[list[int]]:
    """Multiply-accumulates of the layers' calls within, one number for each call.

    Args:
        layers: the module that is called, and the one that holds its weight.
    """
    found: list[int] = []
    hooks = [
        called.register_forward_hook(
            lambda _, _inputs, output, layer=layer: found.append(layer_macs(layer, output))
        )
        for called, layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def count_operations(step: Callable[[], object]) -> int:
    """Floating-point operations of `step`, forward and backward, which must not change any state.

    Average pooling counts where it is a convolution, which it is not on a GPU.
    """
    with counter() as counted:
        step()
    return counted.get_total_flops()


def counter() -> FlopCounterMode:
    """PyTorch's counter, with the backward pass of a convolution put right."""
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=backward)


def _convolution_backward(
    output: torch.Size, images: torch.Size, weight: torch.Size, *arguments: object, **_: object
) -> int:
    """As many for each gradient that is asked for as the forward pass takes.

    PyTorch's own formula takes the weight gradient of a convolution in groups for that of a dense one: for a
    depthwise convolution, as many times too much as there are channels.

    Args:
        output, images, weight: shapes.
        arguments: bias, stride, padding, dilation, transposed, output padding, groups, which gradients are wanted.
    """
    transposed, wanted = arguments[4], arguments[7]
    return conv_flop_count(images, weight, output, transposed) * sum(wanted[:2])
