"""Checkpoints of a long search that are not too frequent."""

import time
from collections.abc import Callable

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
