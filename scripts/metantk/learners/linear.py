"""Linear classifiers of few-shot episodes: those of many episodes are fitted together, on any device.

They are fitted to features and answer queries with scores; nothing here is differentiated. `support` is
`(..., supports, features)`, `query` `(..., queries, features)` and `labels`, from 0 to ways - 1, either
`(..., supports)` or `(supports,)` for all episodes alike. Copies of an image count as supports of their own.
Classes with unequal numbers of supports weigh alike (`metantk.meta_learning.balance`).
"""

import contextlib
import math
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from metantk.meta_learning.balance import support_weights
from metantk.runtime.files import InputError

TOLERANCE = 1e-10  # of the gradient's norm, relative to that at zero, or to 1 where that is less
NEWTON_STEPS = 100  # at most; features of length 1 need 5 or 6
STEP_HALVINGS = 40  # at most, of a Newton step that does not lower the objective
CONJUGATE_STEPS = 500  # at most in a Newton step; features of length 1 need 2 or 3
CONJUGATE_RESIDUAL = 0.03  # of a Newton step's linear system, relative
SUPPORTS_TOGETHER = 2048  # on a CPU: few enough episodes that their matrices stay in the processor's cache


class Episodes(NamedTuple):
    """Many episodes along one axis."""

    support: Tensor  # (episodes, supports, features)
    labels: Tensor  # (episodes, supports)
    query: Tensor  # (episodes, queries, features)


