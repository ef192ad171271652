"""Few-shot tasks of a split as tensors on the device, the same whatever ran before them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.data.episodes import EpisodeSampler
from metantk.data.store import Split
from metantk.data.transforms import normalise, resize, to_float
from metantk.runtime.devices import numpy_generator
from metantk.searches.base import Problem


class Task(NamedTuple):
    """A task's images, normalised, `(ways * shots, 3, height, width)`, and labels in 0..ways - 1, class by class.

    The queries are `(ways * queries, ...)`.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


class TaskSource:
    """Samples tasks from a split.

    Args:
        image_size: to which images are resized on the device; None leaves them.
        where: names the split in errors.
        indices: of the images that are used, `(images,)`; None uses all.

    Raises:
        InputError: too few classes, or too few images in a class.
    """

    def __init__(
        self,
        problem: Problem,
        split: Split,
        *,
        ways: int,
        shots: int,
        queries: int,
        image_size: int | None,
        where: str,
        indices: np.ndarray | None = None,
    ) -> None:
        self.indices = np.arange(len(split.labels)) if indices is None else indices
        labels = split.labels[self.indices]
        self.sampler = EpisodeSampler(labels, ways=ways, shots=shots, queries=queries, where=where)
        self.images, self.image_size = split.images, image_size
        self.mean, self.std, self.device = problem.mean, problem.std, problem.device

    def draw(self, *key: int | str) -> Task:
        """The task of a key, such as `(seed, meta-step, index)`."""
        episode = self.sampler.draw(numpy_generator("search task", *key))
        return Task(*self._read(episode.support), *self._read(episode.query))

    def _read(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images and labels of `(ways, n)` indices, which may be none."""
        raw = torch.from_numpy(np.ascontiguousarray(self.images[self.indices[indices.ravel()]]))
        images = to_float(raw.to(self.device))
        if self.image_size is not None:
            images = resize(images, self.image_size)
        labels = torch.arange(len(indices), device=self.device).repeat_interleave(indices.shape[1])
        return normalise(images, self.mean, self.std).contiguous(), labels
