"""MetaOptNet's heads against fixtures, against a general solver, and against the conditions of optimality."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from metantk.learners import heads
from metantk.learners.heads import ridge_logits, svm_logits
from metantk.runtime import devices
from metantk.runtime.files import InputError

FIXTURE = np.load(Path(__file__).parents[1] / "fixtures" / "heads_seed0.npz")
HEADS = {"svm": svm_logits, "ridge": ridge_logits}
TASKS = "abcde"


def draw_episodes(ways, shots, features, *, batch=(), queries=4, spread=0.5, seed=0, shuffled=True):
    """Classes with means of their own; labels in another order in each episode."""
    draw = devices.generator("heads", ways, shots, features, seed)
    labels = torch.arange(ways).repeat_interleave(shots).expand(*batch, -1)
    if shuffled:
        labels = labels.gather(-1, torch.rand(labels.shape, generator=draw).argsort(-1))
    means = torch.randn(*batch, ways, features, generator=draw, dtype=torch.float64)
    noise = torch.randn(*batch, ways * shots, features, generator=draw, dtype=torch.float64)
    support = spread * means.gather(-2, labels[..., None].expand_as(noise)) + noise
    return support, labels, torch.randn(*batch, queries, features, generator=draw, dtype=torch.float64)


def loss_of(logits, labels, scale, smoothing=0.1):
    """Mean cross-entropy with MetaOptNet's label smoothing: what is left goes to the other classes."""
    ways = logits.shape[-1]
    target = torch.full_like(logits, smoothing / (ways - 1)).scatter(-1, labels[..., None], 1 - smoothing)
    return -(target * (scale * logits).log_softmax(-1)).sum(-1).mean()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("head", HEADS)
def test_logits_and_gradients_agree_with_the_fixtures(head, task):
    data = {key.removeprefix(f"{task}/"): FIXTURE[key] for key in FIXTURE.files if key.startswith(f"{task}/")}
    support, query = (torch.tensor(data[key], requires_grad=True) for key in ("support", "query"))
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    logits = HEADS[head](support, torch.tensor(data["support_labels"]), query, ways=int(data["n_way"]))
    loss = loss_of(logits, torch.tensor(data["query_labels"]), scale)
    loss.backward()
    assert np.abs(logits.detach().numpy() - data[f"{head}/logits"]).max() < 1e-12
    assert loss.item() == pytest.approx(float(data[f"{head}/loss_scale1.7_eps0.1"]), rel=1e-12)
    for tensor, name in ((support, "support"), (query, "query"), (scale, "scale")):
        assert np.abs(tensor.grad.numpy() - data[f"{head}/grad_{name}"]).max() < 1e-12


def solve_by_slsqp(support, labels, ways, penalty):
    """α from a general solver, the programme written out."""
    count = len(labels)
    hessian = np.kron(support @ support.T + np.eye(count), np.eye(ways))
    own = np.eye(ways)[labels].ravel()
    sums = np.kron(np.eye(count), np.ones(ways))
    result = minimize(
        lambda a: a @ hessian @ a / 2 - own @ a,
        np.zeros(count * ways),
        jac=lambda a: hessian @ a - own,
        bounds=[(None, bound) for bound in (np.reshape(penalty, (-1, 1)) * np.eye(ways)[labels]).ravel()],
        constraints={"type": "eq", "fun": lambda a: sums @ a, "jac": lambda a: sums},
        options={"ftol": 1e-16, "maxiter": 1000},
        method="SLSQP",
    )
    return result.x.reshape(count, ways)


@pytest.mark.parametrize("penalty", [0.02, 0.1, 1.0])
@pytest.mark.parametrize(
    ("ways", "shots", "features"), [(2, 1, 3), (2, 4, 2), (3, 2, 8), (5, 1, 16), (4, 3, 2), (5, 3, 6)]
)
def test_svm_agrees_with_a_general_solver(ways, shots, features, penalty):
    support, labels, query = draw_episodes(ways, shots, features)
    dual = solve_by_slsqp(support.numpy(), labels.numpy(), ways, penalty)
    logits = svm_logits(support, labels, query, ways=ways, penalty=penalty)
    assert np.abs(logits.numpy() - query.numpy() @ support.numpy().T @ dual).max() < 1e-6


