"""Calibration: probabilities, and which images are out of distribution, against slow and obvious computations."""

import numpy as np
import pytest
import torch

from metantk.deployment import out_of_distribution
from metantk.deployment.out_of_distribution import Calibration, describe_task, expected_accuracy
from metantk.runtime.files import InputError


def blobs(classes=12, each=30, spread=0.3, seed=0):
    """Features of classes around random directions, and their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 16))
    features = np.repeat(centres, each, axis=0) + spread * rng.normal(size=(classes * each, 16))
    return torch.from_numpy(features), np.repeat(np.arange(classes), each)


def by_means(features):
    """Scores of a classifier that is too timid: small multiples of the cosines to the means of supports."""

    def answer(support, labels, query, ways):
        means = torch.stack([features[support][labels == way].mean(0) for way in range(ways)])
        return (
            0.01 * torch.nn.functional.normalize(features[query], dim=1) @ torch.nn.functional.normalize(means).mT
        )

    return answer


def test_closeness_is_the_largest_cosine():
    features, _ = blobs()
    labels = torch.tensor([0, 0, 1, 2, 2])
    found = out_of_distribution.closeness(features[:5], labels, features[5:9], ways=3)
    for index, query in enumerate(features[5:9].numpy()):
        cosines = []
        for way in range(3):
            of_way = features[:5][labels == way].numpy()
            mean = np.mean([row / np.linalg.norm(row) for row in of_way], axis=0)
            cosines.append(mean @ query / np.linalg.norm(mean) / np.linalg.norm(query))
        assert found[index].item() == pytest.approx(max(cosines))


@pytest.mark.parametrize("shots", [1, 5])
def test_on_other_classes_it_holds_what_it_says(shots):
    """Calibrated on some classes, used on others: of the classes' own images few are called out of distribution."""
    features, labels = blobs(seed=1)
    found = out_of_distribution.calibrate(features, labels, by_means(features), ways=4, shots=shots, seed=0)
    assert (found.ways, found.shots) == (4, shots)
    assert 4 <= found.false_positive_rate <= 6
    assert found.true_positive_rate > 90
    assert found.auroc > 95
    assert found.temperature > 100  # the scores were a hundredth of what they are worth
    others, other_labels = blobs(seed=2)
    again = out_of_distribution.calibrate(others, other_labels, by_means(others), ways=4, shots=shots, seed=5)
    assert abs(again.threshold - found.threshold) < 0.15
    assert abs(np.log10(again.temperature / found.temperature)) < 0.5


def test_a_network_that_knows_nothing_is_said_to():
    features, labels = torch.randn(360, 16, generator=torch.Generator().manual_seed(0)), blobs()[1]
    found = out_of_distribution.calibrate(features, labels, by_means(features), ways=4, shots=1, seed=0)
    assert 40 < found.auroc < 60
    assert found.true_positive_rate < 15
    assert found.accuracy < 35


def test_probabilities_are_as_often_right_as_they_say():
    features, labels = blobs(spread=1.0)
    answer = by_means(features)
    found = out_of_distribution.calibrate(features, labels, answer, ways=4, shots=5, seed=0)
    members = [np.flatnonzero(labels == label) for label in range(8, 12)]
    support, query = (np.concatenate([m[a:b] for m in members]) for a, b in ((0, 5), (5, 30)))
    scores = answer(support, torch.arange(4).repeat_interleave(5), query, 4)
    chances = out_of_distribution.probabilities(scores, found.temperature)
    targets = torch.arange(4).repeat_interleave(25)
    assert torch.allclose(chances.sum(1), torch.ones(100, dtype=torch.float64))
    assert abs(chances.max(1).values.mean() - (chances.argmax(1) == targets).double().mean()) < 0.12


