"""Networks as the criteria of gradients see them: a forward pass, layers with weights, gradients layer by layer.

One plain network, or the candidates of a chunk that a supernet computes side by side: a criterion is written once
for both, as a function of `Networks`. Tensors are `(candidates * images, ...)`, candidate by candidate.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from metantk.flops import layer_macs
from metantk.kernels import sample_convolution
from metantk.space.supernet import Convolution, Layer, Supernet


class Networks(NamedTuple):
    """Candidates that go through one forward pass.

    Attributes:
        forward: `(images, channels, height, width)`, the same for all, to `(candidates * images, outputs)`.
        layers: with weights, each called once in a pass; the first alone reads the images.
        count: of the candidates.
    """

    forward: Callable[[Tensor], Tensor]
    layers: list[Layer]
    count: int

    def as_tensors(self, layer: Layer, weights: Tensor) -> Tensor:
        """`(candidates, ..., *weight's shape)` as `(candidates, ..., tensors, numbers)`: a tensor per operation."""
        return weights.flatten(-layer.module.weight.dim()).unflatten(-1, (layer.copies, -1))


def alone(network: nn.Module) -> Networks:
    """One plain network: its convolutions and linear layers, in the order of its modules."""
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return Networks(network, [Layer(module, module, None, None) for module in weighted], 1)


def candidates_of(network: Supernet, masks: dict[str, Tensor]) -> Networks:
    """The candidates of `masks`, which share the weights of a supernet with a head."""
    layers = list(network.layers().values())
    return Networks(lambda images: network(images, masks), layers, len(masks["normal"]))


class Seen(NamedTuple):
    """What a layer saw in a forward pass: `(candidates * images, channels, ...)`, before any norm."""

    layer: Layer
    input: Tensor
    output: Tensor


class Pass(NamedTuple):
    """A forward pass with its graph.

    Attributes:
        layers: what they saw; gone, layer by layer, as the backward pass goes.
        images: as the first layer got them: each candidate's own.
        answers: `(candidates, images, outputs)`.
        operations: floating-point operations of the layers; each gradient, of inputs or of weights, costs as many.
    """

    layers: list[Seen | None]
    images: Tensor
    answers: Tensor
    operations: int


def forward(networks: Networks, images: Tensor) -> Pass:
    """Pass images through all candidates and keep what their layers saw."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen[module] = (inputs[0], output)

    hooks = [layer.module.register_forward_hook(keep) for layer in networks.layers]
    try:
        # Convolutions of supernets use their weights detached: the images keep the graph alive down to the stem.
        answers = networks.forward(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    layers = [Seen(layer, *seen[layer.module]) for layer in networks.layers]
    operations = 2 * sum(layer_macs(one.layer.module, one.output) for one in layers)
    return Pass(layers, layers[0].input, answers.unflatten(0, (networks.count, -1)), operations)


def backward(done: Pass, total: Tensor, consume: Callable[[Seen, Tensor], None]) -> None:
    """Go back from the sum of the candidates' values, which do not mix, so that each gets its own gradients.

    Args:
        total: one number.
        consume: called for each layer that takes part, with what it saw and the gradient of its output, as soon as
            that is known; then both are dropped.
    """

    def meet(index: int, gradient: Tensor) -> None:
        one, done.layers[index] = done.layers[index], None
        consume(Seen(one.layer, one.input.detach(), one.output.detach()), gradient)

    for index, one in enumerate(done.layers):
        one.output.register_hook(lambda gradient, index=index: meet(index, gradient))
    torch.autograd.grad(total, done.images, allow_unused=True)


def weight_gradients(layer: Layer, x: Tensor, backprops: Tensor, parts: int) -> Tensor:
    """The gradient of a layer's weight, summed over each of `parts` equal parts of the batch.

    Args:
        x: the layer's input, `(batch, channels, ...)`.
        backprops: the gradient of its output.
        parts: candidates, or candidates * images for the gradient of each image.

    Returns:
        `(parts, *weight's shape)`.
    """
    module = layer.module
    if isinstance(module, nn.Linear):
        return torch.einsum("pno,pni->poi", backprops.unflatten(0, (parts, -1)), x.unflatten(0, (parts, -1)))
    if isinstance(module, Convolution) and parts == len(x):
        return sample_convolution(module, [x], backprops)[module.weight]
    stride, padding = _pair(module.stride), _pair(module.padding)
    dilation = _pair(getattr(module, "dilation", 1))
    return torch.stack(
        [
            conv2d_weight(inputs, module.weight.shape, gradient, stride, padding, dilation, module.groups)
            for inputs, gradient in zip(x.chunk(parts), backprops.chunk(parts), strict=True)
        ]
    )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
