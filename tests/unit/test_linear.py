"""Linear classifiers of episodes: against the fixture, scikit-learn and a slow minimiser."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from metantk.learners import linear
from metantk.learners.linear import hinge_loss, logistic_regression
from metantk.runtime.files import InputError

FIXTURE = Path(__file__).parents[1] / "fixtures" / "rivals" / "rfs_eval_seed0.npz"
CLASSIFIERS = [logistic_regression, hinge_loss]


def draw(
    episodes: int, counts: list[int], features: int, *, seed: int = 0, copies: int = 1, queries: int = 12
) -> tuple[Tensor, Tensor, Tensor]:
    """Support, labels and query of episodes with `counts` supports a class, on the unit sphere, not sorted."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(episodes, len(counts), features, generator=draws, dtype=torch.float64)
    images = centres[:, labels] + torch.randn(episodes, len(labels), features, generator=draws)
    support = images.repeat_interleave(copies, dim=1)
    support = support + 0.3 * torch.randn(support.shape, generator=draws)
    asked = centres[:, torch.arange(queries) % len(counts)]
    query = asked + torch.randn(asked.shape, generator=draws)
    order = torch.randperm(support.shape[1], generator=draws)
    return normalize(support[:, order], dim=2), labels.repeat_interleave(copies)[order], normalize(query, dim=2)


def by_scikit_learn(support: Tensor, labels: Tensor, query: Tensor, penalty: float = 1.0) -> Tensor:
    """Scores of one episode, which sum to zero; from a full Hessian and to a tight tolerance."""
    is_binary = int(labels.max()) == 1  # one vector w for W = [-w / 2, w / 2]: |w|^2 is twice |W|^2
    strength = (1 + is_binary) * penalty
    exact = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 1000}
    model = LogisticRegression(C=strength, class_weight="balanced", **exact)
    model.fit(support.double().numpy(), labels.numpy())
    scores = torch.from_numpy(query.double().numpy() @ model.coef_.T + model.intercept_)
    scores = torch.cat([-scores / 2, scores / 2], dim=1) if is_binary else scores
    return scores - scores.mean(dim=1, keepdim=True)


def by_descent(support: Tensor, labels: Tensor, query: Tensor, penalty: float = 1.0) -> Tensor:
    """Scores of one episode by plain Newton steps on weights and bias, straight from the definition."""
    ways, features = int(labels.max()) + 1, support.shape[1]
    targets = one_hot(labels, ways).double()
    penalised = torch.cat([torch.ones(ways, features), torch.zeros(ways, 1)], dim=1).double()
    inputs = torch.cat([support.double(), torch.ones(len(support), 1).double()], dim=1)
    weights = len(labels) / ways / targets.sum(0)

    def objective(flat: Tensor) -> Tensor:
        both = flat.view(ways, features + 1)
        losses = -(weights * targets * (inputs @ both.T).log_softmax(1)).sum()
        return (penalised * both**2).sum() / 2 + penalty * losses

    both = torch.zeros(ways * (features + 1), dtype=torch.float64)
    for _ in range(30):
        gradient = torch.func.grad(objective)(both)
        # The bias is free up to a shift: the least of all solutions keeps its sum at zero.
        both = both - torch.linalg.pinv(torch.func.hessian(objective)(both), hermitian=True) @ gradient
    assert torch.func.grad(objective)(both).norm() < 1e-10
    both = both.view(ways, features + 1)
    return query.double() @ both[:, :-1].T + both[:, -1]


@pytest.mark.parametrize("task", ["a", "b", "c"])
def test_exact_minimiser_of_fixture(task):
    with np.load(FIXTURE) as fixture:
        support, query = (
            normalize(torch.from_numpy(fixture[f"{task}/{part}_raw"])) for part in ("support", "query")
        )
        labels = torch.from_numpy(fixture[f"{task}/support_labels"])
        scores = logistic_regression(support, labels, query, ways=5)
        np.testing.assert_allclose(scores, fixture[f"{task}/query_scores"], rtol=0, atol=1e-8)
        np.testing.assert_array_equal(scores.argmax(1), fixture[f"{task}/predictions"])


