"""What measurements of whole architectures tell about those that were not measured: a Gaussian process.

A value is a sum of effects of the choices that an architecture is made of, of effects of pairs of them, of the
draw that it shares with its block, and of noise; how large each part is, is found by the evidence (Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006, section 5.4.1). Where the measurements show no
interactions, the variance of the pairs goes to zero, and the model is a ridge regression on the choices.

Functions of this model are quadratic forms of an architecture's row (`metantk.space.paths`), so that the best
architecture is found node by node.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize

from metantk.space import paths
from metantk.space.genotype import Space

CONSTANT = 100.0  # variance of the unknown mean, in variances of the values
RANGE = (1e-6, 10.0)  # of the parts' variances, in the same unit
RESTARTS = 4  # of a descent that pairs of choices can lead astray
# Which pairs of choices `(pairs, 2)` may complete a row `(choices,)` that lacks one node, `(pairs,)`.
Allowed = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Function(NamedTuple):
    """f(x) = linear · x + x · pairs · x.

    Attributes:
        linear: `(choices,)`.
        pairs: `(choices, choices)`, symmetric, zero on the diagonal.
    """

    linear: np.ndarray
    pairs: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Values of architectures, `(..., choices)` to `(...)`."""
        return rows @ self.linear + ((rows @ self.pairs) * rows).sum(-1)

    def plus(self, other: "Function", weight: float) -> "Function":
        return Function(self.linear + weight * other.linear, self.pairs + weight * other.pairs)

    @classmethod
    def zero(cls, choices: int) -> "Function":
        return cls(np.zeros(choices), np.zeros((choices, choices)))


class Variances(NamedTuple):
    """Of one choice's effect, of one pair's, of a block's draw, and of noise."""

    choices: float
    pairs: float
    blocks: float
    noise: float


class Posterior:
    """Functions that agree with the measurements.

    Args:
        rows: `(measurements, choices)`.
        values: `(measurements,)`, finite.
        blocks: `(measurements,)`: those with one number share their draws.
    """

    def __init__(self, rows: np.ndarray, values: np.ndarray, blocks: np.ndarray) -> None:
        self.rows, self.mean = rows, values.mean()
        self.values = values - self.mean
        self.kernels = kernels(rows, blocks)
        self.variances = _most_likely(self.kernels, self.values)
        self.factor = linalg.cho_factor(_covariance(self.kernels, self.variances, self.values.var()), lower=True)

    def expected(self) -> Function:
        """The mean of all such functions; up to a constant."""
        return self._correct(Function.zero(self.rows.shape[1]), self.values)

    def sample(self, rng: np.random.Generator) -> Function:
        """One of them, by Matheron's rule: a draw from the prior, corrected by what it gets wrong."""
        count = self.rows.shape[1]
        half = np.triu(rng.normal(0, np.sqrt(self.variances.pairs), (count, count)) / 2, 1)
        prior = Function(rng.normal(0, np.sqrt(self.variances.choices), count), half + half.T)
        rest = _covariance(self.kernels, self.variances._replace(choices=0, pairs=0), self.values.var())
        noise = linalg.cholesky(rest, lower=True) @ rng.normal(size=len(self.values))
        return self._correct(prior, self.values - prior(self.rows) - noise)

    def _correct(self, prior: Function, errors: np.ndarray) -> Function:
        weights = linalg.cho_solve(self.factor, errors)
        linear = self.variances.choices * (self.rows.T @ weights)
        pairs = self.variances.pairs / 2 * (self.rows.T * weights) @ self.rows
        np.fill_diagonal(pairs, 0)
        return Function(prior.linear + linear, prior.pairs + pairs)


def kernels(rows: np.ndarray, blocks: np.ndarray) -> list[np.ndarray]:
    """Covariances of the parts at variance 1, in the order of `Variances`: shared choices, shared pairs, block,
    noise."""
    shared = rows @ rows.T
    return [shared, shared * (shared - 1) / 2, (blocks[:, None] == blocks).astype(float), np.eye(len(rows))]


def _covariance(parts: list[np.ndarray], variances: Variances, scale: float) -> np.ndarray:
    return CONSTANT * scale + sum(variance * part for variance, part in zip(variances, parts, strict=True))


def _most_likely(parts: list[np.ndarray], values: np.ndarray) -> Variances:
    """The variances of the largest evidence."""
    scale = values.var() or 1.0
    # A part explains about as much as its kernel's diagonal times its variance.
    units = scale / np.array([part.diagonal().mean() for part in parts])

    def loss(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        variances = Variances(*(units * np.exp(logarithms)))
        inverse = linalg.inv(_covariance(parts, variances, scale))
        weights = inverse @ values
        _, determinant = np.linalg.slogdet(inverse)
        gradients = [
            variance * ((inverse * part).sum() - weights @ part @ weights) / 2
            for variance, part in zip(variances, parts, strict=True)
        ]
        return (values @ weights - determinant) / 2, np.array(gradients)

    low, high = np.log(RANGE)
    start = np.log([0.3, 0.1, 0.3, 0.3])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(low, high)] * len(parts))
    return Variances(*(units * np.exp(found.x)))


def minimum(function: Function, space: Space, rng: np.random.Generator) -> np.ndarray:
    """The row of the architecture with the least value: exact without pairs, else the best of some descents.

    A step chooses the content of one node anew, given all others.
    """
    starts = paths.balanced_sample(space, RESTARTS if function.pairs.any() else 1, rng)
    return descend(function, space, starts)


def descend(function: Function, space: Space, starts: np.ndarray, allowed: Allowed | None = None) -> np.ndarray:
    """The row with the least value that descents from `starts`, `(rows, choices)`, find among those allowed."""
    nodes = paths.contents(space)
    best, lowest = None, np.inf
    for row in starts:
        row, value = _descend(function, nodes, row, allowed)
        if value < lowest:
            best, lowest = row, value
    return best


def _descend(
    function: Function, nodes: list[np.ndarray], row: np.ndarray, allowed: Allowed | None
) -> tuple[np.ndarray, float]:
    value = np.inf
    while (now := float(function(row))) < value - 1e-12:
        value = now
        for pairs in nodes:
            row = row.copy()
            row[pairs.ravel()] = 0
            alone = function.linear + 2 * function.pairs @ row
            first, second = pairs.T
            values = alone[first] + alone[second] + 2 * function.pairs[first, second]
            if allowed is not None:
                values = np.where(allowed(row, pairs), values, np.inf)
            row[pairs[np.argmin(values)]] = 1
    return row, value
