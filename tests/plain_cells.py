"""The trained network of cells as it reads: PyTorch's own modules, each operation with a ReLU of its own."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones.cells import Cell, Network
from metantk.backbones.drop import Drop
from metantk.space.depthwise import AveragePool, Depthwise, MaxPool
from metantk.space.operations import FactorizedReduction, drop_path


def plain(module: nn.Module) -> nn.Module:
    """PyTorch's own modules with the same weights under the same names; `module` stays as it is."""
    return made_plain(copy.deepcopy(module))


def made_plain(module: nn.Module) -> nn.Module:
    """`module` itself, with PyTorch's own modules in the places of ours."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            setattr(parent, name, own_module(child))
    return module


def own_module(child: nn.Module) -> nn.Module:
    """PyTorch's module for one of ours; any other is returned."""
    if isinstance(child, Depthwise):
        criteria_options = {key: getattr(child, key) for key in ("stride", "padding", "dilation", "groups")}
        own = nn.Conv2d(child.in_channels, child.out_channels, child.kernel_size, **criteria_options, bias=False)
        own.to(child.weight)
        own.load_state_dict(child.state_dict())
        return own
    if isinstance(child, AveragePool):
        return nn.AvgPool2d(3, child.stride, 1, count_include_pad=False)
    if isinstance(child, MaxPool):
        return nn.MaxPool2d(3, child.stride, 1)
    if isinstance(child, FactorizedReduction):
        return PlainReduction(child)
    return child


class PlainReduction(nn.Module):
    def __init__(self, ours: FactorizedReduction) -> None:
        super().__init__()
        self.relu, self.even, self.odd, self.norm = ours.relu, ours.even, ours.odd, ours.norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(shifted[:, :, ::2, ::2])], dim=1))


def literal_features(network: Network, images: Tensor, drop: Drop | None) -> Tensor:
    """The network read off its genotype: each operation applies its own ReLU."""
    rate = drop.rate * drop.progress if drop else 0.0
    before = last = network.stem(images)
    for cell in network.cells:
        draws = torch.rand(len(cell.operations), len(images), generator=drop.generator) if drop else None
        before, last = last, literal_cell(cell, before, last, rate, draws)
    return last.mean((2, 3))


def literal_cell(cell: Cell, before: Tensor, last: Tensor, rate: float, draws: Tensor | None) -> Tensor:
    states = [cell.preprocess[0](before), cell.preprocess[1](last)]
    outputs = []
    for index, (operation, source) in enumerate(zip(cell.operations, cell.inputs, strict=True)):
        output = operation(states[source])
        if draws is not None and not isinstance(operation, nn.Identity):
            output = drop_path(output, rate, draws[index])
        outputs.append(output)
        if index % 2:
            states.append(outputs[-2] + outputs[-1])
    return torch.cat(states[2:], dim=1)


class PlainNetwork(nn.Module):
    """The same weights under the same names as `network`'s, which stays as it is."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = plain(network)

    def features(self, images: Tensor) -> Tensor:
        return literal_features(self.network, images, None)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        return self.network.head(literal_features(self.network, images, drop))