SHAPES = {
    "2 ways, one support each": ([1, 1], 6, 1),
    "more features than supports": ([1] * 5, 96, 5),
    "as many": ([3] * 5, 15, 1),
    "a few more supports": ([5] * 5, 18, 1),
    "many more supports": ([5] * 5, 16, 5),
    "one feature": ([4] * 3, 1, 2),
    "20 ways": ([2] * 20, 30, 2),
    "20 ways, few features": ([5] * 20, 12, 1),
    "unbalanced": ([1, 2, 30, 7, 1], 24, 1),
    "unbalanced, few features": ([1, 2, 60, 7], 9, 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [1.0, 0.01, 50.0])
def test_scores_of_scikit_learn(shape, penalty):
    counts, features, copies = SHAPES[shape]
    for seed in range(3):
        support, labels, query = draw(2, counts, features, seed=seed, copies=copies)
        scores = logistic_regression(support, labels, query, ways=len(counts), penalty=penalty)
        assert scores.shape == (2, 12, len(counts))
        expected = torch.stack(
            [by_scikit_learn(*one, penalty) for one in zip(support, labels.expand(2, -1), query, strict=True)]
        )
        torch.testing.assert_close(scores, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("counts", "features"), [([2, 3, 1], 7), ([6, 4, 7], 4), ([10, 10], 3)])
def test_scores_of_definition(counts, features):
    support, labels, query = draw(1, counts, features)
    scores = logistic_regression(support, labels, query, ways=len(counts), penalty=3.0)
    torch.testing.assert_close(scores[0], by_descent(support[0], labels, query[0], 3.0), rtol=0, atol=1e-8)


def test_predictions_of_scikit_learns_defaults():
    support, labels, query = draw(40, [1] * 5, 64, copies=5, queries=40)
    scores = logistic_regression(support, labels, query, ways=5)
    first, second = scores.topk(2, dim=2).values.unbind(2)
    is_clear = first - second > 5e-3  # scikit-learn's own tolerance decides the others
    assert is_clear.float().mean() > 0.98
    for one, answers, asked, clear in zip(support, scores.argmax(2), query, is_clear, strict=True):
        model = LogisticRegression(max_iter=1000).fit(one.numpy(), labels.numpy())
        np.testing.assert_array_equal(answers[clear], model.predict(asked[clear].numpy()))


@pytest.mark.parametrize("features", [5, 40])
def test_duplicates_and_identical_classes(features):
    support, labels, query = draw(3, [8, 8, 8], features)
    support[:, labels == 0] = support[:, labels == 0][:, :1]  # one class's supports are all the same
    support[1, :12] = support[1, 12:]  # and supports of several classes are the same
    scores = logistic_regression(support, labels, query, ways=3)
    for index in range(3):
        expected = by_scikit_learn(support[index], labels, query[index])
        torch.testing.assert_close(scores[index], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("features", [2, 40])
def test_equal_features_leave_all_classes_as_likely_however_many_supports_they_have(features):
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    support = torch.full((8, features), features**-0.5)
    scores = logistic_regression(support, labels, support, ways=3)
    torch.testing.assert_close(scores.softmax(1)[0], torch.ones(3).double() / 3, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("scale", "features"), [(30.0, 6), (30.0, 50), (300.0, 6)])
def test_long_features(scale, features):
    """Not what it is made for, but the minimum is the same minimum."""
    support, labels, query = draw(4, [10, 10, 10], features)
    support, query = scale * support, scale * query
    scores = logistic_regression(support, labels, query, ways=3)
    for index in range(4):
        expected = by_scikit_learn(support[index], labels, query[index])
        torch.testing.assert_close(scores[index], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("penalty", [1.0, 50.0])
def test_few_dimensions_of_many(penalty):
    """Supports that depend on each other, though there are more features than supports."""
    support, labels, query = draw(3, [6, 6, 6], 4)
    turn = torch.linalg.qr(torch.randn(40, 4, generator=torch.Generator().manual_seed(1)).double()).Q.T
    scores = logistic_regression(support @ turn, labels, query @ turn, ways=3, penalty=penalty)
    expected = logistic_regression(support, labels, query, ways=3, penalty=penalty)
    torch.testing.assert_close(scores, expected, rtol=1e-7, atol=1e-7)


def test_float32_features_lose_nothing():
    support, labels, query = (part.float() if part.is_floating_point() else part for part in draw(5, [5] * 5, 40))
    scores = logistic_regression(support, labels, query, ways=5)
    expected = logistic_regression(support.double(), labels, query.double(), ways=5)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("features", "copies"), [(30, 1), (8, 5)])
def test_episodes_do_not_see_each_other(features, copies):
    """Each in a batch of its own, and beside an episode that takes far more steps."""
    support, labels, query = draw(9, [3] * 5, features, copies=copies)
    support[4] *= 300
    together = logistic_regression(support, labels, query, ways=5)
    for index in range(9):
        alone = logistic_regression(support[index], labels, query[index], ways=5)
        torch.testing.assert_close(together[index], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_axes_and_labels_of_each_episode(classifier):
    support, labels, query = draw(6, [2, 1, 3], 10)
    orders = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(seed)) for seed in range(6)])
    shuffled = support.gather(1, orders[:, :, None].expand(-1, -1, 10))
    expected = classifier(support, labels, query, ways=3)
    scores = classifier(shuffled.view(2, 3, 6, 10), labels[orders].view(2, 3, 6), query.view(2, 3, 12, 10), ways=3)
    assert scores.shape == (2, 3, 12, 3)
    torch.testing.assert_close(scores.flatten(0, 1), expected, rtol=0, atol=1e-9)
    assert classifier(support[:0], labels, query[:0], ways=3).shape == (0, 12, 3)