@torch.inference_mode()
def logistic_regression(
    support: Tensor, labels: Tensor, query: Tensor, *, ways: int, penalty: float = 1.0
) -> Tensor:
    """Scores of multinomial logistic regressions, `(..., queries, ways)` in float64; a query's sum to zero.

    Weights W and bias minimise 1/2 |W|^2 + penalty * (weighted sum of the supports' cross-entropies), the bias
    unpenalised: scikit-learn's `LogisticRegression(C=penalty, class_weight="balanced")`, with which RFS classifies
    (facts from its published code; its supports are equal in number). Two classes are no exception here;
    scikit-learn has one vector of weights for them, and needs `C=2 * penalty`.
    The minimiser is found up to `TOLERANCE`, so more exactly than with scikit-learn's default tolerance.

    Raises:
        InputError: shapes or labels do not fit together, a class has no support, or a feature is not finite.
        RuntimeError: a fit did not come to its end.
    """
    batch_shape, episodes = _flatten(support, labels, query, ways)
    count, supports, _ = episodes.support.shape
    together = max(1, SUPPORTS_TOGETHER // supports) if episodes.support.device.type == "cpu" else count
    chunks = zip(*(tensor.split(together) for tensor in episodes), strict=True)
    with _one_thread():
        scores = torch.cat([_logistic_scores(Episodes(*chunk), ways, penalty) for chunk in chunks])
    return scores.view(*batch_shape, *scores.shape[1:])


@torch.inference_mode()
def hinge_loss(support: Tensor, labels: Tensor, query: Tensor, *, ways: int, penalty: float = 1.0) -> Tensor:
    """Votes of pairwise support vector machines, `(..., queries, ways)` in float64; the first of equals wins.

    The paper's classifier of some 1-shot cases: features are standardised over an episode's supports, then each
    pair of classes has a linear SVM and a vote. These are scikit-learn's `StandardScaler` and
    `SVC(kernel="linear", C=penalty, class_weight="balanced")`, one episode after the other: libsvm stops within
    1e-3 of the optimality conditions, and queries near a boundary get their votes from where it stopped. An exact
    solver would be another classifier.

    Raises:
        InputError: shapes or labels do not fit together, a class has no support, or a feature is not finite.
    """
    # Imported here: it takes seconds, and trainings and other classifiers do without.
    from sklearn import preprocessing, svm

    batch_shape, episodes = _flatten(support, labels, query, ways)
    votes = torch.zeros(*episodes.query.shape[:-1], ways, dtype=torch.float64)
    each = zip(*(tensor.numpy(force=True) for tensor in episodes), strict=True)
    weights_of = support_weights(episodes.labels, ways).numpy(force=True)
    for index, (features, classes, queries) in enumerate(each):
        weights = None if (weights_of[index] == 1).all() else weights_of[index]
        scaler = preprocessing.StandardScaler().fit(features, sample_weight=weights)
        machine = svm.SVC(kernel="linear", C=penalty, decision_function_shape="ovo", class_weight="balanced")
        machine.fit(scaler.transform(features), classes)
        decisions = torch.from_numpy(machine.decision_function(scaler.transform(queries)))
        if ways == 2:
            decisions = -decisions[:, None]  # with two classes, scikit-learn turns libsvm's sign
        for (first, second), decision in zip(combinations(range(ways), 2), decisions.unbind(1), strict=True):
            votes[index, :, first] += decision > 0
            votes[index, :, second] += decision <= 0
    return votes.view(*batch_shape, *votes.shape[1:]).to(episodes.support.device)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU, threads wait for each other at each small matrix; on a busy one, longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def logistic_weights(support: Tensor, labels: Tensor, *, ways: int, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights and bias behind `logistic_regression` of one episode: float64 `(ways, features)` and `(ways,)`.

    Args:
        support: `(supports, features)`.
        labels: `(supports,)`.

    Raises:
        InputError, RuntimeError: as of `logistic_regression`.
    """
    _, episodes = _flatten(support[None], labels, support[None], ways)
    with _one_thread():
        weight, bias = _weights(episodes, ways, penalty)
    return weight[0].clone(), bias[0, :, 0].clone()


def _logistic_scores(episodes: Episodes, ways: int, penalty: float) -> Tensor:
    weight, bias = _weights(episodes, ways, penalty)
    return episodes.query.double() @ weight.mT + bias.mT


def _weights(episodes: Episodes, ways: int, penalty: float) -> tuple[Tensor, Tensor]:
    """`(episodes, ways, features)` and `(episodes, ways, 1)`."""
    support = episodes.support.double()
    targets = functional.one_hot(episodes.labels, ways).mT.to(support.dtype)
    space = (BySupports if support.shape[1] <= support.shape[2] else ByFeatures)(support, penalty / ways)
    position, values = _fit(space, targets, penalty * support_weights(episodes.labels, ways)[:, None])
    weight = space.weight(position)
    centre = support.mean(dim=1, keepdim=True)
    return weight, values.mean(dim=2, keepdim=True) - weight @ centre.mT


class BySupports:
    """Weights as combinations of supports: matrices of supports × supports, where features are no fewer.

    A position p, `(episodes, ways, supports)`, stands for the weights `p @ x` with the centred supports x, whose
    Gram matrix K takes constants to zero. So the mean of a gradient is free to stand for the bias.
    """

    def __init__(self, support: Tensor, stiffness: float) -> None:
        self.support, self.stiffness = support, stiffness
        gram = support @ support.mT
        gram -= gram.mean(dim=1, keepdim=True)
        gram -= gram.mean(dim=2, keepdim=True)
        gram *= stiffness
        gram.diagonal(dim1=1, dim2=2).add_(1)
        # K (1 + stiffness * K)^-1 and, for the bias, a mean, divided by the stiffness.
        self.smooth = 1 / support.shape[1] - torch.cholesky_inverse(torch.linalg.cholesky(gram))
        self.smooth.diagonal(dim1=1, dim2=2).add_(1)
        self.smooth /= stiffness

    def start(self, targets: Tensor) -> Tensor:
        return torch.zeros_like(targets)

    def solve(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values = gradient @ self.smooth
        return gradient - self.stiffness * values, values

    def gradient(self, position: Tensor, values: Tensor, pull: Tensor) -> Tensor:
        return position + pull

    def dot(self, gradient: Tensor, position: Tensor, values: Tensor) -> Tensor:
        return _dot(gradient, values)

    def energy(self, position: Tensor, values: Tensor) -> Tensor:
        return _dot(position, values)

    def weight(self, position: Tensor) -> Tensor:
        return position @ self.support


class ByFeatures:
    """Weights and bias in coordinates in which the Hessian at zero is one: matrices of features × supports.

    `root` takes a position, `(episodes, ways, features + 1)`, to the values. With fewer features than supports, K
    would be singular, and `BySupports` would drown in the rounding of what K does not see.
    """

    def __init__(self, support: Tensor, stiffness: float) -> None:
        self.stiffness = stiffness
        supports = support.shape[1]
        centred = support - support.mean(dim=1, keepdim=True)
        inner = stiffness * centred.mT @ centred
        inner.diagonal(dim1=1, dim2=2).add_(1)
        self.factor = torch.linalg.cholesky(inner)
        root = torch.linalg.solve_triangular(self.factor, centred.mT, upper=False)
        self.root = functional.pad(root, (0, 0, 0, 1), value=(supports * stiffness) ** -0.5)

    def start(self, targets: Tensor) -> Tensor:
        return targets.new_zeros(*targets.shape[:2], self.root.shape[1])

    def solve(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient @ self.root

    def gradient(self, position: Tensor, values: Tensor, pull: Tensor) -> Tensor:
        return position + (pull - self.stiffness * values) @ self.root.mT

    def dot(self, gradient: Tensor, position: Tensor, values: Tensor) -> Tensor:
        return _dot(gradient, position)

    def energy(self, position: Tensor, values: Tensor) -> Tensor:
        return _dot(position, position) - self.stiffness * _dot(values, values)

    def weight(self, position: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, position[..., :-1], upper=False, left=False)


def _fit(space: BySupports | ByFeatures, targets: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser by Newton's method: its position in the space, and its values.

    Values `(episodes, ways, supports)` are the supports' scores; features being centred, their mean is the bias.
    A space has five verbs: `solve` a system with the Hessian at zero, where all classes are equally likely, for a
    position and its values; the `gradient` of |weights|^2 / 2 plus a function whose derivatives by the values are
    `pull`, or that Hessian's product; the inner product `dot` of a gradient and a position; the `energy`
    |weights|^2; the `weight` `(episodes, ways, features)` of a position. A gradient's norm is by the inverse of the
    Hessian at zero.

    `penalties` are of each support, `(episodes, 1, supports)`. Each episode stops for itself: one at its end stays
    as it is while others go on.
    """
    position, values = space.start(targets), torch.zeros_like(targets)
    objective, shares = _objective(space, position, values, targets, penalties)
    allowed = None
    for _ in range(NEWTON_STEPS):
        gradient = space.gradient(position, values, penalties * (shares - targets))
        step, change = space.solve(-gradient)
        square = -space.dot(gradient, step, change)
        if allowed is None:
            allowed = TOLERANCE**2 * square.clamp(min=1)
        running = square > allowed
        if not running.any():
            return position, values
        step, change = _newton_step(space, gradient, step, change, shares, penalties, running)
        slope = space.dot(gradient, step, change)
        bound = objective + 1e-12 * objective  # rounding may hide the gain of the last steps
        length = torch.ones_like(slope)
        for _ in range(STEP_HALVINGS):
            trial = position + length * step, values + length * change
            reached, shares = _objective(space, *trial, targets, penalties)
            is_lower = reached <= bound + 1e-4 * length * slope
            if is_lower.all():
                break
            length = torch.where(is_lower, length, length / 2)
        (position, values), objective = trial, reached
    raise RuntimeError(
        f"logistic regression: {int(running.sum())} of {len(running)} episodes are not at their minimum after"
        f" {NEWTON_STEPS} Newton steps; are their features of length 1?"
    )


def _objective(
    space: BySupports | ByFeatures, position: Tensor, values: Tensor, targets: Tensor, penalties: Tensor
) -> tuple[Tensor, Tensor]:
    """What is minimised, `(episodes, 1, 1)`, and the classes' shares (softmax)."""
    log_shares = functional.log_softmax(values, dim=1)
    return space.energy(position, values) / 2 - _dot(penalties * targets, log_shares), log_shares.exp()


def _newton_step(
    space: BySupports | ByFeatures,
    gradient: Tensor,
    direction: Tensor,
    moved: Tensor,
    shares: Tensor,
    penalties: Tensor,
    running: Tensor,
) -> tuple[Tensor, Tensor]:
    """A Newton step and its change of the values; zero where an episode is not running.

    By conjugate gradients, preconditioned with the Hessian at zero; `direction` and `moved` are its solution.
    """
    weighted_shares = penalties * shares
    is_open = running
    step, change = torch.zeros_like(gradient), torch.zeros_like(shares)
    residual, solved, solved_values = -gradient, direction, moved
    size = space.dot(residual, direction, moved)
    goal = CONJUGATE_RESIDUAL**2 * size
    for _ in range(CONJUGATE_STEPS):
        pull = weighted_shares * moved
        pull -= shares * pull.sum(dim=1, keepdim=True)
        bent = space.gradient(direction, moved, pull)
        length = torch.where(running, size / space.dot(bent, direction, moved), 0.0)
        step += length * direction
        change += length * moved
        residual = residual - length * bent
        solved, solved_values = space.solve(residual)
        last, size = size, space.dot(residual, solved, solved_values)
        running = running & (size > goal)
        if not running.any():
            break
        ratio = torch.where(running, size / last, 0.0)
        direction = solved + ratio * direction
        moved = solved_values + ratio * moved
    # One step more along the residual, which costs no product: what K does not see of the residual (supports that
    # depend on each other) is invisible to the iteration; left to itself it would grow, and rounding with it.
    return step + is_open * solved, change + is_open * solved_values


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of two `(episodes, ways, n)`, as `(episodes, 1, 1)`."""
    return (left * right).sum(dim=(1, 2), keepdim=True)


def _flatten(support: Tensor, labels: Tensor, query: Tensor, ways: int) -> tuple[torch.Size, Episodes]:
    """The episodes along one axis, and the axes that they had; on the CPU where the device has no float64.

    Raises:
        InputError: shapes or labels do not fit together, a class has no support, or a feature is not finite.
    """
    shapes = f"support {tuple(support.shape)}, labels {tuple(labels.shape)}, query {tuple(query.shape)}"
    *batch_shape, supports, _ = support.shape
    if query.shape[:-2] != support.shape[:-2] or query.shape[-1] != support.shape[-1]:
        raise InputError(f"linear classifier: {shapes}: the queries do not fit the supports")
    if labels.shape not in (support.shape[:-1], support.shape[-2:-1]):
        raise InputError(f"linear classifier: {shapes}: the labels do not fit the supports")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < ways:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"linear classifier: labels of {ways} ways must be 0 to {ways - 1}, found {found}")
    if not functional.one_hot(labels, ways).any(dim=-2).all():
        raise InputError(f"linear classifier: each of the {ways} ways needs a support in each episode")
    for name, features in (("support", support), ("query", query)):
        # The sum, which takes far less time, tells nearly always: it is finite only if all are.
        if not features.sum().isfinite() and not features.isfinite().all():
            wrong = int((~features.isfinite()).any(dim=-1).sum())
            raise InputError(f"linear classifier: {wrong} {name} images have features that are not finite")
    count = math.prod(batch_shape)
    return torch.Size(batch_shape), Episodes(
        support.reshape(count, *support.shape[-2:]),
        labels.expand(*batch_shape, supports).reshape(count, supports),
        query.reshape(count, *query.shape[-2:]),
    )
