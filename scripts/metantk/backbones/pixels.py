"""No network: an image's features are its normalised pixels. What every network should be better than."""

import torch
from torch import Tensor, nn

from metantk.backbones.drop import Drop
from metantk.backbones.initial import uniform_
from metantk.options.backbones.pixels import Architecture as Architecture
from metantk.options.backbones.pixels import Options as Options


class Network(nn.Module):
    """All pixels, and a linear head that nothing trains."""

    def __init__(self, *, image_size: int, outputs: int) -> None:
        super().__init__()
        self.feature_dim = 3 * image_size**2
        self.head = nn.Linear(self.feature_dim, outputs)

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`."""
        return images.flatten(1)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, outputs)`."""
        return self.head(self.features(images, drop))

    def initialise_(self, generator: torch.Generator) -> None:
        uniform_(self, generator)


def build(architecture: dict, outputs: int) -> Network:
    """`architecture` as in `Architecture`."""
    return Network(image_size=architecture["image_size"], outputs=outputs)
