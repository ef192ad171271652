"""The network that a genotype describes: stem, stacked cells, global average pool, linear head."""

import torch
from torch import Tensor, nn

from metantk.backbones import recompute
from metantk.backbones.drop import Drop
from metantk.backbones.initial import uniform_
from metantk.options.backbones.cells import Architecture as Architecture
from metantk.options.backbones.cells import Options as Options
from metantk.space.genotype import cell_types
from metantk.space.operations import FactorizedReduction, Norm, ReluConvNorm, drop_path, make_operation


class Cell(nn.Module):
    """One cell: two inputs, intermediate nodes that sum two operations each, all nodes concatenated.

    Args:
        nodes: the genotype's list for this type of cell.
        channels_before: channels of the outputs of the last cell but one, and of the last cell.
        channels: of each node.
        reduction: whether operations on the two inputs have stride 2.
        reduction_before: whether the last cell was a reduction (its output is half the size of the one before).
    """

    def __init__(
        self,
        nodes: list,
        channels_before: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        align = FactorizedReduction if reduction_before else ReluConvNorm
        self.preprocess = nn.ModuleList(
            [align(channels_before[0], channels, norm), ReluConvNorm(channels_before[1], channels, norm)]
        )
        self.inputs = [source for node in nodes for _, source in node]
        self.operations = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and source < 2 else 1, norm)
            for node in nodes
            for name, source in node
        )

    def forward(self, before: Tensor, last: Tensor, rate: float = 0.0, draws: Tensor | None = None) -> Tensor:
        """The cell's output; `draws`, uniform `(operations, pictures)`, say what drop path drops."""
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for first in range(0, len(self.operations), 2):
            states.append(sum(self._output(k, states, rate, draws) for k in (first, first + 1)))
        return torch.cat(states[2:], dim=1)

    def _output(self, number: int, states: list, rate: float, draws: Tensor | None) -> Tensor:
        operation = self.operations[number]
        output = operation(states[self.inputs[number]])
        if draws is None or isinstance(operation, nn.Identity):
            return output
        return drop_path(output, rate, draws[number])


class Network(nn.Module):
    """A stack of cells for classification; `features` is the backbone of few-shot learning.

    Where `recompute` is set, a cell's inner activations are not kept for the backward pass but computed again: the
    same gradients, in about the memory of one cell, for about a third more time.

    Args:
        genotype: as in `metantk.space.genotype`.
        cells: cells in the stack.
        channels: after the stem; doubled by each reduction cell.
        classes: outputs of the head.
        norm: makes the normalisation of a number of channels.
    """

    def __init__(
        self, genotype: dict, *, cells: int, channels: int, classes: int, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), norm(channels))
        before, last = channels, channels
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind in cell_types(cells):
            reduction = kind == "reduce"
            channels *= 2 if reduction else 1
            self.cells.append(
                Cell(
                    genotype[kind],
                    (before, last),
                    channels,
                    reduction=reduction,
                    reduction_before=reduction_before,
                    norm=norm,
                )
            )
            before, last = last, channels * len(genotype[kind])
            reduction_before = reduction
        self.feature_dim = last
        self.head = nn.Linear(last, classes)
        self.recompute = False

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, feature_dim)`; drop path follows the epochs."""
        dropping = drop is not None and self.training and drop.rate > 0
        rate = drop.rate * drop.progress if dropping else 0.0
        before = last = self.stem(images)
        for cell in self.cells:
            draws = None
            if dropping:
                draws = torch.rand(
                    len(cell.operations), len(images), generator=drop.generator, device=images.device
                )
            before, last = last, recompute.apply(cell, before, last, rate, draws, recompute=self.recompute)
        return last.mean((2, 3))

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(pictures, classes)`."""
        return self.head(self.features(images, drop))

    def initialise_(self, generator: torch.Generator) -> None:
        uniform_(self, generator)


def build(architecture: dict, outputs: int) -> Network:
    """A stack of cells with `outputs` outputs; `architecture` as in `Architecture`."""
    return Network(
        architecture["genotype"],
        cells=architecture["cells"],
        channels=architecture["channels"],
        classes=outputs,
    )
