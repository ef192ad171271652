"""MetaNAS's network as a backbone: every edge mixes all operations. On its own it mixes them alike."""

import torch
from torch import Tensor, nn

from metantk.backbones.drop import Drop
from metantk.backbones.initial import uniform_
from metantk.options.backbones.mixed import Architecture as Architecture
from metantk.options.backbones.mixed import Options as Options
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.space.layouts import metanas_layout
from metantk.space.mixed import Arch, MixedNetwork, pairs_of, pairwise_mixture


class Network(nn.Module):
    """The mixed network behind the interface of all backbones; `mixed` takes an architecture besides images."""

    def __init__(self, mixed: MixedNetwork) -> None:
        super().__init__()
        self.mixed = mixed
        self.feature_dim = mixed.feature_dim

    @property
    def head(self) -> nn.Linear:
        return self.mixed.head

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`, all operations mixed alike."""
        dropping = drop is not None and self.training
        rate = drop.rate * drop.progress if dropping else 0.0
        generator = drop.generator if dropping else None
        return self.mixed.features(images, self.uniform(images.device), rate=rate, generator=generator)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        return self.head(self.features(images, drop))

    def uniform(self, device: torch.device) -> Arch:
        space = self.mixed.space
        shapes = [(len(space.edges), len(space.operations)), (sum(len(pairs) for pairs in pairs_of(space)),)]
        logits = [torch.zeros(shape, device=device) for shape in shapes]
        return dict.fromkeys(CELL_TYPES, pairwise_mixture(*logits, space, temperature=1.0, threshold=0.0))

    def initialise_(self, generator: torch.Generator) -> None:
        uniform_(self, generator)


def build(architecture: dict, outputs: int) -> Network:
    """A mixed network with `outputs` outputs; `architecture` as in `Architecture`."""
    layout = metanas_layout(architecture["channels"], architecture["cells"], tuple(architecture["reductions"]))
    return Network(MixedNetwork(SPACES[architecture["space"]], layout, outputs))
