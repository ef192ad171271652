"""Small networks in NTK parametrisation, as pure functions of a dict of weights, and their kernels in closed form.

Weights are standard normal; each layer divides by the root of its fan-in (paper, Appendix A, with the widths moved
from the weights into the layers: the factor 1/l of Eq. 4 and of Theorem 1's rates is thereby already applied, and
kernels and rates are of order one at every width). Activations are scaled so that a unit's second moment stays one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from metantk.options.theory import network_name

Weights = dict[str, Tensor]

HEAD = "head"  # the only weight that ANIL adapts
KERNEL_SIDE = 3  # of the convolutions, in pixels

_ERF_GAIN = (2 / math.pi * math.asin(2 / 3)) ** -0.5


class Network(NamedTuple):
    """An architecture; called with weights and inputs, it gives outputs.

    Attributes:
        kind: `fully_connected`, or `convolutional` (3×3, stride 1, zero padding, global average pool).
        activation: `relu` or `erf`.
        depth: hidden layers, L in the paper.
        width: units or channels of each hidden layer, l in the paper.
        side: inputs are grey images of side × side pixels, as flat rows.
        outputs: of the head, k in the paper.
    """

    kind: str
    activation: str
    depth: int
    width: int
    side: int
    outputs: int

    @property
    def name(self) -> str:
        return network_name(self.kind, self.activation, self.depth)

    def draw(self, generator: torch.Generator) -> Weights:
        """Standard normal weights, float64."""
        convolutional = self.kind == "convolutional"
        window = (KERNEL_SIDE, KERNEL_SIDE) if convolutional else ()
        fan_in = 1 if convolutional else self.side**2
        weights = {}
        for layer in range(self.depth):
            shape = (self.width, fan_in, *window)
            weights[f"hidden{layer}"] = torch.randn(shape, generator=generator, dtype=torch.float64)
            fan_in = self.width
        weights[HEAD] = torch.randn(self.outputs, self.width, generator=generator, dtype=torch.float64)
        return weights

    def __call__(self, weights: Weights, inputs: Tensor) -> Tensor:
        """`(images, side²)` to `(images, outputs)`."""
        x = inputs.unflatten(1, (1, self.side, self.side)) if self.kind == "convolutional" else inputs
        for layer in range(self.depth):
            weight = weights[f"hidden{layer}"]
            scaled = weight / weight[0].numel() ** 0.5
            x = functional.conv2d(x, scaled, padding="same") if x.ndim == 4 else x @ scaled.T
            x = _activate(self.activation, x)
        features = x.mean((2, 3)) if x.ndim == 4 else x
        return features @ weights[HEAD].T / self.width**0.5


def _activate(activation: str, x: Tensor) -> Tensor:
    return 2**0.5 * torch.relu(x) if activation == "relu" else _ERF_GAIN * torch.erf(x)


def closed_form_kernels(network: Network, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The infinitely wide network's NTK and NNGP between inputs; one output's, the same for each.

    Arc-cosine kernels for ReLU (Cho and Saul 2009), arcsine ones for erf (Williams 1996), layer by layer (Jacot et
    al. 2018); for convolutions over all pairs of pixels (Arora et al. 2019).

    Args:
        inputs: `(images, side²)` float64.

    Returns:
        Θ and the NNGP, `(images, images)` each.
    """
    images = len(inputs)
    if network.kind == "convolutional":
        pixels = network.side**2
        covariance = _average_windows(torch.outer(inputs.flatten(), inputs.flatten()), network.side)
    else:
        pixels = 1
        covariance = inputs @ inputs.T / network.side**2
    tangent = covariance
    for layer in range(network.depth):
        moments, slopes = _activated(network.activation, covariance)
        covariance, tangent = moments, tangent * slopes
        if layer < network.depth - 1:
            if pixels > 1:
                covariance = _average_windows(covariance, network.side)
                tangent = _average_windows(tangent, network.side)
            tangent = covariance + tangent
    blocks = (images, pixels, images, pixels)
    nngp = covariance.view(blocks).mean((1, 3))
    return nngp + tangent.view(blocks).mean((1, 3)), nngp


def _average_windows(covariance: Tensor, side: int) -> Tensor:
    """What a convolution makes of a covariance of pixels: both pixels move together over the window."""
    images = len(covariance) // side**2
    maps = covariance.view(images, side, side, images, side, side)
    reach = KERNEL_SIDE // 2
    padded = functional.pad(maps.permute(0, 3, 1, 2, 4, 5), [reach] * 8)
    total = torch.zeros_like(maps.permute(0, 3, 1, 2, 4, 5))
    for row in range(KERNEL_SIDE):
        for column in range(KERNEL_SIDE):
            rows, columns = slice(row, row + side), slice(column, column + side)
            total += padded[:, :, rows, columns, rows, columns]
    return (total / KERNEL_SIDE**2).permute(0, 2, 3, 1, 4, 5).reshape(covariance.shape)


def _activated(activation: str, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """E[φ(u)φ(v)] and E[φ'(u)φ'(v)] of centred Gaussians with this covariance matrix."""
    variance = covariance.diagonal()
    if activation == "erf":
        spread = ((1 + 2 * variance)[:, None] * (1 + 2 * variance)).sqrt()
        moments = torch.asin((2 * covariance / spread).clamp(-1, 1)) * 2 / math.pi
        slopes = 4 / math.pi / (spread**2 - 4 * covariance**2).sqrt()
        return _ERF_GAIN**2 * moments, _ERF_GAIN**2 * slopes
    scale = (variance[:, None] * variance).sqrt()
    # A window that lies outside the image's ink has no variance; its unit is zero, and any angle will do.
    cosine = (covariance / scale.clamp(min=torch.finfo(scale.dtype).tiny)).clamp(-1, 1)
    angle = torch.acos(cosine)
    moments = scale * (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi
    return moments, (math.pi - angle) / math.pi