def test_tasks_have_as_many_supports_of_a_class_as_are_at_hand():
    features, labels = blobs()
    by_counts, seen = by_means(features), set()

    def answer(support, own, query, ways):
        seen.add(tuple(torch.bincount(own).tolist()))
        assert not set(support) & set(query)
        return by_counts(support, own, query, ways)

    out_of_distribution.calibrate(features, labels, answer, ways=4, shots=[5, 1, 2, 1], seed=0)
    assert seen == {(5, 1, 2, 1)}


def test_fewer_classes_have_numbers_of_supports_from_the_smallest_to_the_largest():
    features, labels = blobs(classes=6)
    by_counts, seen = by_means(features), set()

    def answer(support, own, query, ways):
        seen.add(tuple(torch.bincount(own).tolist()))
        return by_counts(support, own, query, ways)

    for shots in ([9, 1, 1, 5, 1], [1, 1, 1, 5, 9]):  # whatever the order of the classes
        out_of_distribution.calibrate(features, labels, answer, ways=5, shots=shots, seed=0)
    assert seen == {(1, 1, 9)}


def test_small_sets_give_what_they_have():
    features, labels = blobs(classes=5, each=3)
    found = out_of_distribution.calibrate(features, labels, by_means(features), ways=10, shots=20, seed=0)
    assert (found.ways, found.shots) == (2, 2)
    with pytest.raises(InputError, match="takes 4 validation classes"):
        out_of_distribution.calibrate(features[:9], labels[:9], by_means(features), ways=2, shots=1, seed=0)


def test_the_nearest_entry_is_taken():
    entries = [
        out_of_distribution.Calibration(
            ways=ways,
            shots=shots,
            temperature=1,
            threshold=0.5,
            accuracy=60,
            false_positive_rate=5,
            true_positive_rate=50,
            auroc=80,
        )
        for ways in (2, 5)
        for shots in (1, 5)
    ]
    found = out_of_distribution.nearest(entries, ways=4, shots=3)
    assert (found.ways, found.shots) == (5, 1)
    assert out_of_distribution.nearest([], ways=4, shots=3) is None


@pytest.mark.parametrize(
    ("ways", "shots", "told"),
    [
        (3, 5, ""),
        (5, 5, "more classes are harder, expect at most about 50 % (guessing: 20 %)."),
        (5, 9, "more classes are harder, more examples easier; with as few, expect about 50 % (guessing: 20 %)."),
        (5, 1, "more classes are harder, expect at most about 50 % (guessing: 20 %)."),
        (3, 1, "fewer examples are harder, expect less."),
        (2, 5, "expect no less."),
    ],
)
def test_another_task_than_the_calibrations_is_named_with_what_to_expect(ways, shots, told):
    text = describe_task(calibration_of(ways=3, accuracy=64.0), [shots] * ways)
    given = f"Yours has {ways} classes with {shots} examples each, the calibration was made for 3 classes with 5 "
    assert text.startswith(given if told else "")
    assert text.endswith(told)
    assert bool(text) == bool(told)


def test_unequal_numbers_of_examples_are_their_median():
    text = describe_task(calibration_of(ways=2, accuracy=64.0), [6, 6, 1])
    assert text.startswith(
        "Yours has 3 classes with 6 examples each (median), the calibration was made for 2 classes "
    )


def calibration_of(*, ways, accuracy):
    others = {"false_positive_rate": 5.0, "true_positive_rate": 50.0, "auroc": 80.0}
    return Calibration(ways=ways, shots=5, temperature=1.0, threshold=0.5, accuracy=accuracy, **others)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_accuracy_among_more_classes_is_that_of_normal_scores(distance):
    scores = np.random.default_rng(0).normal(size=(200_000, 5))
    scores[:, 0] += distance
    accuracy = {ways: 100 * (scores[:, :ways].argmax(1) == 0).mean() for ways in (3, 5)}
    found = expected_accuracy(calibration_of(ways=3, accuracy=accuracy[3]), 5)
    assert found == pytest.approx(accuracy[5], abs=0.6)
