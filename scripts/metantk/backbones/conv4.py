"""Conv4, the backbone of MAML and ANIL: four convolutions, each with BatchNorm, ReLU and max pooling.

With 32 filters, as in the code published with MAML; BatchNorm has a scale, as in later code (learn2learn).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones import recompute
from metantk.backbones.drop import Drop
from metantk.options.backbones.conv4 import Architecture as Architecture
from metantk.options.backbones.conv4 import Options as Options


class Block(nn.Module):
    """`(pictures, channels_in, height, width)` to `(pictures, channels, height // 2, width // 2)`."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        # In this order the ReLU, which commutes with a maximum, has a quarter of the pixels.
        return functional.relu(functional.max_pool2d(self.bn(self.conv(x)), 2))


class Network(nn.Module):
    """Four blocks and a linear head on all pixels of the last map; nothing is ever dropped."""

    def __init__(self, *, channels: int, image_size: int, outputs: int) -> None:
        super().__init__()
        self.block1 = Block(3, channels)
        self.block2 = Block(channels, channels)
        self.block3 = Block(channels, channels)
        self.block4 = Block(channels, channels)
        self.feature_dim = channels * (image_size // 16) ** 2
        self.head = nn.Linear(self.feature_dim, outputs)
        self.recompute = False

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, feature_dim)`."""
        x = images
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = recompute.apply(block, x, recompute=self.recompute)
        return x.flatten(1)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(pictures, outputs)`."""
        return self.head(self.features(images, drop))

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator) -> None:
        """Glorot's uniform weights and zero biases (code published with MAML)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()


def build(architecture: dict, outputs: int) -> Network:
    """Conv4 with `outputs` outputs; `architecture` as in `Architecture`."""
    return Network(channels=architecture["channels"], image_size=architecture["image_size"], outputs=outputs)
