"""What keeps a long search honest and cheap: checkpoints that are not too frequent, and counted operations."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from metantk.searches.base import Checkpoint

SECONDS_BETWEEN = 5.0  # checkpoints of tensors; a killed search repeats no more than that


class Pacer:
    """Passes a state to the checkpoint if the last one is some seconds old."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.last = time.perf_counter()

    def save(self, make_state: Callable[[], dict]) -> None:
        if time.perf_counter() - self.last >= SECONDS_BETWEEN:
            self.checkpoint.save(make_state())
            self.last = time.perf_counter()


def count_operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and products of `step`, two for a multiply-accumulate.

    Forward and backward; norms, max pooling, activations and optimisers are left out, as in the kernels of a
    pruning, and average pooling where it is no convolution, as on a GPU.
    Counted once for each kind of step, then multiplied by the number of steps: it must not change any state.
    """
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        step()
    return counter.get_total_flops()


def _convolution_backward(
    output: torch.Size, images: torch.Size, weight: torch.Size, *criteria_options: object, **_: object
) -> int:
    """As many for each gradient that is wanted as the forward pass takes.

    PyTorch's own formula takes the weight gradient of a convolution in groups for that of a dense one: for a
    depthwise convolution, as many times too much as there are channels.

    Args:
        output, images, weight: shapes.
        settings: bias, stride, padding, dilation, transposed, output padding, groups, which gradients are wanted.
    """
    transposed, wanted = criteria_options[4], criteria_options[7]
    return conv_flop_count(images, weight, output, transposed) * sum(wanted[:2])
