"""The heads of MetaOptNet: a multi-class support vector machine and ridge regression, solved within each episode.

Both are linear, without a bias, and differentiable with respect to the features (first order). The learnable scale
that MetaOptNet puts on the logits is left to the caller.

The support vector machine is the exact solution of the published quadratic programme. The published code stops its
solver early at test time, after 3 iterations of qpth, where logits are not yet those of the solution; this is not
reproduced.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metantk.runtime.files import InputError

# Steps of the interior point method before each attempt to guess which bounds hold, from the first start and then
# from the second. The first attempt is enough for nearly every episode with more features than supports.
_STEPS = ((5, 4), (12, 4, 4, 4, 4))
_CORRECTIONS = 6  # of the guess, in each attempt
_ROUNDING = 1e-13  # a bound may be crossed by so much, relative to the largest variable; more in later attempts


def svm_logits(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    penalty: float = 0.1,
    weights: Tensor | None = None,
) -> Tensor:
    """Logits of the support vector machine of Crammer and Singer, trained on the support set (MetaOptNet, Eq. 8).

    With K the Gram matrix of the support and Y the labels, one-hot, α `(supports, ways)` minimises

        ½ Σ_m α_mᵀ (K + I) α_m − Σ_i α_i,y(i)   subject to   α ≤ penalty · Y,   Σ_m α_im = 0 for each i.

    The I is not in the paper but in its code, and changes the solution.

    Args:
        support: features, `(..., supports, features)`.
        labels: `(..., supports)` int64, from 0 to ways − 1, in any order.
        query: features, `(..., queries, features)`.
        ways: number of classes.
        penalty: C.
        weights: factors of C, `(..., supports)`; all 1 without.

    Returns:
        `(..., queries, ways)` in the dtype of the features. Inside, all is float64: with features of a few
        thousand numbers the rounding of K in float32 exceeds the I, and the cost is small beside a backbone's.
        NaN for an episode whose features are not finite, or so large that K's rounding hides the I (above 1e6;
        above 1e4 where there are fewer features than supports).

    Raises:
        InputError: shapes, types or values that do not fit.
    """
    _check(support, labels, query, ways, penalty)
    features = support.double()
    own = _one_hot(labels, ways)
    weights = _factors(weights, labels)[..., None]
    episodes = [tensor.reshape(-1, *tensor.shape[-2:]) for tensor in (features, own, weights)]
    return _logits(features, query, _DualSolution.apply(*episodes, penalty).view(own.shape))


def ridge_logits(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    ways: int,
    ridge: float = 50.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Logits of ridge regression to one-hot labels, with MetaOptNet's factor: α = 2 (K + ridge · W⁻¹)⁻¹ Y.

    Arguments, result and errors are those of `svm_logits`; `ridge` is λ, and the diagonal of W the weights of the
    supports' squared errors.
    """
    _check(support, labels, query, ways, ridge)
    features = support.double()
    matrix = features @ features.mT + torch.diag_embed(ridge / _factors(weights, labels))
    factor = torch.linalg.cholesky_ex(matrix)[0]
    return _logits(features, query, torch.cholesky_solve(2 * _one_hot(labels, ways).double(), factor))


def _logits(features: Tensor, query: Tensor, dual: Tensor) -> Tensor:
    """Q Xᵀ α, from the right: there are fewer classes than supports."""
    return (query.double() @ (features.mT @ dual)).to(query.dtype)


def _factors(weights: Tensor | None, labels: Tensor) -> Tensor:
    """float64, of the shape of the labels."""
    if weights is None:
        return torch.ones_like(labels, dtype=torch.float64)
    return weights.double().expand(labels.shape)


def _one_hot(labels: Tensor, ways: int) -> Tensor:
    return labels[..., None] == torch.arange(ways, device=labels.device)


