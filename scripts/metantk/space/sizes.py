"""How large a stack of cells is: a constant, and a size for each choice of its genotype. Imports no torch.

Sizes are those of the network without its head: what the features of a test image cost. All of them add up, so that
the size of any genotype is exact. The layers are those of `metantk.space.operations`.
"""

from typing import NamedTuple

from metantk.space.genotype import CELL_TYPES, Space
from metantk.space.layouts import Layout


class Size(NamedTuple):
    """Parameters, and multiply-accumulates and latency for one image.

    Attributes:
        latency_ns: in nanoseconds; 0 where it was not measured. See `metantk.space.latency`.
    """

    parameters: int
    multiply_accumulates: int
    latency_ns: int = 0

    def plus(self, other: "Size") -> "Size":
        return Size(*map(int.__add__, self, other))

    def times(self, count: int) -> "Size":
        return Size(*(count * each for each in self))


NOTHING = Size(0, 0)


def convolution(weights: int, pixels: int) -> Size:
    """Of a convolution with as many weights, each of which is used once for each pixel of the output."""
    return Size(weights, weights * pixels)


def norm(channels: int) -> Size:
    """Of a batch norm: a weight and a bias of each channel; only convolutions and products count as operations."""
    return Size(2 * channels, 0)


def operation_size(name: str, channels: int, stride: int, pixels: int, *, pools_are_normed: bool) -> Size:
    """Of an operation of an edge.

    Args:
        name: as in a genotype.
        pixels: of its output.
    """
    c = channels
    if name == "skip_connect":  # with stride, a factorised reduction
        return NOTHING if stride == 1 else aligning_size(c, c, pixels)
    if name.endswith("pool_3x3"):
        return norm(c) if pools_are_normed else NOTHING
    if name == "conv_1x5_5x1":
        return convolution(10 * c * c, pixels).plus(norm(c))
    kernel = int(name[-1])  # a depthwise and a 1×1 convolution
    block = convolution(kernel * kernel * c + c * c, pixels).plus(norm(c))
    return block.times(2 if name.startswith("sep_conv") else 1)


def aligning_size(channels_in: int, channels_out: int, pixels: int) -> Size:
    """Of a 1×1 convolution, whole or as a factorised reduction, and its norm."""
    return convolution(channels_in * channels_out, pixels).plus(norm(channels_out))


class StackSizes(NamedTuple):
    """Sizes of all networks of a stack.

    Attributes:
        fixed: of what all of them have.
        choices: by cell type, for each edge that of each operation, over all cells of the type.
    """

    fixed: Size
    choices: dict[str, list[list[Size]]]

    def of_genotype(self, space: Space, genotype: dict) -> Size:
        """Of a network."""
        total = self.fixed
        for cell in CELL_TYPES:
            for node, pairs in enumerate(genotype[cell], start=2):
                for operation, source in pairs:
                    edge = space.edges.index((source, node))
                    total = total.plus(self.choices[cell][edge][space.operations.index(operation)])
        return total


def stack_sizes(space: Space, layout: Layout, image_size: int) -> StackSizes:
    """Sizes of a stack on images of `image_size` × `image_size` pixels."""
    fixed, side = _stem(layout, image_size)
    choices = {cell: [[NOTHING for _ in space.operations] for _ in space.edges] for cell in CELL_TYPES}
    before = last = layout.stem_channels[-1]
    for kind, channels in zip(layout.kinds, layout.channels, strict=True):
        for channels_in in (before, last):
            fixed = fixed.plus(aligning_size(channels_in, channels, side * side))
        reduced = (side + 1) // 2 if kind == "reduce" else side
        for sizes, edge in zip(choices[kind], space.edges, strict=True):
            stride = 2 if kind == "reduce" and edge.input < 2 else 1
            for index, name in enumerate(space.operations):
                sizes[index] = sizes[index].plus(
                    operation_size(
                        name, channels, stride, reduced * reduced, pools_are_normed=layout.pools_are_normed
                    )
                )
        before, last, side = last, channels * space.nodes, reduced
    return StackSizes(fixed, choices)


def _stem(layout: Layout, side: int) -> tuple[Size, int]:
    """Of the stem, and the height and width of its output; of two convolutions, each is pooled to a half."""
    size, channels_in = NOTHING, 3
    for channels in layout.stem_channels:
        size = size.plus(convolution(9 * channels_in * channels, side * side)).plus(norm(channels))
        channels_in = channels
        if len(layout.stem_channels) > 1:
            side //= 2
    return size, side
