"""Training on few-shot tasks: which images the tasks of a step take, and the images task by task."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from metantk.data import transforms
from metantk.data.episodes import EpisodeSampler
from metantk.data.images import ImageData
from metantk.learners.base import StepContext
from metantk.meta_learning.balance import repeat_to_equal
from metantk.models import Tasks
from metantk.options.augmentation import AugmentationOptions
from metantk.runtime.devices import numpy_generator, require_memory
from metantk.runtime.files import InputError


class TaskSampler:
    """Samples the tasks of each step of a training; a step's random numbers are named by seed, epoch and step.

    Args:
        where: names the tasks in errors.

    Raises:
        InputError: too few classes, too few images in a class, or more images in a step than memory holds.
    """

    def __init__(
        self,
        data: ImageData,
        seed: int,
        *,
        tasks: int,
        ways: int,
        shots: int,
        queries: int,
        where: str = "training split, tasks",
    ) -> None:
        self.episodes = EpisodeSampler(data.labels.numpy(), ways=ways, shots=shots, queries=queries, where=where)
        self.seed, self.tasks, self.ways, self.shots, self.queries = seed, tasks, ways, shots, queries
        require_memory(
            self.size, side=data.images.shape[1], device=data.device, options="meta_batch_size, shots, queries"
        )

    def indices(self, epoch: int, step: int) -> Tensor:
        """Images of a step, task by task: supports class by class, then queries class by class."""
        rng = numpy_generator("training tasks", self.shots, self.seed, epoch, step)
        tasks = [self.episodes.draw(rng) for _ in range(self.tasks)]
        return torch.from_numpy(np.concatenate([indices.ravel() for task in tasks for indices in task]))

    @property
    def size(self) -> int:
        """Images of a step."""
        return self.tasks * self.ways * (self.shots + self.queries)

    def split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Supports `(tasks, ways * shots, ...)` and queries `(tasks, ways * queries, ...)` of a step's images."""
        each = inputs.unflatten(0, (self.tasks, -1))
        return each.split([self.ways * self.shots, self.ways * self.queries], dim=1)

    def labels(self, count: int, device: torch.device) -> Tensor:
        """int64 `(tasks, ways * count)` of `count` images per class."""
        return torch.arange(self.ways, device=device).repeat_interleave(count).expand(self.tasks, -1)


def steps_of_epoch(samplers: list[TaskSampler], epoch: int, first: int, steps: int) -> Iterator[Tensor]:
    """Indices of the images of each step from `first` on, sampler by sampler."""
    for step in range(first, steps):
        yield torch.cat([sampler.indices(epoch, step) for sampler in samplers])


def prepare(
    images: Tensor, data: ImageData, augmentation: AugmentationOptions | None, context: StepContext
) -> Tensor:
    """uint8 `(images, height, width, 3)` to what the network takes, augmented with the options given."""
    if augmentation is None:
        floats = transforms.to_float(images)
    else:
        floats = transforms.augment(images, augmentation, context.generator("augmentation"))
    return transforms.normalise(floats, data.mean, data.std)


def balanced(tasks: Tasks) -> Tasks:
    """Tasks whose classes have as many supports, and so as much weight in losses, batches and statistics."""
    chosen = repeat_to_equal(tasks.labels.cpu(), tasks.ways)
    if len(chosen) == len(tasks.labels):
        return tasks
    chosen = chosen.to(tasks.labels.device)
    return dataclasses.replace(
        tasks, labels=tasks.labels[chosen], support_images=lambda: tasks.support_images()[:, chosen]
    )


def require_ways(trained: int, ways: int) -> None:
    """Refuse tasks that the head of a meta-learned network has no output for.

    Raises:
        InputError: other ways than in training.
    """
    if ways != trained:
        raise InputError(f"the model was trained on {trained}-way tasks and cannot answer {ways}-way ones")
