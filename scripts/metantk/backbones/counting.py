"""How large a network is, and how much it computes."""

import torch
from torch import nn

from metantk.flops import macs_of_calls


def count_parameters(module: nn.Module) -> int:
    """Those of an ONNX file, which are no parameters of PyTorch's, included."""
    return sum(parameter.numel() for parameter in module.parameters()) + getattr(module, "numbers_in_file", 0)


def count_macs(network: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image; none of an ONNX file's."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    was_training = network.training
    network.eval()
    with torch.no_grad(), macs_of_calls(zip(layers, layers, strict=True)) as macs:
        network(torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device))
    network.train(was_training)
    return sum(macs)
