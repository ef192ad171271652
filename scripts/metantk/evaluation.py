"""Few-shot episodes on a frozen backbone (RFS): features, a linear classifier per episode, accuracies."""

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from metantk import transforms
from metantk.backbones.cells import Network
from metantk.config import EvaluationOptions
from metantk.datasets.store import Split
from metantk.devices import generator
from metantk.episodes import Episode, EpisodeSampler
from metantk.space.genotype import check_genotype
from metantk.storage import InputError, read_json, sha256_of

FORWARD_BATCH = 512  # pictures per forward pass


class Backbone(NamedTuple):
    """A trained network and what its pictures are normalised with."""

    network: Network
    mean: list[float]
    std: list[float]

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """`(pictures, 3, height, width)` in 0..1 to L2-normalised `(pictures, feature_dim)`."""
        images = transforms.normalise(images, self.mean, self.std)
        parts = [self.network.features(part) for part in images.split(FORWARD_BATCH)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def load_backbone(description: Path, weights: Path, device: torch.device) -> Backbone:
    """Rebuild a trained network from `backbone.json` and `backbone.safetensors`.

    Raises:
        InputError: a file is missing, damaged, or the two do not belong together.
    """
    facts = read_json(description)
    try:
        genotype = check_genotype(facts["genotype"], where=str(description))
        network = Network(genotype, cells=facts["cells"], channels=facts["channels"], classes=len(facts["classes"]))
        mean, std, expected = facts["mean"], facts["std"], facts["weights_sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{description}: describes no backbone ({error} is missing or wrong)") from None
    if not weights.is_file():
        raise InputError(f"{weights}: is missing; train the backbone again")
    if sha256_of(weights) != expected:
        raise InputError(
            f"{weights}: is damaged or belongs to another {description.name}; train the backbone again"
        )
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{weights}: does not fit {description} ({str(error).splitlines()[0]})") from None
    return Backbone(network.to(device, memory_format=torch.channels_last).eval(), mean, std)


class QueryFeatures:
    """Features of unaugmented pictures, computed once for each picture that any episode asks for."""

    def __init__(self, backbone: Backbone, split: Split, device: torch.device) -> None:
        self.backbone, self.split, self.device = backbone, split, device
        self.known = np.full(len(split.labels), -1)
        self.rows = np.empty((0, backbone.network.feature_dim), dtype=np.float32)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Features of pictures by number, `(..., features)`."""
        missing = np.unique(numbers[self.known[numbers] < 0])
        if len(missing):
            pictures = transforms.to_float(load_pictures(self.split, missing, self.device))
            features = self.backbone.features(pictures)
            self.known[missing] = len(self.rows) + np.arange(len(missing))
            self.rows = np.concatenate([self.rows, features.cpu().numpy()])
        return self.rows[self.known[numbers]]


def load_pictures(split: Split, numbers: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(split.images[numbers]).to(device)


def evaluate(
    backbone: Backbone, split: Split, options: EvaluationOptions, device: torch.device, *, where: str
) -> Iterator[dict[int, float]]:
    """Accuracy in percent of each episode, by number of shots.

    An episode is drawn with the most shots asked for; fewer shots take the first supports of each class, so that
    numbers of shots are compared on the same queries.

    Raises:
        InputError: the split has too few classes or pictures for the episodes.
    """
    most = max(options.shots)
    sampler = EpisodeSampler(split.labels, ways=options.ways, shots=most, queries=options.queries, where=where)
    queries = QueryFeatures(backbone, split, device)
    targets = np.repeat(np.arange(options.ways), options.queries)
    per_chunk = max(1, FORWARD_BATCH // (options.ways * most * options.copies))
    numbered = enumerate(sampler.episodes(options.episodes, seed=options.seed))
    while chunk := list(islice(numbered, per_chunk)):
        query_features = queries(np.stack([episode.query.ravel() for _, episode in chunk]))
        support_features = _support_features(backbone, split, options, chunk, device)
        for support, query in zip(support_features, query_features, strict=True):
            yield {
                shots: _accuracy(options.classifier, support[:, :shots], query, targets) for shots in options.shots
            }


def _support_features(
    backbone: Backbone,
    split: Split,
    options: EvaluationOptions,
    chunk: list[tuple[int, Episode]],
    device: torch.device,
) -> np.ndarray:
    """Features of the augmented copies, `(episodes, ways, shots, copies, features)`."""
    pictures = []
    for number, episode in chunk:
        copies = load_pictures(split, np.repeat(episode.support.ravel(), options.copies), device)
        if options.copies > 1:
            draws = generator("support augmentation", options.seed, number, device=device)
            pictures.append(transforms.augment(copies, options.augmentation, draws))
        else:
            pictures.append(transforms.to_float(copies))
    features = backbone.features(torch.cat(pictures)).cpu().numpy()
    return features.reshape(len(chunk), *chunk[0][1].support.shape, options.copies, -1)


def _accuracy(classifier: str, support: np.ndarray, query: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy in percent of a classifier fitted to `(ways, shots, copies, features)`."""
    ways, features = len(support), support.shape[-1]
    labels = np.repeat(np.arange(ways), support[0, ..., 0].size)
    model = fit_classifier(classifier, support.reshape(-1, features), labels)
    return 100 * float(np.mean(model.predict(query) == targets))


def fit_classifier(kind: str, features: np.ndarray, labels: np.ndarray):
    """The linear classifier of an episode: RFS's logistic regression, or the hinge loss of some 1-shot cases."""
    if kind == "svm":
        model = make_pipeline(StandardScaler(), SVC(kernel="linear", C=1.0))
    else:
        model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # an unfinished fit must not pass for a result
        return model.fit(features, labels)
