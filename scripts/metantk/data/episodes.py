"""N-way K-shot episodes: seeded, and the same for every method and backbone of a data set."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError


class Episode(NamedTuple):
    """Image numbers of one few-shot task.

    Attributes:
        support: int64, `(ways, shots)`.
        query: int64, `(ways, queries)`; class by class in the same order as the support.
    """

    support: np.ndarray
    query: np.ndarray


class EpisodeSampler:
    """Draws episodes from the labels of a split.

    Args:
        labels: int64 `(images,)`, classes numbered from 0.

    Raises:
        InputError: too few classes, or too few images in a class.
    """

    def __init__(self, labels: np.ndarray, *, ways: int, shots: int, queries: int, where: str) -> None:
        order = np.argsort(labels, kind="stable")
        bounds = np.cumsum(np.bincount(labels))[:-1]
        self.images = np.split(order, bounds)
        self.ways, self.shots, self.queries = ways, shots, queries
        if len(self.images) < ways:
            raise InputError(f"{where}: {len(self.images)} classes are too few for {ways}-way episodes")
        smallest = min(len(images) for images in self.images)
        if smallest < shots + queries:
            raise InputError(
                f"{where}: the smallest class has {smallest} images, but an episode takes {shots} to support "
                f"and {queries} to query"
            )

    def draw(self, generator: np.random.Generator) -> Episode:
        classes = generator.choice(len(self.images), self.ways, replace=False)
        count = self.shots + self.queries
        drawn = np.stack([generator.choice(self.images[c], count, replace=False) for c in classes])
        return Episode(drawn[:, : self.shots], drawn[:, self.shots :])

    def episodes(self, count: int, *, seed: int) -> Iterator[Episode]:
        """`count` episodes; number i is the same however many are drawn."""
        for index in range(count):
            yield self.draw(numpy_generator("episode", seed, index))
