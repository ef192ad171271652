"""No learning: the network as it was initialised, or as it came with its weights. The baseline of learners."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from metantk.data.images import ImageData
from metantk.learners.base import Outcome, StepContext
from metantk.learners.rfs import classifier as classifier
from metantk.learners.rfs import scores as scores
from metantk.options.learners.none import Options


def outputs(options: Options, classes: int) -> int:
    return classes


class NoOptimiser(torch.optim.Optimizer):
    """Moves nothing. To make one of PyTorch's own loads its compiler, which takes longer than all else here."""

    def __init__(self) -> None:
        self.param_groups = []

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class Learner:
    """Has no steps."""

    extra = None
    epochs = steps = 0

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        self.network = network
        self.optimiser = NoOptimiser()

    def lr(self, epoch: int) -> float:
        return 0.0

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        return iter(())

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        raise NotImplementedError("a learner without epochs takes no step")