def test_weighted_supports_have_bounds_of_their_own():
    """5, 1 and 2 supports of a class, each class with as much weight in all."""
    support, _, query = draw_episodes(2, 4, 6)
    labels = torch.tensor([0, 0, 1, 0, 2, 0, 2, 0])
    weights = (8 / 3 / torch.tensor([5.0, 1.0, 2.0], dtype=torch.float64))[labels]
    dual = solve_by_slsqp(support.numpy(), labels.numpy(), 3, 0.1 * weights.numpy())
    logits = svm_logits(support, labels, query, ways=3, weights=weights)
    assert np.abs(logits.numpy() - query.numpy() @ support.numpy().T @ dual).max() < 1e-6
    assert not torch.allclose(logits, svm_logits(support, labels, query, ways=3), atol=1e-3)


def test_a_weight_of_two_is_a_support_listed_twice():
    support, _, query = draw_episodes(2, 2, 20)
    labels = torch.tensor([0, 1, 2, 2])
    twice = torch.tensor([0, 0, 1, 1, 2, 3])
    weights = torch.tensor([2.0, 2.0, 1.0, 1.0])
    listed = ridge_logits(support[twice], labels[twice], query, ways=3, ridge=7.0)
    torch.testing.assert_close(ridge_logits(support, labels, query, ways=3, ridge=7.0, weights=weights), listed)


def test_ridge_solves_the_programme_of_each_class():
    """½ aᵀ (K + λI) a − 2 y_mᵀ a has no gradient at α_m."""
    support, labels, _ = draw_episodes(3, 4, 20)
    features, gram = support.numpy(), (support @ support.T).numpy()
    # With queries that make Q Xᵀ = I, the logits are α.
    query = torch.tensor(np.linalg.pinv(features.T))
    dual = ridge_logits(support, labels, query, ways=3, ridge=7.0).numpy()
    assert np.abs((gram + 7.0 * np.eye(12)) @ dual - 2 * np.eye(3)[labels.numpy()]).max() < 1e-12


def largest_residual(gram, labels, dual, penalty):
    """How far α is from the conditions of optimality of one episode, row by row."""
    ways = dual.shape[-1]
    worst = 0.0
    for i, own in enumerate(labels.tolist()):
        slack = penalty * np.eye(ways)[own] - dual[i]
        descent = np.eye(ways)[own] - gram[i] @ dual - dual[i]
        multiplier = descent - descent[slack.argmax()]  # no bound holds there
        residuals = abs(dual[i].sum()), -slack.min(), -multiplier.min(), abs(multiplier * slack).max()
        worst = np.max([worst, *residuals])  # NaN if one is
    return worst


def check_conditions(support, labels, ways):
    """Residuals below 1e-9, or below the rounding of K α: more where two classes share large supports."""
    gram = support @ support.mT
    dual, _, _ = heads._solve_dual(gram, heads._one_hot(labels, ways), 0.1)
    rounding = 1e-15 * (gram.abs() @ dual.abs()).amax((-2, -1))
    for *episode, limit in zip(gram.numpy(), labels, dual.numpy(), rounding.tolist(), strict=True):
        assert largest_residual(*episode, 0.1) < max(1e-9, limit)


@pytest.mark.parametrize("size", [1e-4, 0.03, 0.3, 1.0, 30.0, 1e3])
@pytest.mark.parametrize(
    ("ways", "shots", "features", "twins"),
    [(5, 1, 64, 0), (5, 5, 64, 0), (5, 5, 64, 3), (3, 4, 12, 12), (2, 3, 1, 0), (5, 15, 640, 10), (10, 2, 50, 4)],
)
def test_svm_meets_the_conditions_of_optimality(ways, shots, features, twins, size):
    """Also with equal supports, of the same and of other classes, and of one number only."""
    support, labels, _ = draw_episodes(ways, shots, features, batch=(3,))
    if twins:
        support[:, :twins] = support[:, -1:].clone()
    check_conditions(support * size, labels, ways)


