"""ResNet-12, the backbone of MetaOptNet and RFS (facts of their code, which is the same).

Dropping differs from that code in two things. There, DropBlock pairs seeds with offsets in a way that zeroes whole
blocks only where their numbers have no common divisor; here each seed zeroes its whole block. And there, each
block's schedule counts forward passes, those of evaluations too; here it counts training steps.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones import recompute
from metantk.backbones.drop import Drop
from metantk.options.backbones.resnet12 import Architecture as Architecture
from metantk.options.backbones.resnet12 import Options as Options

SLOPE = 0.1  # of the leaky ReLU below zero
RAMP_STEPS = 40_000  # until DropBlock drops at its full rate


class Block(nn.Module):
    """Three convolutions and a shortcut, then max pooling.

    `(images, channels_in, height, width)` to `(images, channels, height // 2, width // 2)`.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.shortcut = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels)))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        y = functional.leaky_relu(self.bn2(self.conv2(y)), SLOPE)
        y = self.bn3(self.conv3(y)) + self.shortcut(x)
        # In this order the ReLU, which commutes with a maximum, has a quarter of the pixels.
        return functional.leaky_relu(functional.max_pool2d(y, 2), SLOPE)


class Network(nn.Module):
    """Four blocks and a linear head.

    Args:
        widths: channels of the four blocks.
        pool: "average", over the last map (RFS), or "none": features are all of its pixels (MetaOptNet).
        image_size: height and width of the images, in pixels.
        block_size: side of the squares that DropBlock zeroes, in pixels of the map.
        outputs: of the head.
    """

    def __init__(self, *, widths: list[int], pool: str, image_size: int, block_size: int, outputs: int) -> None:
        super().__init__()
        self.block1 = Block(3, widths[0])
        self.block2 = Block(widths[0], widths[1])
        self.block3 = Block(widths[1], widths[2])
        self.block4 = Block(widths[2], widths[3])
        self.pool, self.block_size = pool, block_size
        self.feature_dim = widths[3] * (1 if pool == "average" else (image_size // 16) ** 2)
        self.head = nn.Linear(self.feature_dim, outputs)
        self.recompute = False

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`.

        Dropping follows steps: activations of the first two blocks at the full rate from the first one on, blocks
        of pixels of the last two at a rate that grows for `RAMP_STEPS`.
        """
        x = images
        for index, block in enumerate((self.block1, self.block2, self.block3, self.block4)):
            x = recompute.apply(block, x, recompute=self.recompute)
            if drop is None or not drop.rate or not self.training:
                continue
            if index < 2:
                x = dropout(x, drop.rate, drop.generator)
            else:
                x = drop_block(x, keep_share(drop.rate, drop.step + 1), self.block_size, drop.generator)
        return x.mean((2, 3)) if self.pool == "average" else x.flatten(1)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, outputs)`."""
        return self.head(self.features(images, drop))

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator) -> None:
        """He's normal weights by fan-out; the head uniform within ±1/√fan-in, as PyTorch makes it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        bound = self.feature_dim**-0.5
        for parameter in self.head.parameters():
            parameter.uniform_(-bound, bound, generator=generator)


def dropout(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Zero each element with probability `rate` and scale up the others, so that the mean stays."""
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * kept.to(x.dtype) / (1 - rate)


def keep_share(rate: float, count: int) -> float:
    """Share of pixels that DropBlock aims to keep in the training step that is number `count`, from 1."""
    return max(1 - rate * count / RAMP_STEPS, 1 - rate)


def seed_probability(keep: float, block_size: int, side: int) -> float:
    """Probability γ of a seed at each place where a whole block fits into a map of `side` pixels."""
    return (1 - keep) / block_size**2 * side**2 / (side - block_size + 1) ** 2


def keep_mask(seeds: Tensor, block_size: int) -> Tensor:
    """Zero the block whose upper left corner is a seed.

    Args:
        seeds: 0 or 1, `(images, channels, height - block_size + 1, width - block_size + 1)`.

    Returns:
        0 or 1, `(images, channels, height, width)`.
    """
    around = functional.pad(seeds, [block_size - 1] * 4)
    return 1 - functional.max_pool2d(around, block_size, stride=1)


def scale_of(mask: Tensor) -> Tensor:
    """What makes up for the zeros of a whole batch: the number of pixels by that of kept ones.

    Where none is kept, a finite number, so that zeros stay zeros.
    """
    return mask.numel() / mask.sum().clamp(min=1)


def drop_block(x: Tensor, keep: float, block_size: int, generator: torch.Generator) -> Tensor:
    """DropBlock on square maps, `(images, channels, side, side)`.

    A block is never larger than the map; where it is as large, a seed drops the channel's whole map.
    """
    images, channels, _, side = x.shape
    block_size = min(block_size, side)
    places = (images, channels, side - block_size + 1, side - block_size + 1)
    draws = torch.rand(places, generator=generator, device=x.device)
    mask = keep_mask((draws < seed_probability(keep, block_size, side)).to(x.dtype), block_size)
    return x * mask * scale_of(mask)


def build(architecture: dict, outputs: int) -> Network:
    """ResNet-12 with `outputs` outputs; `architecture` as in `Architecture`."""
    sizes = {key: value for key, value in architecture.items() if key != "kind"}
    return Network(**sizes, outputs=outputs)
