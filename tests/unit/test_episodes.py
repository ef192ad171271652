"""Episodes and statistics."""

import numpy as np
import pytest
from scipy import stats

from metantk.data.episodes import EpisodeSampler
from metantk.runtime.files import InputError
from metantk.statistics import confidence_95, deviation, welch_95

LABELS = np.repeat(np.arange(7), 10)


def sampler(**changes):
    return EpisodeSampler(LABELS, **{"ways": 5, "shots": 2, "queries": 3, "where": "here", **changes})


def test_episodes_have_distinct_classes_and_images():
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
    ("changes", "message"), [({"ways": 8}, "7 classes are too few"), ({"shots": 8}, "10 images")]
)
def test_too_few_classes_or_images(changes, message):
    with pytest.raises(InputError, match=message):
        sampler(**changes)


def test_statistics_agree_with_scipy():
    values = np.random.default_rng(0).normal(70, 9, size=200)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert confidence_95(values) == pytest.approx((high - low) / 2)
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert np.isnan(deviation([1.0]))
    assert np.isnan(confidence_95([1.0]))


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 7), (20, 4)])
def test_welchs_interval_agrees_with_scipy(first, second):
    draws = np.random.default_rng(first)
    one, other = draws.normal(70, 9, size=first), draws.normal(60, 2, size=second)
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert welch_95(one, other) == pytest.approx((interval.high - interval.low) / 2)
    assert welch_95(one, other) == pytest.approx(welch_95(other, one))
    assert welch_95([1.0, 1.0], [2.0, 2.0]) == 0
    assert np.isnan(welch_95([1.0], [2.0, 3.0]))
