"""Depthwise convolutions and average pooling for CPUs: the same numbers, gradients included, several times as fast.

PyTorch's CPU library has fast code for a depthwise convolution's weight gradient only where the kernel is at most 3
wide and not dilated; 5×5 and dilated ones take ten to twenty times as long as their forward pass. Here they are put
together from what is fast. Times are of 64 × 16 channels × 32 × 32 in channels-last order on one AMD EPYC core:

- Weight gradient of 5×5: that of two 5×3 kernels, which share their middle column; 7.8 ms before.
- Weight gradient with dilation 2: the plain one on the four images of every second pixel; 3.9 and 8.5 ms before.
- Gradient of the input: the convolution of the outputs' with the kernel turned by 180°; 4.4 and 8.1 ms before.
- Dilation and stride 2: a plain convolution of every second pixel; 19 and 33 ms before.
- Average pooling: a depthwise convolution with ones, divided by the number of pixels; 4.3 ms before.

On other devices all of it is PyTorch's own.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from metantk.space.channels_last import every_second, last

WIDE = 3  # the widest kernel whose weight gradient is fast


class Depthwise(nn.Conv2d):
    """A depthwise convolution of odd square kernel without bias; the size of images stays, or is halved."""

    def __init__(self, channels: int, kernel: int, *, stride: int, dilation: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        (stride, _), (dilation, _) = self.stride, self.dilation
        plain = self.kernel_size[0] <= WIDE and dilation == 1
        if plain or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        if dilation == stride == 2:
            x, stride, dilation = every_second(x), 1, 1
        # What autocast does to PyTorch's own, which the backward pass needs to know of.
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return _Convolution.apply(x.to(dtype), self.weight.to(dtype), stride, dilation)


class _Convolution(torch.autograd.Function):
    """Depthwise, padded by half the kernel; its gradients can be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        padding = dilation * (weight.shape[2] // 2)
        return functional.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        x, weight, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_output = last(grad_output)
        of_x = input_gradient(grad_output, x, weight, ctx.stride, ctx.dilation) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(grad_output, x, weight, ctx.stride, ctx.dilation)
        return of_x, of_weight, None, None


def input_gradient(grad_output: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Of the convolution's input, from the gradient `slope` of its output."""
    if stride == 1:
        return _Convolution.apply(grad_output, weight.flip(2, 3), 1, dilation)
    return _backward(grad_output, x, weight, stride, dilation * (weight.shape[2] // 2), of_input=True)


def weight_gradient(grad_output: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Of the convolution's weight `(channels, 1, kernel, kernel)`, from the gradient `slope` of its output."""
    kernel = weight.shape[2]
    if dilation == 2:  # and stride 1
        grad_output, x = _every_second(grad_output), _every_second(x)
    if kernel <= WIDE:
        return _backward(grad_output, x, weight, stride, kernel // 2)
    padded = functional.pad(x, [kernel // 2] * 2)
    width = stride * (grad_output.shape[3] - 1) + WIDE
    columns = []
    for first in range(0, kernel - 1, WIDE - 1):
        part = last(padded[..., first : first + width])
        narrow = weight.new_empty(len(weight), 1, kernel, WIDE)
        columns.append(_backward(grad_output, part, narrow, stride, (kernel // 2, 0))[..., (first > 0) :])
    return torch.cat(columns, dim=3)


def _backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int | tuple[int, int],
    *,
    of_input: bool = False,
) -> Tensor:
    """PyTorch's own gradient of the input or of the weight."""
    if isinstance(padding, int):
        padding = (padding, padding)
    wanted = [of_input, not of_input, False]
    arguments = [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), wanted
    return torch.ops.aten.convolution_backward(grad_output, x, weight, None, *arguments)[0 if of_input else 1]


def _every_second(x: Tensor) -> Tensor:
    """The four images of every second pixel of each image, one after the other; odd sizes end in zeros."""
    rows = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)).permute(0, 2, 3, 1)
    parts = rows.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(2, 4, 0, 1, 3, 5)
    return parts.flatten(0, 2).permute(0, 3, 1, 2)


class AveragePool(nn.AvgPool2d):
    """The mean of the pixels of 3×3 that lie within the image."""

    def __init__(self, stride: int) -> None:
        super().__init__(3, stride, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        channels = x.shape[1]
        sums = functional.conv2d(x, x.new_ones(channels, 1, 3, 3), None, self.stride, 1, 1, channels)
        return sums * _shares(*x.shape[2:], self.stride, sums.dtype)


class MaxPool(nn.MaxPool2d):
    """The largest of the pixels of 3×3 that lie within the image."""

    def __init__(self, stride: int) -> None:
        super().__init__(3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        for axis in (3, 2):
            edge = (1, 1) if axis == 3 else (0, 0, 1, 1)
            padded, size = functional.pad(x, edge, value=-torch.inf), x.shape[axis]
            first, second, third = (padded.narrow(axis, start, size) for start in range(3))
            x = torch.maximum(torch.maximum(first, second), third)
        return x[:, :, :: self.stride, :: self.stride]


@functools.lru_cache(maxsize=64)
def _shares(height: int, width: int, stride: int, dtype: torch.dtype) -> Tensor:
    """One over the number of pixels that each mean is of, `(1, 1, height, width)` of the output."""
    # Kept for all: one of inference mode, or an exporter's, which holds no numbers, would be of no use to others.
    with torch.inference_mode(False), _disable_current_modes():
        rows, columns = (_window_lengths(size, stride) for size in (height, width))
        return (1 / torch.outer(rows, columns).to(dtype))[None, None]


def _window_lengths(size: int, stride: int) -> Tensor:
    """How many of the pixels around each of every `stride`-th lie within a row of `size`."""
    middle = torch.arange(0, size, stride)
    return (middle + 1).clamp(max=size - 1) - (middle - 1).clamp(min=0) + 1
