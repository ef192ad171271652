"""Second derivatives of convolutions and batch normalisation: by finite differences, and PyTorch's own."""

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn import functional

from metantk.meta_learning.second_derivatives import TwiceDifferentiable
from metantk.space.depthwise import Depthwise


def inputs(shape: tuple[int, ...], *, last: bool = False) -> list[Tensor]:
    """Values, scales of which one is zero, and offsets, float64."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    values, scale, offset = draw(*shape), draw(shape[1]), draw(shape[1])
    scale[0] = 0
    if last:
        values = values.contiguous(memory_format=torch.channels_last)
    return [each.requires_grad_() for each in (values, scale, offset)]


def normed(values: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return functional.batch_norm(values, None, None, scale, offset, training=True)


SHAPES = [((6, 3), False), ((3, 3, 4), False), ((4, 3, 5, 5), False), ((4, 3, 5, 5), True), ((4, 1, 3, 3), True)]


@pytest.mark.parametrize(("shape", "last"), SHAPES)
def test_both_derivatives_agree_with_finite_differences(shape, last):
    given = inputs(shape, last=last)

    def twice(*given: Tensor) -> Tensor:
        with TwiceDifferentiable():
            return normed(*given)

    assert twice(*given).grad_fn.name() == "_NormBackward"
    assert gradcheck(twice, given)
    assert gradgradcheck(twice, given)


@pytest.mark.parametrize("last", [False, True])
def test_values_gradients_and_running_averages_are_those_of_pytorch(last):
    given = inputs((8, 5, 6, 6), last=last)
    found = []
    for mode in (False, True):
        mean, variance = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
        with TwiceDifferentiable() if mode else contextlib.nullcontext():
            out = functional.batch_norm(given[0], mean, variance, *given[1:], training=True, momentum=0.3)
            first = grad(out.square().sum(), given, create_graph=True)
            second = grad(sum(each.sin().sum() for each in first), given)
        assert out.is_contiguous(memory_format=torch.channels_last) == last
        found.append([out, mean, variance, *first, *second])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


def test_what_has_running_averages_or_no_scale_is_left_to_pytorch():
    values, scale, offset = inputs((4, 3, 5, 5))
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    with TwiceDifferentiable():
        by_averages = functional.batch_norm(values, mean, variance, scale, offset)
        without = functional.batch_norm(values, None, None, training=True)
    assert by_averages.grad_fn.name() == without.grad_fn.name() == "NativeBatchNormBackward0"


CONVOLUTIONS = [
    {"padding": 1},
    {"stride": 2, "padding": (1, 2)},
    {"groups": 2, "dilation": 2, "padding": 2},
]


def convolution(seed: int, groups: int) -> list[Tensor]:
    """Images, weights and offsets, float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 4, 5, 6), (4, 4 // groups, 3, 3), (4,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("how", CONVOLUTIONS)
@pytest.mark.parametrize("offset", [True, False])
def test_both_derivatives_of_convolutions_agree_with_finite_differences(how, offset):
    given = convolution(0, how.get("groups", 1))[: 3 if offset else 2]

    def twice(*given: Tensor) -> Tensor:
        with TwiceDifferentiable():
            return functional.conv2d(*given, **how)

    assert twice(*given).grad_fn.name() == "_ConvolutionBackward"
    torch.testing.assert_close(twice(*given), functional.conv2d(*given, **how))
    assert gradcheck(twice, given)
    assert gradgradcheck(twice, given)


@pytest.mark.parametrize("which", [[0], [1], [2], [0, 2], [1, 2]])
def test_the_derivative_of_some_gradients_of_a_convolution_is_pytorchs(which):
    given = convolution(1, 1)
    found = []
    for mode in (contextlib.nullcontext(), TwiceDifferentiable()):
        with mode:
            out = functional.conv2d(*given, padding=1)
        grad_output = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).requires_grad_()
        first = grad(out, [given[index] for index in which], grad_output, create_graph=True)
        second = grad(sum(each.sin().sum() for each in first), [grad_output, *given], materialize_grads=True)
        found.append([*first, *second])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_second_derivatives_of_depthwise_convolutions_are_pytorchs(kernel, stride, dilation):
    own = Depthwise(4, kernel, stride=stride, dilation=dilation).double()
    x = convolution(2, 1)[0]
    found = []
    for twice in (False, True):
        with TwiceDifferentiable() if twice else contextlib.nullcontext():
            out = own(x) if twice else nn.Conv2d.forward(own, x)
            first = grad(out.square().sum(), [x, own.weight], create_graph=True)
        second = grad(sum(each.sin().sum() for each in first), [x, own.weight])
        found.append([out, *first, *second])
    torch.testing.assert_close(found[1], found[0])


def test_all_ways_to_call_them_are_pytorchs():
    images, weight, offset = convolution(4, 1)
    calls = [
        lambda: functional.conv2d(input=images, weight=weight, bias=offset),
        lambda: functional.conv2d(images[0], weight),
        lambda: functional.conv2d(images, weight, None, [2, 1], padding="valid"),
        lambda: functional.conv2d(images, weight, stride=[2, 1], padding=[1]),
        lambda: functional.batch_norm(input=images, running_mean=None, running_var=None, training=True),
        lambda: functional.batch_norm(images, None, None, offset, offset, training=True),
    ]
    for call in calls:
        with TwiceDifferentiable():
            found = call()
        torch.testing.assert_close(found, call())


def test_one_value_per_channel_is_refused_as_by_pytorch():
    values, scale, offset = inputs((1, 3, 1, 1))
    with TwiceDifferentiable(), pytest.raises(ValueError, match="more than 1 value per channel"):
        normed(values, scale, offset)


def test_convolutions_that_autocast_rounds_are_left_to_pytorch():
    images, weight, offset = (each.detach().float().requires_grad_() for each in convolution(3, 1))
    with TwiceDifferentiable(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = functional.conv2d(images, weight, offset)
    assert out.dtype == torch.bfloat16