def test_svm_with_overlapping_classes_of_large_features():
    """Few features, each large: nearly all variables are at their bounds, and the second start is needed."""
    support, labels, _ = draw_episodes(5, 15, 4, batch=(2,))
    check_conditions(support * 30, labels, 5)


@pytest.mark.parametrize("head", HEADS)
def test_leading_dimensions_are_a_batch_of_single_episodes(head):
    support, labels, query = draw_episodes(3, 2, 10, batch=(2, 4))
    support[0, 1] *= 100
    batched = HEADS[head](support, labels, query, ways=3)
    assert batched.shape == (2, 4, 4, 3)
    for i in np.ndindex(2, 4):
        single = HEADS[head](support[i], labels[i], query[i], ways=3)
        assert torch.allclose(batched[i], single, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("head", HEADS)
def test_order_of_supports_and_names_of_classes_do_not_matter(head):
    support, labels, query = draw_episodes(4, 3, 9)
    logits = HEADS[head](support, labels, query, ways=4)
    order = torch.tensor([7, 2, 9, 0, 11, 4, 1, 10, 3, 8, 6, 5])
    names = torch.tensor([2, 0, 3, 1])
    other = HEADS[head](support[order], names[labels[order]], query, ways=4)
    assert torch.allclose(other[:, names], logits, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("ways", "shots", "features", "batch"), [(2, 1, 3, ()), (3, 2, 5, (2,)), (5, 3, 4, (1, 2))]
)
def test_gradients_are_those_of_finite_differences(head, ways, shots, features, batch):
    support, labels, query = draw_episodes(ways, shots, features, batch=batch, queries=2)
    support.requires_grad_()
    query.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, q: HEADS[head](s, labels, q, ways=ways), (support, query), atol=1e-7)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_features_are_solved_in_float64(head, dtype):
    support, labels, query = draw_episodes(5, 5, 640)
    support, query = (values.to(dtype).requires_grad_() for values in (support, query))
    logits = HEADS[head](support, labels, query, ways=5)
    logits.square().sum().backward()
    wide = [values.detach().double().requires_grad_() for values in (support, query)]
    expected = HEADS[head](wide[0], labels, wide[1], ways=5)
    expected.to(dtype).square().sum().backward()
    assert logits.dtype == support.grad.dtype == query.grad.dtype == dtype
    assert torch.equal(logits, expected.to(dtype))
    for narrow, reference in zip((support, query), wide, strict=True):
        assert torch.allclose(narrow.grad, reference.grad.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_an_episode_that_is_not_finite_spoils_no_other(head):
    support, labels, query = draw_episodes(3, 2, 10, batch=(2,))
    expected = HEADS[head](support[1], labels[1], query[1], ways=3)
    support[0, 0, 0] = torch.nan
    logits = HEADS[head](support, labels, query, ways=3)
    assert logits[0].isnan().all()
    assert torch.allclose(logits[1], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("head", HEADS)
def test_bad_input_is_refused(head):
    support, labels, query = draw_episodes(3, 2, 10)
    for change, message in (
        ({"labels": labels[:-1]}, "expected"),
        ({"query": query[:, :-1]}, "expected"),
        ({"support": support[None]}, "expected"),
        ({"labels": labels.int()}, "int64"),
        ({"query": query.float()}, "the same floats"),
        ({"labels": labels + 1}, "expected 0 to 2"),
        ({"ways": 1}, "at least 2"),
        ({"penalty" if head == "svm" else "ridge": 0.0}, "more than 0"),
    ):
        arguments = {"support": support, "labels": labels, "query": query, "ways": 3} | change
        with pytest.raises(InputError, match=message):
            HEADS[head](**arguments)
