"""What keeps a long search honest and cheap: checkpoints that are not too frequent, and counted operations."""

import time
from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

from metantk.searches.base import Checkpoint

SECONDS_BETWEEN = 5.0  # checkpoints of tensors; a killed search repeats no more than that


class Pacer:
    """Passes a state to the checkpoint if the last one is some seconds old."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.last = time.perf_counter()

    def keep(self, make_state: Callable[[], dict]) -> None:
        if time.perf_counter() - self.last >= SECONDS_BETWEEN:
            self.checkpoint.keep(make_state())
            self.last = time.perf_counter()


def count_operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and products of `step`, two for a multiply-accumulate.

    Counted once for each kind of step, then multiplied by the number of steps: it must not change any state.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
