"""Convolutions and batch normalisation whose second derivatives are made of PyTorch's fused first ones.

PyTorch writes the derivative of batch normalisation's backward pass as some twenty operations on whole maps, and
that of a convolution's with its arguments exchanged, group by group. They took most of a step of second-order MAML.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class TwiceDifferentiable(TorchFunctionMode):
    """Within it, convolutions and batch normalisation are those of this module, also in backward passes."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return INSTEAD.get(function, function)(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # as in PyTorch
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, which still normalises by running averages, or without scale and offset."""
    if not training or weight is None or bias is None:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _Norm.apply(x, weight, bias, running_mean, running_var, momentum, eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, running_mean, running_var, momentum, eps):
        out, mean, scale = aten.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        context.save_for_backward(x, weight, mean, scale)
        return out

    @staticmethod
    def backward(context, gradient):
        return (*_NormBackward.apply(gradient, *context.saved_tensors), None, None, None, None)


class _NormBackward(torch.autograd.Function):
    """The gradients g ↦ (w·r·P g, Σ g·x̂, Σ g) by x, scale w and offset.

    All is per channel: m values, their mean μ and r = 1/std, x̂ = r·(x - μ), and P g = g - mean(g) - x̂·mean(g·x̂).
    """

    @staticmethod
    def forward(context, g, x, weight, mean, scale):
        g = _ordered_as(x, g)
        by_x, by_weight, by_bias = _gradients(g, x, weight, mean, scale)
        context.save_for_backward(g, x, weight, mean, scale, by_x, by_weight, by_bias)
        context.set_materialize_grads(False)
        return by_x, by_weight, by_bias

    @staticmethod
    @once_differentiable
    def backward(context, v, v_weight, v_bias):
        """Gradients by g, x and w of ⟨v, w·r·P g⟩ + ⟨v_weight, Σ g·x̂⟩ + ⟨v_bias, Σ g⟩.

        P is symmetric and dr/dx = -r²·x̂/m, so that with A = Σ v·P g the first term has the gradients w·r·P v by g,
        r·A by w and -w·r²/m · (A·x̂ + Σ g·x̂ · P v + Σ v·x̂ · P g) by x.
        """
        g, x, weight, mean, scale, by_x, by_weight, by_bias = context.saved_tensors
        to_g = to_x = to_weight = None
        if v is not None:
            v = _ordered_as(x, v)
            to_g, v_x, v_sum = _gradients(v, x, weight, mean, scale)
            m = x.numel() // x.shape[1]
            both = _products(v, g) - (v_sum * by_bias + v_x * by_weight) / m
            to_weight = scale * both
            factor = -scale / m
            to_x = _scaled(x, mean, factor * weight * scale * scale * both)
            to_x.addcmul_(to_g, _channels(factor * by_weight, x)).addcmul_(by_x, _channels(factor * v_x, x))
        if v_weight is not None:
            # Σ g·x̂ by x: r·P g, as if v_weight were the scale.
            to_x = _sum(to_x, _gradients(g, x, v_weight, mean, scale)[0])
            to_g = _sum(to_g, _scaled(x, mean, v_weight * scale))
        if v_bias is not None:
            to_g = _sum(to_g, _channels(v_bias, x).expand_as(x))
        return to_g, to_x, to_weight, None, None


def _gradients(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(w·r·P g, Σ g·x̂, Σ g)`, in one fused call."""
    # Epsilon counts only with running averages.
    return aten.native_batch_norm_backward(g, x, weight, None, None, mean, scale, True, 0.0, [True, True, True])


def _products(v: Tensor, g: Tensor) -> Tensor:
    """Σ v·g of each channel: what the fused call would add up for a `g` of mean 0 and standard deviation 1."""
    zeros, ones = v.new_zeros(v.shape[1]), v.new_ones(v.shape[1])
    return aten.native_batch_norm_backward(v, g, ones, None, None, zeros, ones, True, 0.0, [False, True, False])[1]


def _scaled(x: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """`factor · (x - mean)` of each channel, in one pass."""
    return torch.addcmul(_channels(-factor * mean, x), x, _channels(factor, x))


def _channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _ordered_as(x: Tensor, values: Tensor) -> Tensor:
    """In memory as `x`, else the fused call is four times as slow."""
    order = torch.channels_last if x.dim() == 4 and _is_channels_last(x) else torch.contiguous_format
    return values.contiguous(memory_format=order)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, which still does what autocast rounds or names its padding."""
    if torch._C._is_any_autocast_enabled() or isinstance(padding, str):
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    geometry = _pair(stride), _pair(padding), _pair(dilation), False, (0, 0), groups
    return _Convolution.apply(x, weight, bias, geometry)


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, *rest):
    """`torch.ops.aten.convolution_backward`; without a gradient of the bias here."""
    *geometry, (of_x, of_weight, of_bias) = rest
    if of_bias or bias_sizes is not None:
        return aten.convolution_backward(g, x, weight, bias_sizes, *rest)
    return _ConvolutionBackward.apply(g, x, weight, None, tuple(geometry), (of_x, of_weight, False))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, geometry):
        context.save_for_backward(x, weight)
        context.geometry, context.bias_sizes = geometry, None if bias is None else list(bias.shape)
        return aten.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(context, g):
        wanted = context.needs_input_grad[:3]
        geometry, sizes = context.geometry, context.bias_sizes
        return (*_ConvolutionBackward.apply(g, *context.saved_tensors, sizes, geometry, wanted), None)


class _ConvolutionBackward(torch.autograd.Function):
    """The gradients by x, weight and bias: all linear in g, the first in the weight and the second in x."""

    @staticmethod
    def forward(context, g, x, weight, bias_sizes, geometry, wanted):
        context.save_for_backward(g, x, weight)
        context.geometry = geometry
        context.set_materialize_grads(False)
        return aten.convolution_backward(g, x, weight, bias_sizes, *geometry, list(wanted))

    @staticmethod
    @once_differentiable
    def backward(context, v_x, v_weight, v_bias):
        """Gradients by g, x and weight of ⟨v_x, by_x⟩ + ⟨v_weight, by_weight⟩ + ⟨v_bias, by_bias⟩."""
        g, x, weight = context.saved_tensors
        to_g = None
        if v_x is not None:
            to_g = aten.convolution(v_x, weight, v_bias, *context.geometry)
        if v_weight is not None:
            offset = v_bias if to_g is None else None
            to_g = _sum(to_g, aten.convolution(x, v_weight, offset, *context.geometry))
        if to_g is None and v_bias is not None:
            to_g = _channels(v_bias, g).expand_as(g)
        _, by_x, by_weight, *_ = context.needs_input_grad
        wanted = [by_x and v_weight is not None, by_weight and v_x is not None, False]
        to_x = to_weight = None
        if any(wanted):
            # What is missing only gives its shape.
            by = x if v_x is None else v_x, weight if v_weight is None else v_weight
            to_x, to_weight, _ = aten.convolution_backward(g, *by, None, *context.geometry, wanted)
        return to_g, to_x, to_weight, None, None, None


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


INSTEAD = {
    functional.batch_norm: batch_norm,
    functional.conv2d: conv2d,
    aten.convolution_backward: convolution_backward,
}
