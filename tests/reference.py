"""Slow, obvious implementations that the fast ones are compared with: one network per mask, one module per edge."""

import torch
from torch import Tensor, nn

from metantk.space.genotype import Space
from metantk.space.operations import FactorizedReduction, ReluConvNorm, make_operation
from metantk.space.supernet import Fan, SuperCell, Supernet, group_count


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(group_count(channels), channels, affine=False)


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


class MixedEdge(nn.Module):
    """The mean of an edge's remaining operations."""

    def __init__(self, names: list[str], channels: int, stride: int, norm) -> None:
        super().__init__()
        self.names = names
        self.operations = nn.ModuleList(make_operation(name, channels, stride, norm) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return sum(operation(x) for operation in self.operations) / len(self.operations)


class MixedCell(nn.Module):
    def __init__(self, space: Space, kind: str, mask: Tensor, before, channels, *, reduction_before, norm) -> None:
        super().__init__()
        self.space, self.channels = space, channels
        align = FactorizedReduction if reduction_before else ReluConvNorm
        self.preprocess = nn.ModuleList([align(before[0], channels, norm), ReluConvNorm(before[1], channels, norm)])
        self.edges = nn.ModuleList()
        for index, edge in enumerate(space.edges):
            stride = 2 if kind == "reduce" and edge.input < 2 else 1
            names = [name for o, name in enumerate(space.operations) if mask[index, o]]
            self.edges.append(MixedEdge(names, channels, stride, norm))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for node in range(2, 2 + self.space.nodes):
            parts = [
                self.edges[index](states[edge.input])
                for index, edge in enumerate(self.space.edges)
                if edge.node == node and self.edges[index].names
            ]
            states.append(sum(parts))
        return torch.cat(states[2:], dim=1)


class MixedNetwork(nn.Module):
    """The network of one mask (`kind -> (edges, operations)` bool), with the weights of a fused supernet."""

    def __init__(self, supernet: Supernet, space: Space, masks: dict[str, Tensor], *, norm) -> None:
        super().__init__()
        self.stem = None
        channels = supernet.cells[0].channels
        if supernet.stem is not None:
            weight = supernet.stem.weight
            self.stem = nn.Sequential(
                nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False), norm(weight.shape[0])
            )
            copy_weights(self.stem, [weight])
            channels = weight.shape[0]
        before, last, reduction_before = channels, channels, False
        self.cells = nn.ModuleList()
        for fused in supernet.cells:
            cell = MixedCell(
                space,
                fused.kind,
                masks[fused.kind],
                (before, last),
                fused.channels,
                reduction_before=reduction_before,
                norm=norm,
            )
            copy_cell(cell, fused)
            self.cells.append(cell)
            before, last, reduction_before = last, fused.channels * space.nodes, fused.kind == "reduce"
        self.activation = nn.Sequential(norm(last), nn.ReLU())
        self.head = None
        if supernet.head is not None:
            self.head = nn.Linear(last, supernet.head.out_features, bias=False)
            copy_weights(self.head, [supernet.head.weight])

    def forward(self, images: Tensor) -> Tensor:
        before = last = images if self.stem is None else self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        features = self.activation(last).mean((2, 3))
        return features if self.head is None else self.head(features)


def copy_weights(module: nn.Module, weights: list[Tensor]) -> None:
    parameters = list(module.parameters())
    assert len(parameters) == len(weights)
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.data = weight.detach().clone().view(parameter.shape)


def copy_cell(cell: MixedCell, fused: SuperCell) -> None:
    for plain, quick in zip(cell.preprocess, fused.preprocess, strict=True):
        copy_weights(plain, [p for p in quick.parameters() if p.numel()])
    for source, fan in enumerate(fused.fans):
        for index, edge in enumerate(cell.space.edges):
            if edge.input == source:
                for name, operation in zip(cell.edges[index].names, cell.edges[index].operations, strict=True):
                    copy_weights(operation, operation_weights(fan, index, name, cell.channels))


def operation_weights(fan: Fan, edge: int, name: str, channels: int) -> list[Tensor]:
    """The weights of one operation of one edge, cut out of the fused ones."""

    def cut(weight: Tensor, copy: int, size: int = channels) -> Tensor:
        return weight[copy * size : (copy + 1) * size]

    slot = next(slot for slot in fan.slots[name] if slot.edge == edge)
    for key, (single, double) in fan.separable_slots.items():
        if slot in single + double:
            block = fan.separable[key]
            copy = (single + double).index(slot)
            weights = [cut(block.first.depthwise.weight, copy), cut(block.first.pointwise.weight, copy)]
            if slot in double:
                copy = double.index(slot)
                weights += [
                    cut(block.second.depthwise.weight, copy),
                    cut(block.second.pointwise.weight, copy),
                ]
            return weights
    copy = fan.slots[name].index(slot)
    if name == "conv_1x5_5x1":
        return [cut(fan.crossed.row.weight, copy), cut(fan.crossed.column.weight, copy)]
    if name == "skip_connect" and fan.reductions is not None:
        even, odd = fan.reductions.even.weight, fan.reductions.odd.weight
        return [cut(even, copy, channels // 2), cut(odd, copy, channels - channels // 2)]
    return []


def kernels_by_loop(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """NTK and NNGP of the sum of the outputs by one backward pass per image."""
    rows, head_rows = [], []
    for image in images:
        network.zero_grad(set_to_none=True)
        network(image[None]).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        head_rows.append(network.head.weight.grad.flatten().clone())
    jacobian, head = torch.stack(rows).double(), torch.stack(head_rows).double()
    return jacobian @ jacobian.T, head @ head.T
