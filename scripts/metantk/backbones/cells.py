"""The network that a genotype describes: stem, stacked cells, global average pool, linear head."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones import recompute
from metantk.backbones.drop import Drop
from metantk.backbones.initial import uniform_
from metantk.options.backbones.cells import Architecture as Architecture
from metantk.options.backbones.cells import Options as Options
from metantk.space.channels_last import concatenate
from metantk.space.layouts import Layout, few_shot_layout, make_layout
from metantk.space.operations import (
    FactorizedReduction,
    Norm,
    ReluConvNorm,
    answer_activated,
    drop_path,
    make_operation,
    make_stem,
)


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

    def remove_norms_of_pools(self) -> None:
        for index, operation in enumerate(self.operations):
            if isinstance(operation, nn.Sequential) and isinstance(operation[0], nn.AvgPool2d | nn.MaxPool2d):
                self.operations[index] = operation[0]

    def forward(self, before: Tensor, last: Tensor, rate: float = 0.0, draws: Tensor | None = None) -> Tensor:
        """The cell's output.

        Args:
            before, last: outputs of the last cell but one, and of the last cell, after their ReLU: each is read by
                two cells.
            draws: uniform `(operations, images)`, say what drop path drops.
        """
        inputs = zip(self.preprocess, (before, last), strict=True)
        states = [State(answer_activated(align, x, lambda x=x: x)) for align, x in inputs]
        for first in range(0, len(self.operations), 2):
            states.append(State(sum(self._output(k, states, rate, draws) for k in (first, first + 1))))
        return concatenate([state.x for state in states[2:]])

    def _output(self, index: int, states: list["State"], rate: float, draws: Tensor | None) -> Tensor:
        operation, state = self.operations[index], states[self.inputs[index]]
        output = answer_activated(operation, state.x, state.activated)
        if draws is None or isinstance(operation, nn.Identity):
            return output
        return drop_path(output, rate, draws[index])


class State:
    """A node's output `x`, and its ReLU, which is computed once for all operations that read it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._activated: Tensor | None = None

    def activated(self) -> Tensor:
        if self._activated is None:
            self._activated = functional.relu(self.x)
        return self._activated


class Network(nn.Module):
    """A stack of cells for classification; `features` is the backbone of few-shot learning.

    Where `recompute` is set, a cell's inner activations are not kept for the backward pass but computed again: the
    same gradients, in about the memory of one cell, for about a third more time.

    Args:
        genotype: as in `metantk.space.genotype`.
        layout: how cells are stacked.
        classes: outputs of the head.
        norm: makes the normalisation of a number of channels.
    """

    def __init__(self, genotype: dict, layout: Layout, *, classes: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = make_stem(layout, norm)
        before = last = layout.stem_channels[-1]
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind, channels in zip(layout.kinds, layout.channels, strict=True):
            reduction = kind == "reduce"
            cell = Cell(
                genotype[kind],
                (before, last),
                channels,
                reduction=reduction,
                reduction_before=reduction_before,
                norm=norm,
            )
            if not layout.pools_are_normed:
                cell.remove_norms_of_pools()
            self.cells.append(cell)
            before, last = last, channels * len(genotype[kind])
            reduction_before = reduction
        self.feature_dim = last
        self.head = nn.Linear(last, classes)
        self.recompute = False

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`; drop path follows the epochs."""
        dropping = drop is not None and self.training and drop.rate > 0
        rate = drop.rate * drop.progress if dropping else 0.0
        output = self.stem(images)
        before = last = functional.relu(output)
        for cell in self.cells:
            draws = None
            if dropping:
                draws = torch.rand(
                    len(cell.operations), len(images), generator=drop.generator, device=images.device
                )
            output = recompute.apply(cell, before, last, rate, draws, recompute=self.recompute)
            before, last = last, functional.relu(output)
        return output.mean((2, 3))

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, classes)`."""
        return self.head(self.features(images, drop))

    def initialise_(self, generator: torch.Generator) -> None:
        uniform_(self, generator)


def stack(genotype: dict, *, cells: int, channels: int, classes: int, norm: Norm = nn.BatchNorm2d) -> Network:
    """A network in the paper's layout: `channels` after the stem, doubled by each reduction cell."""
    return Network(genotype, few_shot_layout(cells, channels), classes=classes, norm=norm)


def build(architecture: dict, outputs: int) -> Network:
    """A stack of cells with `outputs` outputs; `architecture` as in `Architecture`."""
    layout = make_layout(architecture["layout"], cells=architecture["cells"], channels=architecture["channels"])
    return Network(architecture["genotype"], layout, classes=outputs)
