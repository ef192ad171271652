"""Depthwise convolutions and pooling against PyTorch's own, and a whole network against plain modules."""

import copy

import pytest
import torch
from torch import nn

from metantk.backbones.cells import Cell, Network, stack
from metantk.backbones.drop import Drop
from metantk.devices import generator
from metantk.searches.sample import random_genotype
from metantk.space.depthwise import AveragePool, Depthwise, MaxPool
from metantk.space.genotype import SPACES
from metantk.space.operations import drop_path

SIDES = [(8, 8), (7, 7), (6, 9), (3, 3), (2, 2), (1, 1)]


def plain(module: nn.Module) -> nn.Module:
    """PyTorch's own modules with the same weights under the same names."""
    module = copy.deepcopy(module)
    for name, child in module.named_children():
        if isinstance(child, Depthwise):
            settings = {key: getattr(child, key) for key in ("stride", "padding", "dilation", "groups")}
            own = nn.Conv2d(child.in_channels, child.out_channels, child.kernel_size, **settings, bias=False)
            own.to(child.weight)
            own.load_state_dict(child.state_dict())
        elif isinstance(child, AveragePool):
            own = nn.AvgPool2d(3, child.stride, 1, count_include_pad=False)
        elif isinstance(child, MaxPool):
            own = nn.MaxPool2d(3, child.stride, 1)
        else:
            own = plain(child)
        setattr(module, name, own)
    return module


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.randn(shape, dtype=dtype, generator=generator("x"))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_both_gradients_agree_with_pytorch(kernel, dilation, stride, size):
    ours = nn.Sequential(Depthwise(6, kernel, stride=stride, dilation=dilation)).double()
    x = inputs((4, 6, *size))
    found, expected = [], []
    for module, kept in ((ours, found), (plain(ours), expected)):
        output = module(x)
        loss = (output * output.cos()).sum()
        first = torch.autograd.grad(loss, (x, module[0].weight), create_graph=True)
        # As MAML takes it: the gradient of a function of the gradients.
        second = torch.autograd.grad(sum((part**3).sum() for part in first), (x, module[0].weight))
        kept.extend([output, *first, *second])
    for name, a, b in zip(("output", "x", "weight", "x twice", "weight twice"), found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("make", [AveragePool, MaxPool])
def test_pools_agree_with_pytorch(make, stride, size):
    ours = nn.Sequential(make(stride))
    x = inputs((4, 6, *size))
    found, expected = ours(x), plain(ours)(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad((output**2).sum(), x)[0] for output in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():  # another way
        torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


def literal_features(network: Network, images: torch.Tensor, drop: Drop | None) -> torch.Tensor:
    """The network read off its genotype: each operation applies its own ReLU."""
    rate = drop.rate * drop.progress if drop else 0.0
    before = last = network.stem(images)
    for cell in network.cells:
        draws = torch.rand(len(cell.operations), len(images), generator=drop.generator) if drop else None
        before, last = last, literal_cell(cell, before, last, rate, draws)
    return last.mean((2, 3))


def literal_cell(cell: Cell, before: torch.Tensor, last: torch.Tensor, rate: float, draws) -> torch.Tensor:
    states = [cell.preprocess[0](before), cell.preprocess[1](last)]
    outputs = []
    for number, (operation, source) in enumerate(zip(cell.operations, cell.inputs, strict=True)):
        output = operation(states[source])
        if draws is not None and not isinstance(operation, nn.Identity):
            output = drop_path(output, rate, draws[number])
        outputs.append(output)
        if number % 2:
            states.append(outputs[-2] + outputs[-1])
    return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize("dropping", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_networks_answer_and_learn_as_those_of_plain_modules(seed, dropping):
    genotype = random_genotype(SPACES[sorted(SPACES)[seed % len(SPACES)]], seed)
    network = stack(genotype, cells=4, channels=4, classes=3).double()
    network.initialise_(generator("weights", seed))
    reference = plain(network)
    assert list(network.state_dict()) == list(reference.state_dict())
    x = inputs((5, 3, 12, 12))
    drops = [Drop(0.4, progress=0.7, step=0, generator=generator("drop", seed)) if dropping else None for _ in "ab"]
    found = network.features(x, drops[0])
    expected = literal_features(reference, x, drops[1])
    torch.testing.assert_close(found, expected)
    (found**2).sum().backward()
    of_input, x.grad = x.grad, None
    (expected**2).sum().backward()
    torch.testing.assert_close(of_input, x.grad)
    for (name, a), b in zip(network.named_parameters(), reference.parameters(), strict=True):
        if not name.startswith("head."):
            torch.testing.assert_close(a.grad, b.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(network.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")
    with torch.inference_mode():
        answers = network.eval().features(x), literal_features(reference.eval(), x, None)
        torch.testing.assert_close(*answers)
