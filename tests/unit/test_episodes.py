"""Episodes, the per-episode classifier, and statistics."""

import numpy as np
import pytest
import torch
from metantk.config import AugmentationOptions, EvaluationOptions
from scipy import stats
from torch import nn

from metantk.datasets.store import Split
from metantk.episodes import EpisodeSampler
from metantk.evaluation import Backbone, evaluate, fit_classifier
from metantk.statistics import confidence_95, deviation
from metantk.storage import InputError

LABELS = np.repeat(np.arange(7), 10)


def sampler(**changes):
    return EpisodeSampler(LABELS, **{"ways": 5, "shots": 2, "queries": 3, "where": "here", **changes})


def test_episodes_have_distinct_classes_and_pictures():
    for episode in sampler().episodes(50, seed=0):
        assert episode.support.shape == (5, 2)
        assert episode.query.shape == (5, 3)
        together = np.concatenate([episode.support, episode.query], axis=1)
        assert len(np.unique(together)) == together.size
        classes = LABELS[together]
        assert (classes == classes[:, :1]).all()
        assert len(np.unique(classes[:, 0])) == 5


def test_episodes_depend_on_the_seed_and_their_number_only():
    first = list(sampler().episodes(5, seed=1))
    longer = list(sampler().episodes(9, seed=1))
    other = list(sampler().episodes(5, seed=2))
    assert all(np.array_equal(a.query, b.query) for a, b in zip(first, longer, strict=False))
    assert not all(np.array_equal(a.query, b.query) for a, b in zip(first, other, strict=True))


def test_all_classes_are_drawn_about_equally_often():
    counts = np.zeros(7)
    for episode in sampler().episodes(700, seed=0):
        counts[LABELS[episode.support[:, 0]]] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"), [({"ways": 8}, "7 classes are too few"), ({"shots": 8}, "10 pictures")]
)
def test_too_few_classes_or_pictures(changes, message):
    with pytest.raises(InputError, match=message):
        sampler(**changes)


class Pixels(nn.Module):
    """A backbone whose features are the pixels."""

    feature_dim = 3 * 4 * 4

    def features(self, images):
        return images.flatten(1)


def colours(noise):
    """Classes that differ by colour."""
    rng = np.random.default_rng(0)
    palette = rng.integers(30, 220, size=(7, 1, 1, 3))
    images = palette[LABELS] + rng.normal(0, noise, size=(70, 4, 4, 3))
    return Split(images.clip(0, 255).astype(np.uint8), LABELS, [str(c) for c in range(7)])


def accuracies(split, **changes):
    options = EvaluationOptions(
        **{
            "episodes": 30,
            "queries": 3,
            "copies": 2,
            "augmentation": AugmentationOptions(padding=0, jitter=0.1),
            **changes,
        }
    )
    backbone = Backbone(Pixels(), [0.5] * 3, [0.25] * 3)
    return list(evaluate(backbone, split, options, torch.device("cpu"), where="here"))


@pytest.mark.parametrize("classifier", ["logistic_regression", "svm"])
def test_separable_classes_are_told_apart_and_noise_is_not(classifier):
    easy = accuracies(colours(2), classifier=classifier)
    assert np.mean([row[5] for row in easy]) > 95
    rng = np.random.default_rng(1)
    noise = Split(rng.integers(0, 256, size=(70, 4, 4, 3), dtype=np.uint8), LABELS, [str(c) for c in range(7)])
    assert 10 < np.mean([row[1] for row in accuracies(noise, classifier=classifier)]) < 30


def test_evaluation_is_reproducible_and_longer_runs_begin_alike():
    first = accuracies(colours(60))
    assert accuracies(colours(60)) == first
    assert accuracies(colours(60), episodes=10) == first[:10]
    assert accuracies(colours(60), seed=1) != first


def test_more_shots_help():
    rows = accuracies(colours(60), episodes=60)
    assert np.mean([row[5] for row in rows]) > np.mean([row[1] for row in rows]) + 3


def test_logistic_regression_minimises_its_objective():
    """The gradient of the penalised cross-entropy (L2, C = 1, free intercepts) vanishes."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(25, 6)), np.repeat(np.arange(5), 5)
    model = fit_classifier("logistic_regression", features, labels)
    scores = features @ model.coef_.T + model.intercept_
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    residual = shares - np.eye(5)[labels]
    assert np.abs(residual.T @ features + model.coef_).max() < 1e-2
    assert np.abs(residual.sum(0)).max() < 1e-2


def test_statistics_agree_with_scipy():
    values = np.random.default_rng(0).normal(70, 9, size=200)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert confidence_95(values) == pytest.approx((high - low) / 2)
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert np.isnan(deviation([1.0]))
    assert np.isnan(confidence_95([1.0]))
