"""Few-shot episodes on a split: the tasks that every model is evaluated on, and its accuracies."""

import functools
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from metantk.data import transforms
from metantk.data.episodes import Episode, EpisodeSampler
from metantk.data.store import Split, checksum_of
from metantk.models import FORWARD_PIXELS, Model, Tasks
from metantk.options.evaluation import EvaluationOptions
from metantk.runtime import devices
from metantk.runtime.devices import generator, numpy_generator

# Episodes that are answered together. Classifiers of many are fitted in one go; memory grows with them.
TOGETHER = 50
BYTES_OF_COPY = 48  # of its augmentation and its group


def evaluate(
    model: Model, split: Split, options: EvaluationOptions, *, where: str, done: int = 0
) -> Iterator[dict[int, float]]:
    """Accuracy in percent of each episode from number `done` on, by number of shots.

    An episode is sampled with the most shots of the options; fewer take the first supports of each class, so that
    numbers of shots are compared on the same queries. Episodes depend on the options and on the split alone. What
    goes through the network or a classifier together does not depend on `done`, for its rounding does on that.

    Raises:
        InputError: the split has too few classes or images for the episodes, or the model gives no finite scores.
    """
    sampler = EpisodeSampler(
        split.labels, ways=options.ways, shots=max(options.shots), queries=options.queries, where=where
    )
    pool = Pool(model, split, options)
    targets = torch.arange(options.ways).repeat_interleave(options.queries)
    numbered = enumerate(sampler.episodes(options.episodes, seed=options.seed))
    while chunk := list(islice(numbered, TOGETHER)):
        batch = EpisodeBatch(pool, chunk)
        if chunk[-1][0] < done:
            continue
        correct = {
            shots: (model.scores(batch.tasks(shots)).argmax(-1).cpu() == targets).double().mean(1)
            for shots in options.shots
        }
        for position, (index, _) in enumerate(chunk):
            if index >= done:
                yield {shots: 100 * float(accuracies[position]) for shots, accuracies in correct.items()}


def describe_transfer(facts: dict, manifest: dict, split: Split) -> dict | None:
    """What there is to know of an evaluation on another data set than the model's; None on its own.

    Another one has another name than the data set that the architecture was found on, or other arrays.

    Args:
        facts: the content of model.json.
        manifest, split: of the data that the model is evaluated on.

    Returns:
        `trained_on` and `tested_on` (names), `image_size` (of `tested_on`, in pixels), `resized_to` (that of the
        model, where it is another one, or None), and `shared_classes`: names of the split's classes that are
        training classes of `trained_on`, too.
    """
    name, checksum = manifest["name"], facts.get("data_sha256")
    trained_on = (facts["architecture"].get("origin") or {}).get("dataset")
    if trained_on in (None, name) and checksum in (None, checksum_of(manifest)):
        return None
    size, own_size = split.images.shape[1], facts["image_size"]
    return {
        "trained_on": trained_on or "unknown",
        "tested_on": name,
        "image_size": size,
        "resized_to": own_size if own_size != size else None,
        "shared_classes": sorted(set(split.class_names) & set(facts.get("classes", []))),
    }


class ResizedImages:
    """Images that are brought to another size as they are read; takes the place of their array.

    Bilinear with antialiasing, rounded to bytes; an image's result does not depend on what is read with it.

    Args:
        images: uint8 `(images, height, width, 3)`.
        size: height and width that they are brought to, in pixels.
    """

    def __init__(self, images: np.ndarray, size: int) -> None:
        self.images, self.shape = images, (len(images), size, size, 3)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        images = transforms.to_float(torch.from_numpy(self.images[indices]))
        resized = transforms.resize(images, self.shape[1]).mul(255).round().clamp(0, 255)
        return resized.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