def _check(support: Tensor, labels: Tensor, query: Tensor, ways: int, strength: float) -> None:
    shapes = f"support {tuple(support.shape)}, labels {tuple(labels.shape)}, query {tuple(query.shape)}"
    same = (support.shape[:-2], support.shape[-1:]) == (query.shape[:-2], query.shape[-1:])
    if min(support.dim(), query.dim()) < 2 or not same or labels.shape != support.shape[:-1]:
        raise InputError(f"{shapes}: expected (..., supports, features), (..., supports), (..., queries, features)")
    if support.dtype != query.dtype or not support.is_floating_point() or labels.dtype != torch.int64:
        types = f"{support.dtype}, {labels.dtype}, {query.dtype}"
        raise InputError(f"support, labels, query are {types}: expected floats, int64 and the same floats")
    if ways < 2 or not strength > 0:
        raise InputError(f"ways {ways}, penalty or ridge {strength}: expected at least 2, and more than 0")
    # On a GPU a look at the labels would wait for all that comes before them.
    if labels.device.type == "cpu" and labels.numel() and not bool(((labels >= 0) & (labels < ways)).all()):
        raise InputError(f"labels from {int(labels.min())} to {int(labels.max())}: expected 0 to {ways - 1}")


class _DualSolution(torch.autograd.Function):
    """α `(episodes, supports, ways)` of the programme in `svm_logits`, differentiable in the features.

    The derivative is that of the KKT system: variables at their bounds stay there, the others move within their
    rows' equalities. Where a variable at its bound has a multiplier of zero it is one of the one-sided ones.
    """

    @staticmethod
    def forward(ctx, features: Tensor, own: Tensor, weights: Tensor, penalty: float) -> Tensor:
        dual, system, scale = _solve_dual(features @ features.mT, own, penalty, weights)
        ctx.save_for_backward(features, dual, *system, scale)
        return dual

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        features, dual, inverses, schur, scale = ctx.saved_tensors
        # dα = −J⁻¹ (dK α) with J⁻¹ symmetric, so K's gradient is −adjoint αᵀ: never formed, its rank is low.
        adjoint = _solve((inverses, schur), gradient) / scale
        return -adjoint @ (dual.mT @ features) - dual @ (adjoint.mT @ features), None, None, None


System = tuple[Tensor, Tensor]  # as `_factor` returns it


def _solve_dual(
    gram: Tensor, own: Tensor, penalty: float, weights: Tensor | float = 1.0
) -> tuple[Tensor, System, Tensor]:
    """α, the KKT system at it, and the scale of that system's unknowns.

    An interior point method comes close; then the bounds that hold are guessed, the equations that are left are
    solved, and the guess is corrected until no variable crosses its bound and no multiplier is negative, which
    proves the solution. A guess that does not settle sends the episode back to the interior point method. Each
    episode takes its own course, whatever the others of the batch do.
    """
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    hessian = gram + identity
    target = own.to(gram.dtype)
    # In units of 1 / scale, variables and multipliers are of the order of 1 for small and for large features.
    scale = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp(min=1 / penalty)
    hessian = hessian / scale
    bound = penalty * scale * weights * target

    solution, free = torch.full_like(target, torch.nan), torch.zeros_like(own)
    is_solved = torch.zeros_like(own[:, :1, :1])
    rounding = _ROUNDING
    # With more features than supports variables are of the order of 1. With fewer, and these large, classes
    # overlap and many variables end at their bounds.
    ways = own.shape[-1]
    for size, attempts in zip((torch.ones_like(scale), penalty * scale), _STEPS, strict=True):
        size = size * weights
        dual = size * (ways * target - 1) / (2 * ways)  # at most half of the way to the bounds; rows sum to 0
        point = dual, bound - dual, size / (bound - dual)
        for steps in attempts:
            for _ in range(steps):
                point = _interior_step(hessian, target, *point)
            _, slack, multiplier = point
            # In each row at least one is free; all are where the steps broke down, so that NaN cannot settle.
            guess = (slack > multiplier) | ~(slack < slack.amax(-1, keepdim=True))
            free = torch.where(is_solved, free, guess)
            for _ in range(_CORRECTIONS):
                system = _factor_free(hessian, free)
                dual, corrected = _correct(hessian, target, bound, free, system, rounding)
                settles = _all(corrected == free)
                solution = torch.where(settles, dual, solution)
                is_solved = is_solved | settles
                if bool(is_solved.all()):
                    return solution / scale, system, scale
                free = torch.where(is_solved, free, corrected)
            rounding *= 4
    return solution / scale, system, scale


