"""Initial weights that several backbones share."""

import torch
from torch import nn


@torch.no_grad()
def uniform_(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights as PyTorch's constructors do, uniform within ±1/√fan-in, in the order of the modules."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