class Pool:
    """The images of a split, and the features of those in use: queries, supports, supports' copies.

    Of each image there are `each` augmented copies in all; they are numbered image by image.
    """

    def __init__(self, model: Model, split: Split, options: EvaluationOptions) -> None:
        self.model, self.split, self.options = model, split, options
        self.each = max(options.support_copies, options.support_copy_pool or 0)
        self.queries, self.supports = (Features(self, len(split.labels), self.prepared) for _ in range(2))
        self.without_copies: list[EpisodeBatch] = []  # those whose copies no model has asked for
        if not options.support_copy_pool:
            together = options.ways * max(options.shots) * options.support_copies
            side = split.images.shape[1]
            devices.require_memory(together, side=side, device=model.device, options="support_copies")

    @functools.cached_property
    def copies(self) -> "Features":
        """Those of all copies: made when a model first asks, since many adapt to the images as they are.

        Raises:
            InputError: they do not fit.
        """
        copies, where = len(self.split.labels) * self.each, torch.device("cpu")
        size = BYTES_OF_COPY + 4 * self.model.network.feature_dim
        what = f"the pool holds features of {copies} copies"
        devices.require_bytes(copies * size, device=where, options="support_copy_pool", what=what)
        return Features(self, copies, self.prepared_copies)

    def register_copies(self) -> None:
        """Those of all episodes so far, in their order: what goes through the network together depends on it."""
        copies = self.copies  # refused before any is drawn
        for batch in self.without_copies:
            batch.shared = np.stack([batch.draw_copies(index, episode) for index, episode in batch.episodes])
            copies.register(batch.shared)
        self.without_copies.clear()

    def images(self, indices: np.ndarray) -> Tensor:
        """Raw images by index, `(..., height, width, 3)`, on the device."""
        chosen = torch.from_numpy(self.split.images[indices.ravel()]).to(self.model.device)
        return chosen.view(*indices.shape, *chosen.shape[1:])

    def prepared(self, indices: np.ndarray) -> Tensor:
        """Normalised images by index, `(..., 3, height, width)`."""
        images = self.model.prepare(self.images(indices.ravel()))
        return images.view(*indices.shape, *images.shape[1:])

    def prepared_copies(self, indices: np.ndarray) -> Tensor:
        """Normalised augmented copies by index, `(copies, 3, height, width)`."""
        parameters = self.parameters.of(torch.from_numpy(indices))
        changed = transforms.augment(self.images(indices // self.each), self.options.augmentation, parameters)
        return transforms.normalise(changed, self.model.mean, self.model.std)

    @functools.cached_property
    def parameters(self) -> transforms.AugmentationParameters:
        """Of all copies."""
        purpose = generator("support copies", self.options.seed)
        return transforms.sample_parameters(len(self.split.labels) * self.each, self.options.augmentation, purpose)

    @property
    def at_once(self) -> int:
        """Images that are loaded together."""
        height, width = self.split.images.shape[1:3]
        return max(1, FORWARD_PIXELS // (height * width))


class Features:
    """Features of numbered images, computed once for each, together with those that were registered with it.

    Args:
        images: how many there are.
        prepare: gives what the network takes, by index.
    """

    def __init__(self, pool: Pool, images: int, prepare: Callable[[np.ndarray], Tensor]) -> None:
        self.pool, self.prepare = pool, prepare
        self.group = np.full(images, -1)
        self.groups = 0
        self.pending: dict[int, np.ndarray] = {}
        # Memory that is never written to costs nothing.
        self.rows = torch.empty(images, pool.model.network.feature_dim)

    def register(self, indices: np.ndarray) -> None:
        """Make a group of the images among `indices` that are in none yet."""
        new = np.unique(indices[self.group[indices] < 0])
        if len(new):
            self.group[new] = self.groups
            self.pending[self.groups] = new
            self.groups += 1

    def __call__(self, indices: np.ndarray) -> Tensor:
        """Of registered images, by index, `(..., features)`, on the device."""
        for index in np.unique(self.group[indices]):
            if index in self.pending:
                self._compute(self.pending.pop(index))
        return self.rows[torch.from_numpy(indices)].to(self.pool.model.device)

    def _compute(self, indices: np.ndarray) -> None:
        at_once = self.pool.at_once
        for first in range(0, len(indices), at_once):
            chunk = indices[first : first + at_once]
            self.rows[torch.from_numpy(chunk)] = self.pool.model.features(self.prepare(chunk)).cpu()


class EpisodeBatch:
    """Numbered episodes of a chunk, as the tasks of any number of shots."""

    def __init__(self, pool: Pool, episodes: list[tuple[int, Episode]]) -> None:
        self.pool, self.episodes = pool, episodes
        self.support = np.stack([episode.support for _, episode in episodes])  # (episodes, ways, shots)
        self.query = np.stack([episode.query.ravel() for _, episode in episodes])
        pool.queries.register(self.query)
        pool.supports.register(self.support)
        self.shared: np.ndarray | None = None
        if pool.options.support_copy_pool and pool.options.support_copies > 1:
            pool.without_copies.append(self)
        self._copies: Tensor | None = None

    def draw_copies(self, index: int, episode: Episode) -> np.ndarray:
        """Which copies an episode takes of the pool's, `(ways, shots, copies)`: none of them twice."""
        each, rng = self.pool.each, numpy_generator("copies of supports", self.pool.options.seed, index)
        chosen = rng.random((*episode.support.shape, each)).argsort(-1)[..., : self.pool.options.support_copies]
        return episode.support[..., None] * each + chosen

    def tasks(self, shots: int) -> Tasks:
        options, device = self.pool.options, self.pool.model.device
        ways = torch.arange(options.ways, device=device)
        support = self.support[:, :, :shots].reshape(len(self.episodes), -1)
        return Tasks(
            ways=options.ways,
            labels=ways.repeat_interleave(shots),
            classifier=options.classifier_of(shots),
            support_images=lambda: self.pool.prepared(support),
            query_images=lambda: self.pool.prepared(self.query),
            support_features=lambda: self.pool.supports(support),
            query_features=lambda: self.pool.queries(self.query),
            augmented_features=lambda: (
                self.copies()[:, :, :shots].flatten(1, 3),
                ways.repeat_interleave(shots * options.support_copies),
            ),
            size=self.query.shape,
        )

    def copies(self) -> Tensor:
        """Features of augmented copies, `(episodes, ways, shots, copies, features)`; computed once."""
        if self._copies is None:
            copies = self.pool.options.support_copies
            if copies == 1:
                features = self.pool.supports(self.support)
            elif self.pool.options.support_copy_pool:
                self.pool.register_copies()
                features = self.pool.copies(self.shared)
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
        """Features of copies made anew, `(images, features)`; each episode has random numbers of its own."""
        options, model = self.pool.options, self.pool.model
        images = []
        for index, episode in episodes:
            copies = self.pool.images(np.repeat(episode.support.ravel(), options.support_copies))
            rng = generator("support augmentation", options.seed, index)
            images.append(transforms.augment(copies, options.augmentation, rng))
        return model.features(transforms.normalise(torch.cat(images), model.mean, model.std))