def _all(true: Tensor) -> Tensor:
    return true.flatten(1).all(-1)[:, None, None]


def _interior_step(
    hessian: Tensor, target: Tensor, dual: Tensor, slack: Tensor, multiplier: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Mehrotra's predictor-corrector method; rows of `dual` sum to 0 before and after."""
    gradient = hessian @ dual - target + multiplier
    residual = gradient - gradient.mean(-1, keepdim=True)  # the rest is the equalities' multiplier
    gap = _mean(slack * multiplier)
    weight = multiplier / slack
    system = _factor(hessian[:, None] + torch.diag_embed(weight.mT))

    change = _solve(system, multiplier - residual)
    rise = weight * change - multiplier
    length = _step_length(slack, -change, multiplier, rise)
    reached = _mean((slack - length * change) * (multiplier + length * rise))
    centre = ((reached / gap) ** 3 * gap + change * rise) / slack

    change = change - _solve(system, centre)
    rise = weight * change - multiplier + centre
    length = 0.995 * _step_length(slack, -change, multiplier, rise)
    return dual + length * change, slack - length * change, multiplier + length * rise


def _step_length(slack: Tensor, fall: Tensor, multiplier: Tensor, rise: Tensor) -> Tensor:
    """The longest step, up to 1, with which neither slacks nor multipliers become negative."""
    ratios = torch.maximum(-fall / slack, -rise / multiplier)
    return 1 / ratios.amax((-2, -1), keepdim=True).clamp(min=1)


def _mean(values: Tensor) -> Tensor:
    return values.mean((-2, -1), keepdim=True)


def _correct(
    hessian: Tensor, target: Tensor, bound: Tensor, free: Tensor, system: System, rounding: float
) -> tuple[Tensor, Tensor]:
    """The solution with these variables free and the others at their bounds; the free variables as it has them."""
    count = free.sum(-1, keepdim=True)
    dual = torch.where(free, 0, bound)
    for _ in range(3):  # the later ones remove the rounding of the explicit inverses
        dual = dual - torch.where(free, dual.sum(-1, keepdim=True) / count, 0)  # rows sum to 0
        dual = dual + _solve(system, target - hessian @ dual)
    gradient = target - hessian @ dual
    multiplier = gradient - torch.where(free, gradient, 0).sum(-1, keepdim=True) / count
    tolerance = rounding * dual.abs().amax((-2, -1), keepdim=True).clamp(min=1)
    return dual, torch.where(free, dual <= bound + tolerance, multiplier < -tolerance)


def _factor(matrices: Tensor) -> System:
    """Prepare `_solve`: inverses of `(episodes, ways, supports, supports)`, and their sum's Cholesky factor.

    The programme's Hessian has one block for each class; only the equalities tie them. So N matrices of the size of
    the support are inverted, instead of one that is N times as large.
    """
    return _add_schur(torch.cholesky_inverse(torch.linalg.cholesky_ex(matrices)[0]))


def _factor_free(hessian: Tensor, free: Tensor) -> System:
    """The same for the variables that are free, `(episodes, supports, ways)`; the others do not move."""
    free = free.mT.to(hessian.dtype)
    held = torch.diag_embed(1 - free)
    matrices = hessian[:, None] * free[..., None] * free[..., None, :] + held
    return _add_schur(torch.cholesky_inverse(torch.linalg.cholesky_ex(matrices)[0]) - held)


def _add_schur(inverses: Tensor) -> System:
    return inverses, torch.linalg.cholesky_ex(inverses.sum(-3))[0]


def _solve(system: System, right: Tensor) -> Tensor:
    """x `(episodes, supports, ways)` of M_m x_m + ν = right_m for each class m, and Σ_m x_m = 0."""
    inverses, schur = system
    right = right.mT[..., None, :]  # rows, from the left: the inverses are symmetric, and so it is faster
    shift = torch.cholesky_solve((right @ inverses).sum(-3).mT, schur).mT
    return ((right - shift[:, None]) @ inverses)[..., 0, :].mT
