"""Training on few-shot tasks: which pictures the tasks of a step take, and the pictures task by task."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from metantk import transforms
from metantk.devices import numpy_generator
from metantk.episodes import EpisodeSampler
from metantk.learners.base import Moment
from metantk.options.augmentation import AugmentationOptions
from metantk.storage import InputError
from metantk.training import Pictures


class TaskSampler:
    """Draws the tasks of each step of a training; a step's draws are named by seed, epoch and step.

    Args:
        where: names the tasks in errors.

    Raises:
        InputError: too few classes, or too few pictures in a class.
    """

    def __init__(
        self,
        pictures: Pictures,
        seed: int,
        *,
        tasks: int,
        ways: int,
        shots: int,
        queries: int,
        where: str = "training split, tasks",
    ) -> None:
        self.episodes = EpisodeSampler(
            pictures.labels.numpy(), ways=ways, shots=shots, queries=queries, where=where
        )
        self.seed, self.tasks, self.ways, self.shots, self.queries = seed, tasks, ways, shots, queries

    def numbers(self, epoch: int, step: int) -> Tensor:
        """Pictures of a step, task by task: supports class by class, then queries class by class."""
        draws = numpy_generator("training tasks", self.shots, self.seed, epoch, step)
        tasks = [self.episodes.draw(draws) for _ in range(self.tasks)]
        return torch.from_numpy(np.concatenate([part.ravel() for task in tasks for part in task]))

    @property
    def size(self) -> int:
        """Pictures of a step."""
        return self.tasks * self.ways * (self.shots + self.queries)

    def split(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Supports `(tasks, ways * shots, ...)` and queries `(tasks, ways * queries, ...)` of a step's pictures."""
        each = pictures.unflatten(0, (self.tasks, -1))
        return each.split([self.ways * self.shots, self.ways * self.queries], dim=1)

    def labels(self, count: int, device: torch.device) -> Tensor:
        """int64 `(tasks, ways * count)` of `count` pictures per class."""
        return torch.arange(self.ways, device=device).repeat_interleave(count).expand(self.tasks, -1)


def steps_of_epoch(samplers: list[TaskSampler], epoch: int, first: int, steps: int) -> Iterator[Tensor]:
    """Numbers of the pictures of each step from `first` on, sampler by sampler."""
    for step in range(first, steps):
        yield torch.cat([sampler.numbers(epoch, step) for sampler in samplers])


def prepare(images: Tensor, pictures: Pictures, augmentation: AugmentationOptions | None, moment: Moment) -> Tensor:
    """uint8 `(pictures, height, width, 3)` to what the network takes, augmented where that is asked for."""
    if augmentation is None:
        floats = transforms.to_float(images)
    else:
        floats = transforms.augment(images, augmentation, moment.generator("augmentation"))
    return transforms.normalise(floats, pictures.mean, pictures.std)


def require_ways(trained: int, asked: int) -> None:
    """Refuse tasks that the head of a meta-learned network has no output for.

    Raises:
        InputError: other ways than in training.
    """
    if asked != trained:
        raise InputError(f"the model was trained on {trained}-way tasks and cannot answer {asked}-way ones")
