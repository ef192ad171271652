"""Statistics of batch normalisation that depend on the supports alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def answer_by_support_statistics(
    network: nn.Module, forward: Callable[[Tensor], Tensor], support: Tensor, query: Tensor
) -> Tensor:
    """`forward(query)` with the queries normalised by the statistics of the supports: no query sees another.

    The network is left as it was, its mode too; running averages that `forward` takes from elsewhere are changed.

    Args:
        forward: passes images through the network; called with the supports, then with the queries.
        support, query: normalised images, `(images, 3, height, width)`.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    names = ("momentum", "track_running_stats", "running_mean", "running_var")
    before = [[getattr(norm, name) for name in names] for norm in norms]
    modes = [(module, module.training) for module in network.modules()]
    try:
        take_statistics(network, forward, support)
        return forward(query)
    finally:
        for norm, values in zip(norms, before, strict=True):
            for name, value in zip(names, values, strict=True):
                setattr(norm, name, value)
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def take_statistics(network: nn.Module, forward: Callable[[Tensor], Tensor], support: Tensor) -> None:
    """Leave the network in evaluation mode, with the statistics of the supports as its running averages."""
    for norm in network.modules():
        if isinstance(norm, _BatchNorm):
            zeros = support.new_zeros(norm.num_features)
            norm.momentum, norm.track_running_stats = 1.0, True  # averages become the next batch's statistics
            norm.running_mean, norm.running_var = zeros, zeros + 1
    network.train()
    forward(support)
    network.eval()
