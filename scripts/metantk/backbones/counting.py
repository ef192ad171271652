"""How large a network is, and how much it computes."""

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Those of an ONNX file, which are no parameters of PyTorch's, included."""
    return sum(parameter.numel() for parameter in module.parameters()) + getattr(module, "numbers_in_file", 0)


def count_macs(network: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image; none of an ONNX file's."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        places = output[0, 0] if isinstance(module, nn.Conv2d) else output[0, ..., 0]
        total += weight.numel() * places.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return total