@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_chunks_change_nothing(chunk, monkeypatch):
    support, labels, query = draw(7, [5, 5], 20)
    expected = logistic_regression(support, labels, query, ways=2)
    monkeypatch.setattr(linear, "SUPPORTS_TOGETHER", chunk)
    torch.testing.assert_close(logistic_regression(support, labels, query, ways=2), expected, rtol=0, atol=1e-9)


def test_threads_are_given_back():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        logistic_regression(*draw(1, [1, 1], 3), ways=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_unfinished_fit_is_an_error(monkeypatch):
    support, labels, query = draw(7, [5, 5], 20)
    support[2:5] = 0  # at their minimum from the beginning
    monkeypatch.setattr(linear, "NEWTON_STEPS", 2)
    with pytest.raises(RuntimeError, match=r"^logistic regression: 4 of 7 episodes .* after 2 Newton steps"):
        logistic_regression(support, labels, query, ways=2)


@pytest.mark.parametrize(
    ("counts", "copies"), [([1] * 5, 5), ([1] * 5, 1), ([1, 1], 3), ([2, 1, 4], 1), ([1] * 20, 2)]
)
def test_votes_of_support_vector_machines(counts, copies):
    """Predictions are those of `SVC.predict`, which counts votes in libsvm, ties included."""
    support, labels, query = draw(60, counts, 30, copies=copies, queries=40)
    votes = hinge_loss(support, labels, query, ways=len(counts))
    pairs = len(counts) * (len(counts) - 1) // 2
    assert (votes.sum(2) == pairs).all()
    ties = 0
    is_equal = len(set(counts)) == 1
    weights = None if is_equal else (len(labels) / len(counts) / np.bincount(labels))[labels]
    for one, counted, asked in zip(support, votes, query, strict=True):
        machine = SVC(kernel="linear", C=1.0, class_weight="balanced")
        model = make_pipeline(StandardScaler(), machine)
        model.fit(one.numpy(), labels.numpy(), standardscaler__sample_weight=weights)
        np.testing.assert_array_equal(counted.argmax(1), model.predict(asked.numpy()))
        ties += int(((counted == counted.amax(1, keepdim=True)).sum(1) > 1).sum())
    # Two classes cannot tie; with one support a class, a vote goes to the nearer one, and the nearest wins all.
    assert ties > 0 or len(counts) == 2 or max(counts) * copies == 1


def test_votes_where_all_features_are_equal():
    labels = torch.tensor([2, 0, 1, 1])
    support = torch.ones(4, 3)
    model = make_pipeline(StandardScaler(), SVC(kernel="linear", class_weight="balanced")).fit(
        support.numpy(), labels.numpy()
    )
    predicted = hinge_loss(support, labels, support, ways=3).argmax(1)
    np.testing.assert_array_equal(predicted, model.predict(support.numpy()))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["support", "query"])
def test_features_must_be_finite(classifier, value, part):
    support, labels, query = draw(4, [2, 2], 5)
    {"support": support, "query": query}[part][[1, 3], 2, 0] = value
    with pytest.raises(InputError, match=rf"^linear classifier: 2 {part} images have features .* not finite$"):
        classifier(support, labels, query, ways=2)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_shapes_and_labels_must_fit(classifier):
    support, labels, query = draw(4, [2, 2, 2], 5)
    with pytest.raises(InputError, match=r"labels of 2 ways must be 0 to 1, found 0 to 2$"):
        classifier(support, labels, query, ways=2)
    with pytest.raises(InputError, match=r"labels of 3 ways must be 0 to 2, found -1 to 1$"):
        classifier(support, labels - 1, query, ways=3)
    with pytest.raises(InputError, match="each of the 4 ways needs a support"):
        classifier(support, labels, query, ways=4)
    with pytest.raises(InputError, match="queries do not fit"):
        classifier(support, labels, query[:3], ways=3)
    with pytest.raises(InputError, match="queries do not fit"):
        classifier(support, labels, query[..., :4], ways=3)
    with pytest.raises(InputError, match="labels do not fit"):
        classifier(support, labels[:5], query, ways=3)
