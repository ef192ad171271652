"""Conv4: four convolutions, each with BatchNorm, ReLU and, in most forms, max pooling.

The defaults are those of the code published with MAML: 32 filters, four poolings, all pixels of the last map;
BatchNorm has a scale, as in later code (learn2learn). RFS's Conv4 has 64 filters, three poolings and a global
average pool: `channels=64, poolings=3, pool="average", initialisation="kaiming_normal"`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones import recompute
from metantk.backbones.drop import Drop
from metantk.backbones.initial import uniform_
from metantk.options.backbones.conv4 import Architecture as Architecture
from metantk.options.backbones.conv4 import Options as Options


class Block(nn.Module):
    """`(images, channels_in, height, width)` to `(images, channels, height // 2, width // 2)`, or not halved."""

    def __init__(self, channels_in: int, channels: int, *, pools: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.pools = pools

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        # In this order the ReLU, which commutes with a maximum, has a quarter of the pixels.
        return functional.relu(functional.max_pool2d(x, 2) if self.pools else x)


class Network(nn.Module):
    """Four blocks and a linear head on the last map's pixels, or on their average; nothing is ever dropped."""

    def __init__(
        self,
        *,
        channels: int,
        image_size: int,
        outputs: int,
        poolings: int = 4,
        pool: str = "none",
        initialisation: str = "xavier_uniform",
    ) -> None:
        super().__init__()
        self.block1 = Block(3, channels, pools=poolings >= 1)
        self.block2 = Block(channels, channels, pools=poolings >= 2)
        self.block3 = Block(channels, channels, pools=poolings >= 3)
        self.block4 = Block(channels, channels, pools=poolings >= 4)
        self.averages = pool == "average"
        self.initialisation = initialisation
        self.feature_dim = channels * (1 if self.averages else (image_size >> poolings) ** 2)
        self.head = nn.Linear(self.feature_dim, outputs)
        self.recompute = False

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`."""
        x = images
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = recompute.apply(block, x, recompute=self.recompute)
        return x.mean((2, 3)) if self.averages else x.flatten(1)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, outputs)`."""
        return self.head(self.features(images, drop))

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator) -> None:
        """Glorot's uniform weights and zero biases (MAML's code), or RFS's: see `_initialise_as_rfs_`."""
        if self.initialisation == "kaiming_normal":
            self._initialise_as_rfs_(generator)
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def _initialise_as_rfs_(self, generator: torch.Generator) -> None:
        """Kaiming's normal weights of convolutions by fan-out; all else as PyTorch's constructors have it."""
        uniform_(self, generator)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()


def build(architecture: dict, outputs: int) -> Network:
    """Conv4 with `outputs` outputs; `architecture` as in `Architecture`."""
    options = {name: value for name, value in architecture.items() if name != "kind"}
    return Network(**options, outputs=outputs)
