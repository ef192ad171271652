"""The operations of a cell as plain modules, and the blocks around them (facts of DARTS, MetaNAS, TE-NAS).

All map `(images, channels, height, width)` to `(images, channels_out, height / stride, width / stride)`.
`norm` makes the normalisation for a number of channels: batch normalisation in the trained network.
"""

from collections.abc import Callable

from torch import Tensor, nn

from metantk.space.channels_last import concatenate, first_and_second
from metantk.space.depthwise import AveragePool, Depthwise, MaxPool
from metantk.space.layouts import Layout

Norm = Callable[[int], nn.Module]


class ReluConvNorm(nn.Sequential):
    """ReLU, 1×1 convolution, norm: brings a cell's input to the cell's channels."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(channels_in, channels_out, 1, bias=False), norm(channels_out))


class FactorizedReduction(nn.Module):
    """Halves the resolution with two stride-2 1×1 convolutions, the second on the image shifted by a pixel."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm) -> None:
        super().__init__()
        half = channels_out // 2
        self.even = nn.Conv2d(channels_in, half, 1, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - half, 1, bias=False)
        self.relu = nn.ReLU()
        self.norm = norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.after_relu(self.relu(x))

    def after_relu(self, x: Tensor) -> Tensor:
        # Sliced rather than strided: oneDNN's backward pass of strided 1×1 convolutions of fewer than 8 channels
        # in channels_last order writes past its memory (oneDNN issue 6035; seen here as crashes).
        first, second = first_and_second(x)
        return self.norm(concatenate([self.even(first), self.odd(second)]))


class SeparableBlock(nn.Sequential):
    """ReLU, depthwise convolution, 1×1 convolution, norm."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, norm: Norm) -> None:
        depthwise = Depthwise(channels, kernel, stride=stride, dilation=dilation)
        super().__init__(nn.ReLU(), depthwise, nn.Conv2d(channels, channels, 1, bias=False), norm(channels))


def conv_1x5_5x1(channels: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 5), stride=stride, padding=(0, 2), bias=False),
        nn.Conv2d(channels, channels, (5, 1), padding=(2, 0), bias=False),
        norm(channels),
    )


def skip_connect(channels: int, stride: int, norm: Norm) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduction(channels, channels, norm)


def separable_twice(channels: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    first = SeparableBlock(channels, kernel, stride, 1, norm)
    return nn.Sequential(first, SeparableBlock(channels, kernel, 1, 1, norm))


def make_operation(name: str, channels: int, stride: int, norm: Norm) -> nn.Module:
    """One operation of an edge, by its name in the genotype."""
    match name:
        case "skip_connect":
            return skip_connect(channels, stride, norm)
        case "conv_3x3":
            return SeparableBlock(channels, 3, stride, 1, norm)
        case "sep_conv_3x3":
            return separable_twice(channels, 3, stride, norm)
        case "sep_conv_5x5":
            return separable_twice(channels, 5, stride, norm)
        case "dil_conv_3x3":
            return SeparableBlock(channels, 3, stride, 2, norm)
        case "dil_conv_5x5":
            return SeparableBlock(channels, 5, stride, 2, norm)
        case "conv_1x5_5x1":
            return conv_1x5_5x1(channels, stride, norm)
        case "avg_pool_3x3":
            return nn.Sequential(AveragePool(stride), norm(channels))
        case "max_pool_3x3":
            return nn.Sequential(MaxPool(stride), norm(channels))
    raise KeyError(name)


def make_stem(layout: Layout, norm: Norm) -> nn.Sequential:
    """3 channels to the last of `stem_channels`."""
    if len(layout.stem_channels) == 1:
        (channels,) = layout.stem_channels
        return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), norm(channels))
    first, second = layout.stem_channels
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1, bias=False),
        norm(first),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, bias=False),
        norm(second),
        nn.MaxPool2d(2),
    )


def answer_activated(operation: nn.Module, x: Tensor, activated: Callable[[], Tensor]) -> Tensor:
    """`operation(x)`; where it begins with a ReLU, `activated` gives that of `x`, which operations share."""
    if isinstance(operation, FactorizedReduction):
        return operation.after_relu(activated())
    if isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.ReLU):
        x = activated()
        for module in list(operation)[1:]:
            x = module(x)
        return x
    if isinstance(operation, nn.Sequential) and isinstance(operation[0], SeparableBlock):
        first, second = operation
        return second(answer_activated(first, x, activated))
    return operation(x)


def drop_path(x: Tensor, rate: float, draws: Tensor) -> Tensor:
    """Drop an operation's whole output for the images whose draw, uniform in 0..1, is below `rate`.

    What is kept is scaled up, so that the mean stays.
    """
    kept = draws >= rate
    return x * (kept.to(x.dtype) / (1 - rate)).view(-1, 1, 1, 1)
