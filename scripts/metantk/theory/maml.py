"""MAML and ANIL on functions of a dict of weights: the inner loop, the meta-output, full-batch meta-training.

A `model` maps weights and inputs `(images, ...)` to outputs `(images, outputs)`. Everything is differentiable
twice: no gradient is cut, so that the Hessian of the inner loop (paper, Eq. 3) is in every outer gradient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from metantk.theory.networks import HEAD, Weights

Model = Callable[[Weights, Tensor], Tensor]
Slope = Callable[[Weights], Weights]


class Tasks(NamedTuple):
    """Few-shot tasks, or a single one without the first axis of each tensor.

    Attributes:
        query: `(tasks, images, ...)` inputs, X in the paper.
        query_targets: `(tasks, images, outputs)`, Y.
        support: `(tasks, images, ...)` inputs, X'.
        support_targets: `(tasks, images, outputs)`, Y'.
    """

    query: Tensor
    query_targets: Tensor
    support: Tensor
    support_targets: Tensor


class InnerLoop(NamedTuple):
    """How the weights are adapted to a task's supports.

    Attributes:
        time: λτ; for a single step, its rate λ.
        steps: of the integrator of the gradient flow; 0 stands for the single gradient step of Eq. 1.
        head_only: ANIL, which adapts the head alone.
    """

    time: float
    steps: int
    head_only: bool = False


def square_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance (paper, above Eq. 2)."""
    return 0.5 * ((outputs - targets) ** 2).sum()


def descend(slope: Slope, weights: Weights, rate: float) -> Weights:
    """One step of gradient descent; weights without a slope stay as they are."""
    return weights | {name: weights[name] - rate * part for name, part in slope(weights).items()}


def flow(slope: Slope, weights: Weights, time: float, steps: int) -> Weights:
    """Gradient flow dθ/dt = −∇ for `time`, by classical Runge-Kutta steps of `time / steps`, error O(step⁴)."""
    step = time / steps
    for _ in range(steps):
        first = slope(weights)
        second = slope(_moved(weights, first, step / 2))
        third = slope(_moved(weights, second, step / 2))
        fourth = slope(_moved(weights, third, step))
        mean = {name: (first[name] + 2 * second[name] + 2 * third[name] + fourth[name]) / 6 for name in first}
        weights = _moved(weights, mean, step)
    return weights


def _moved(weights: Weights, slopes: Weights, step: float) -> Weights:
    return weights | {name: weights[name] - step * part for name, part in slopes.items()}


def adapt(model: Model, weights: Weights, support: Tensor, targets: Tensor, inner: InnerLoop) -> Weights:
    """θ', the weights after the inner loop on one task."""
    adapted = {HEAD} if inner.head_only else set(weights)

    def slope(weights: Weights) -> Weights:
        moving = {name: weights[name] for name in adapted}
        return grad(lambda moving: square_loss(model(weights | moving, support), targets))(moving)

    if inner.steps:
        return flow(slope, weights, inner.time, inner.steps)
    return descend(slope, weights, inner.time)


def meta_output(model: Model, weights: Weights, task: Tasks, inner: InnerLoop) -> Tensor:
    """F_θ(X, X', Y'), the adapted network's outputs on one task's queries (Eq. 1), `(images, outputs)`."""
    return model(adapt(model, weights, task.support, task.support_targets, inner), task.query)


def meta_outputs(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """F_θ of every task, `(tasks, images, outputs)`."""
    return vmap(lambda *task: meta_output(model, weights, Tasks(*task), inner))(*tasks)


def meta_loss(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """L(θ) of Eq. 2."""
    return square_loss(meta_outputs(model, weights, tasks, inner), tasks.query_targets)


def train(
    model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop, *, rate: float, steps: int
) -> tuple[Weights, Tensor]:
    """Algorithm 1 with all tasks in each step, for several networks at once.

    Args:
        weights: of all networks, each tensor with a first axis over them.
        tasks: of each network, with the same first axis.

    Returns:
        The weights, and the loss before each step and after the last one, `(networks, steps + 1)`. Where training
        diverges, losses are infinite or NaN.
    """
    slope = vmap(grad_and_value(lambda weights, *parts: meta_loss(model, weights, Tasks(*parts), inner)))
    losses = []
    for _ in range(steps):
        slopes, loss = slope(weights, *tasks)
        losses.append(loss)
        weights = _moved(weights, slopes, rate)
    losses.append(slope(weights, *tasks)[1])
    return weights, torch.stack(losses, 1)


def train_by_flow(
    model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop, *, time: float, steps: int
) -> Weights:
    """Meta-training with an infinitesimal rate (Eq. 7): gradient flow of L for `time`; arguments as in `train`."""
    slope = vmap(grad(lambda weights, *parts: meta_loss(model, weights, Tasks(*parts), inner)))
    return flow(lambda weights: slope(weights, *tasks), weights, time, steps)


def outputs_of_each(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """F_θ of several networks, arguments as in `train`: `(networks, tasks, images, outputs)`."""
    return vmap(lambda weights, *parts: meta_outputs(model, weights, Tasks(*parts), inner))(weights, *tasks)


def stack_weights(weights: Sequence[Weights]) -> Weights:
    """Weights of several networks of one shape, each tensor with a first axis over the networks."""
    return {name: torch.stack([each[name] for each in weights]) for name in weights[0]}


def initial_outputs(model: Model, weights: Weights, tasks: Tasks) -> tuple[Tensor, Tensor]:
    """Unadapted outputs of several networks on the queries and on the supports of all tasks.

    Returns:
        Two tensors `(networks, tasks, images, outputs)`.
    """
    on_tasks = vmap(vmap(model, in_dims=(None, 0)), in_dims=(0, None))
    return on_tasks(weights, tasks.query), on_tasks(weights, tasks.support)


def centre(tasks: Tasks, outputs: tuple[Tensor, Tensor]) -> Tasks:
    """Tasks of each network on which it trains as the same network minus its initial outputs would.

    For the square loss, f − f₀ with target Y is f with target Y + f₀. The centred network's meta-output is the
    network's on these tasks, minus its initial outputs on the queries.

    Args:
        outputs: the networks' `initial_outputs`, or zeros for tasks as they are.
    """
    networks = len(outputs[0])
    return Tasks(
        query=tasks.query.expand(networks, *tasks.query.shape),
        query_targets=tasks.query_targets + outputs[0],
        support=tasks.support.expand(networks, *tasks.support.shape),
        support_targets=tasks.support_targets + outputs[1],
    )
