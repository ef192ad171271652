"""Few-shot episodes on a split: the tasks that every model is asked, and its accuracies."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from metantk import transforms
from metantk.datasets.store import Split
from metantk.devices import generator
from metantk.episodes import Episode, EpisodeSampler
from metantk.models import FORWARD_PIXELS, Model, Tasks
from metantk.options.evaluation import EvaluationOptions

# Episodes that are answered together. Classifiers of many are fitted in one go; memory grows with them.
TOGETHER = 50


def evaluate(
    model: Model, split: Split, options: EvaluationOptions, *, where: str, done: int = 0
) -> Iterator[dict[int, float]]:
    """Accuracy in percent of each episode from number `done` on, by number of shots.

    An episode is drawn with the most shots asked for; fewer shots take the first supports of each class, so that
    numbers of shots are compared on the same queries. Episodes depend on the options and on the split alone.

    Raises:
        InputError: the split has too few classes or pictures for the episodes, or the model gives no finite scores.
    """
    sampler = EpisodeSampler(
        split.labels, ways=options.ways, shots=max(options.shots), queries=options.queries, where=where
    )
    pool = Pool(model, split, options)
    targets = torch.arange(options.ways).repeat_interleave(options.queries)
    numbered = islice(enumerate(sampler.episodes(options.episodes, seed=options.seed)), done, None)
    while chunk := list(islice(numbered, TOGETHER)):
        asked = Asked(pool, chunk)
        right = {
            shots: (model.scores(asked.tasks(shots)).argmax(-1).cpu() == targets).double().mean(1)
            for shots in options.shots
        }
        for number in range(len(chunk)):
            yield {shots: 100 * float(accuracies[number]) for shots, accuracies in right.items()}


class Pool:
    """The pictures of a split and their features; those without augmentation are computed once per picture."""

    def __init__(self, model: Model, split: Split, options: EvaluationOptions) -> None:
        self.model, self.split, self.options = model, split, options
        self.known = np.zeros(len(split.labels), dtype=bool)
        # Memory that is never written to costs nothing.
        self.rows = torch.empty(len(split.labels), model.network.feature_dim)

    def images(self, numbers: np.ndarray) -> Tensor:
        """Raw pictures by number, `(..., height, width, 3)`, on the device."""
        chosen = torch.from_numpy(self.split.images[numbers.ravel()]).to(self.model.device)
        return chosen.view(*numbers.shape, *chosen.shape[1:])

    def prepared(self, numbers: np.ndarray) -> Tensor:
        """Normalised pictures by number, `(..., 3, height, width)`."""
        pictures = self.model.prepare(self.images(numbers.ravel()))
        return pictures.view(*numbers.shape, *pictures.shape[1:])

    def features(self, numbers: np.ndarray) -> Tensor:
        """Features of pictures by number, `(..., features)`, on the device."""
        missing = np.unique(numbers[~self.known[numbers]])
        for part in np.array_split(missing, -(-len(missing) // self.at_once) or 1):
            if len(part):
                self.rows[torch.from_numpy(part)] = self.model.features(self.prepared(part)).cpu()
        self.known[missing] = True
        return self.rows[torch.from_numpy(numbers)].to(self.model.device)

    @property
    def at_once(self) -> int:
        """Pictures that are loaded together."""
        height, width = self.split.images.shape[1:3]
        return max(1, FORWARD_PIXELS // (height * width))


class Asked:
    """Numbered episodes of a chunk, as the tasks of any number of shots."""

    def __init__(self, pool: Pool, episodes: list[tuple[int, Episode]]) -> None:
        self.pool, self.episodes = pool, episodes
        self.support = np.stack([episode.support for _, episode in episodes])  # (episodes, ways, shots)
        self.query = np.stack([episode.query.ravel() for _, episode in episodes])
        self._copies: Tensor | None = None

    def tasks(self, shots: int) -> Tasks:
        options, device = self.pool.options, self.pool.model.device
        ways = torch.arange(options.ways, device=device)
        support = self.support[:, :, :shots].reshape(len(self.episodes), -1)
        labels = ways.repeat_interleave(shots * options.copies)
        return Tasks(
            ways=options.ways,
            labels=ways.repeat_interleave(shots),
            classifier=options.classifier_of(shots),
            support_images=lambda: self.pool.prepared(support),
            query_images=lambda: self.pool.prepared(self.query),
            support_features=lambda: self.pool.features(support),
            query_features=lambda: self.pool.features(self.query),
            augmented_features=lambda: (self.copies()[:, :, :shots].flatten(1, 3), labels),
        )

    def copies(self) -> Tensor:
        """Features of augmented copies, `(episodes, ways, shots, copies, features)`; computed once."""
        if self._copies is None:
            copies = self.pool.options.copies
            if copies == 1:
                features = self.pool.features(self.support)
            else:
                each = self.support[0].size * copies
                together = max(1, self.pool.at_once // each)
                features = torch.cat(
                    [
                        self._augmented(self.episodes[first : first + together])
                        for first in range(0, len(self.episodes), together)
                    ]
                )
            self._copies = features.view(*self.support.shape, copies, -1)
        return self._copies

    def _augmented(self, episodes: list[tuple[int, Episode]]) -> Tensor:
        """Features of augmented copies, `(pictures, features)`; each episode has draws of its own."""
        options, model = self.pool.options, self.pool.model
        pictures = []
        for number, episode in episodes:
            copies = self.pool.images(np.repeat(episode.support.ravel(), options.copies))
            draws = generator("support augmentation", options.seed, number)
            pictures.append(transforms.augment(copies, options.augmentation, draws))
        return model.features(transforms.normalise(torch.cat(pictures), model.mean, model.std))
