"""How cells are stacked, as data: the paper's stack, and those in which MetaNAS and T-NAS were published."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from metantk.backbones.cells import Cell
from metantk.space.genotype import CELL_TYPES, cell_types
from metantk.space.operations import Norm


class Layout(NamedTuple):
    """All of a stack but what is inside its cells.

    Attributes:
        stem_channels: outputs of each of the stem's 3×3 convolutions, one or two. One keeps the size of the
            pictures; of two, each is followed by a pooling that halves it.
        kinds: "normal" or "reduce", by cell.
        channels: of each node, by cell.
    """

    stem_channels: tuple[int, ...]
    kinds: tuple[str, ...]
    channels: tuple[int, ...]


def few_shot_layout(cells: int, channels: int) -> Layout:
    """The paper's (and this workflow's) stack: channels are doubled by each of the two reduction cells."""
    kinds = cell_types(cells)
    reductions = [kinds[: number + 1].count("reduce") for number in range(cells)]
    return Layout((channels,), tuple(kinds), tuple(channels * 2**count for count in reductions))


def metanas_layout(channels: int, cells: int, reductions: tuple[int, ...]) -> Layout:
    """MetaNAS's own: a stem of three times the channels, which are never doubled (published code).

    Args:
        reductions: numbers of the cells that halve the resolution: 1 and 3 of the search's 4 cells.
    """
    kinds = tuple("reduce" if number in reductions else "normal" for number in range(cells))
    return Layout((3 * channels,), kinds, (channels,) * cells)


def t_nas_layout(channels: int) -> Layout:
    """T-NAS's own: two convolutions with pooling, a normal cell, a reduction cell of twice the channels."""
    return Layout((3 * channels // 2, 3 * channels), CELL_TYPES, (channels, 2 * channels))


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


class StackedNetwork(nn.Module):
    """The network of a genotype in any layout; in `few_shot_layout` it is `metantk.backbones.cells.Network`.

    Args:
        pools_are_normed: whether poolings are followed by a norm, as in the paper's space; not so in T-NAS's.
    """

    def __init__(
        self,
        genotype: dict,
        layout: Layout,
        *,
        classes: int,
        norm: Norm = nn.BatchNorm2d,
        pools_are_normed: bool = True,
    ) -> None:
        super().__init__()
        self.stem = make_stem(layout, norm)
        before = last = layout.stem_channels[-1]
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind, channels in zip(layout.kinds, layout.channels, strict=True):
            cell = Cell(
                genotype[kind],
                (before, last),
                channels,
                reduction=kind == "reduce",
                reduction_before=reduction_before,
                norm=norm,
            )
            if not pools_are_normed:
                _remove_norms_of_pools(cell)
            self.cells.append(cell)
            before, last = last, channels * len(genotype[kind])
            reduction_before = kind == "reduce"
        self.feature_dim = last
        self.head = nn.Linear(last, classes)

    def features(self, images: Tensor, rate: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, feature_dim)`; `rate` is the drop-path rate."""
        before = last = self.stem(images)
        for cell in self.cells:
            draws = None
            if rate:
                draws = torch.rand(len(cell.operations), len(images), generator=generator, device=images.device)
            before, last = last, cell(before, last, rate, draws)
        return last.mean((2, 3))

    def forward(self, images: Tensor, rate: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Logits, `(pictures, classes)`."""
        return self.head(self.features(images, rate, generator))


def _remove_norms_of_pools(cell: Cell) -> None:
    for number, operation in enumerate(cell.operations):
        if isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.AvgPool2d | nn.MaxPool2d):
            cell.operations[number] = operation[0]
