"""What a training step tells a network about its random dropping of paths, activations or blocks."""

from typing import NamedTuple

import torch


class Drop(NamedTuple):
    """The moment of a training and the draws of its step; networks drop in training mode only.

    Attributes:
        rate: the full rate, in 0..1 (1 excluded).
        progress: share of the training that has passed, in 0..1 (0 excluded), for schedules that follow epochs.
        step: training steps finished before this one, for schedules that follow steps.
        generator: of all draws, on the network's device.
    """

    rate: float
    progress: float
    step: int
    generator: torch.Generator
