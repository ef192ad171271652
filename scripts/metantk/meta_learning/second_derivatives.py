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
    """Within it, convolutions and batch normalisation are those of this module, also in backward passes.

    They have no third derivative.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return INSTEAD.get(function, function)(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`, which still normalises by running averages, or without scale and offset."""
    refused = input.numel() <= input.shape[1]  # by PyTorch, with an error: one value per channel
    if not training or weight is None or bias is None or refused:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _Norm.apply(input, weight, bias, running_mean, running_var, momentum, eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, running_mean, running_var, momentum, eps):
        out, mean, invstd = aten.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        context.save_for_backward(x, weight, mean, invstd)
        return out

    @staticmethod
    def backward(context, grad_output):
        return (*_NormBackward.apply(grad_output, *context.saved_tensors), None, None, None, None)


class _NormBackward(torch.autograd.Function):
    """The gradients w·r·P g by x, Σ g·x̂ by the weight w and Σ g by the bias, of the output's gradient g.

    All is per channel: m values, their mean μ and r = 1/std, x̂ = r·(x - μ), and P g = g - mean(g) - x̂·mean(g·x̂).
    """

    @staticmethod
    def forward(context, grad_output, x, weight, mean, invstd):
        grad_output = _ordered_as(x, grad_output)
        gradients = _norm_gradients(grad_output, x, weight, mean, invstd)
        context.save_for_backward(grad_output, x, weight, mean, invstd, *gradients)
        context.set_materialize_grads(False)
        return gradients

    @staticmethod
    @once_differentiable
    def backward(context, gg_x, gg_weight, gg_bias):
        """Gradients by g, x and w of ⟨gg_x, w·r·P g⟩ + ⟨gg_weight, Σ g·x̂⟩ + ⟨gg_bias, Σ g⟩.

        P is symmetric and dr/dx = -r²·x̂/m. With v = gg_x and A = Σ v·P g, the first term has the gradients w·r·P v
        by g, r·A by w and -w·r²/m · (A·x̂ + Σ g·x̂ · P v + Σ v·x̂ · P g) by x.
        """
        grad_output, x, weight, mean, invstd, grad_x, grad_weight, grad_bias = context.saved_tensors
        by_g = by_x = by_weight = None
        if gg_x is not None:
            gg_x = _ordered_as(x, gg_x)
            by_g, on_normed, total = _norm_gradients(gg_x, x, weight, mean, invstd)
            m = x.numel() // x.shape[1]
            a = _products(gg_x, grad_output) - (total * grad_bias + on_normed * grad_weight) / m
            by_weight = invstd * a
            factor = -invstd / m
            by_x = _centred(x, mean, factor * weight * invstd * invstd * a)
            by_x.addcmul_(by_g, _channels(factor * grad_weight, x)).addcmul_(
                grad_x, _channels(factor * on_normed, x)
            )
        if gg_weight is not None:
            # Σ g·x̂ by x: r·P g, as if gg_weight were the weight.
            by_x = _sum(by_x, _norm_gradients(grad_output, x, gg_weight, mean, invstd)[0])
            by_g = _sum(by_g, _centred(x, mean, gg_weight * invstd))
        if gg_bias is not None:
            by_g = _sum(by_g, _channels(gg_bias, x).expand_as(x))
        return by_g, by_x, by_weight, None, None


def _norm_gradients(grad_output: Tensor, x: Tensor, weight: Tensor, mean: Tensor, invstd: Tensor) -> tuple:
    """`(w·r·P g, Σ g·x̂, Σ g)`, in one fused call."""
    # Epsilon counts only with running averages.
    averages, epsilon, wanted = (None, None), 0.0, [True] * 3
    return aten.native_batch_norm_backward(grad_output, x, weight, *averages, mean, invstd, True, epsilon, wanted)


def _products(v: Tensor, g: Tensor) -> Tensor:
    """Σ v·g of each channel: what the fused call would add up for a `g` of mean 0 and standard deviation 1."""
    zeros, ones = v.new_zeros(v.shape[1]), v.new_ones(v.shape[1])
    return aten.native_batch_norm_backward(v, g, ones, None, None, zeros, ones, True, 0.0, [False, True, False])[1]


def _centred(x: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
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
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, which still does what autocast rounds, padding by name, and single images."""
    if torch._C._is_any_autocast_enabled() or isinstance(padding, str) or input.dim() != 4:
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    geometry = _pair(stride), _pair(padding), _pair(dilation), False, (0, 0), groups
    return _Convolution.apply(input, weight, bias, geometry)


def convolution_backward(grad_output: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, *rest):
    """`torch.ops.aten.convolution_backward`, which still does what has a bias."""
    *geometry, wanted = rest
    if bias_sizes is not None or wanted[2]:
        return aten.convolution_backward(grad_output, x, weight, bias_sizes, *rest)
    return _ConvolutionBackward.apply(grad_output, x, weight, None, tuple(geometry), tuple(wanted))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context, x, weight, bias, geometry):
        context.save_for_backward(x, weight)
        context.geometry, context.bias_sizes = geometry, None if bias is None else list(bias.shape)
        return aten.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(context, grad_output):
        how = context.bias_sizes, context.geometry, context.needs_input_grad[:3]
        return (*_ConvolutionBackward.apply(grad_output, *context.saved_tensors, *how), None)


class _ConvolutionBackward(torch.autograd.Function):
    """The gradients by x, weight and bias: linear in the output's, the first in the weight and the second in x."""

    @staticmethod
    def forward(context, grad_output, x, weight, bias_sizes, geometry, wanted):
        context.save_for_backward(grad_output, x, weight)
        context.geometry = geometry
        context.set_materialize_grads(False)
        return aten.convolution_backward(grad_output, x, weight, bias_sizes, *geometry, list(wanted))

    @staticmethod
    @once_differentiable
    def backward(context, gg_x, gg_weight, gg_bias):
        """Gradients by g, x and weight of ⟨gg_x, grad_x⟩ + ⟨gg_weight, grad_weight⟩ + ⟨gg_bias, grad_bias⟩."""
        grad_output, x, weight = context.saved_tensors
        by_g = None
        if gg_x is not None:
            by_g = aten.convolution(gg_x, weight, None, *context.geometry)
        if gg_weight is not None:
            by_g = _sum(by_g, aten.convolution(x, gg_weight, None, *context.geometry))
        if gg_bias is not None:
            by_g = _sum(by_g, _channels(gg_bias, grad_output).expand_as(grad_output))
        _, needs_x, needs_weight, *_ = context.needs_input_grad
        wanted = [needs_x and gg_weight is not None, needs_weight and gg_x is not None, False]
        by_x = by_weight = None
        if any(wanted):
            # What is missing only gives its shape.
            inputs = x if gg_x is None else gg_x, weight if gg_weight is None else gg_weight
            by_x, by_weight, _ = aten.convolution_backward(grad_output, *inputs, None, *context.geometry, wanted)
        return by_g, by_x, by_weight, None, None, None


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


INSTEAD = {
    functional.batch_norm: batch_norm,
    functional.conv2d: conv2d,
    aten.convolution_backward: convolution_backward,
}
