"""What is faster on a CPU against PyTorch's own, and a whole network against plain modules."""

import pytest
import torch
from plain_cells import literal_features, plain
from torch import nn

from metantk.backbones.cells import stack
from metantk.backbones.drop import Drop
from metantk.runtime.devices import generator
from metantk.searches.sample import random_genotype
from metantk.space.channels_last import concatenate, every_second, first_and_second
from metantk.space.depthwise import AveragePool, Depthwise, MaxPool
from metantk.space.genotype import SPACES

SIDES = [(8, 8), (7, 7), (6, 9), (3, 3), (2, 2), (1, 1)]


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


def by_pytorch(*, parts: int):
    def answer(x: torch.Tensor) -> list[torch.Tensor]:
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        phases = [x[:, :, ::2, ::2], shifted[:, :, ::2, ::2]]
        return [*phases[:parts], torch.cat([x, x.sin()], dim=1)]

    return answer


def by_us(*, parts: int):
    def answer(x: torch.Tensor) -> list[torch.Tensor]:
        phases = [every_second(x)] if parts == 1 else list(first_and_second(x))
        return [*phases, concatenate([x, x.sin()])]

    return answer


def gradients(answer, x: torch.Tensor) -> list[torch.Tensor]:
    """Answers, and first and second gradients of functions of all of them."""
    answers = answer(x)
    (slope,) = torch.autograd.grad(sum((part * part.cos()).sum() for part in answers), x, create_graph=True)
    return [*answers, slope, *torch.autograd.grad((slope**3).sum(), x)]


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("parts", [1, 2])
def test_slices_and_concatenations_agree_with_pytorch(parts, size):
    x = inputs((4, 6, *size))
    for a, b in zip(gradients(by_us(parts=parts), x), gradients(by_pytorch(parts=parts), x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a in gradients(by_us(parts=parts), x)[:-1]:
        assert a.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():  # another way
        for a, b in zip(by_us(parts=parts)(x), by_pytorch(parts=parts)(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("size", SIDES)
def test_slices_and_concatenations_of_many_tasks_at_once(size):
    tasks = torch.randn((3, 4, 6, *size), dtype=torch.float64, generator=generator("x"))

    def slope(answer):
        return torch.func.grad(lambda x: sum((part * part.cos()).sum() for part in answer(x)))

    found = torch.func.vmap(slope(by_us(parts=2)))(tasks)
    expected = torch.stack([slope(by_pytorch(parts=2))(task) for task in tasks])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(5, 1, 1), (3, 2, 1), (5, 2, 2)])
def test_in_bfloat16_gradients_are_those_of_pytorch_to_its_rounding(kernel, dilation, stride):
    ours = nn.Sequential(Depthwise(8, kernel, stride=stride, dilation=dilation), AveragePool(1))
    slopes = []
    for module in (ours, plain(ours)):
        x = inputs((4, 8, 10, 10), torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            output = module(x)
        assert output.dtype == torch.bfloat16
        slopes.append(torch.autograd.grad((output.float() ** 2).sum(), (x, module[0].weight)))
    for a, b in zip(*slopes, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.02


def test_an_average_that_an_exporter_met_first_still_has_numbers():
    pool, images = AveragePool(1), torch.ones(1, 2, 9, 7)
    torch.export.export(pool, (images,))
    assert type(pool(images)) is torch.Tensor
    assert torch.equal(pool(images), torch.ones(1, 2, 9, 7))
