"""MAML and ANIL on functions of a dict of weights: the inner loop, the meta-output, full-batch meta-training.

A `model` maps weights and inputs `(pictures, ...)` to outputs `(pictures, outputs)`. Everything is differentiable
twice: no gradient is cut, so that the Hessian of the inner loop (paper, Eq. 3) is in every outer gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from metantk.theory.networks import HEAD, Weights

Model = Callable[[Weights, Tensor], Tensor]
Slope = Callable[[Weights], Weights]


class Tasks(NamedTuple):
    """Few-shot tasks, or a single one without the first axis of each tensor.

    Attributes:
        query: `(tasks, pictures, ...)` inputs, X in the paper.
        query_targets: `(tasks, pictures, outputs)`, Y.
        support: `(tasks, pictures, ...)` inputs, X'.
        support_targets: `(tasks, pictures, outputs)`, Y'.
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
        mean = {
            name: (first[name] + 2 * second[name] + 2 * third[name] + fourth[name]) / 6 for name in first
        }
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
    """F_θ(X, X', Y'), the adapted network's outputs on one task's queries (Eq. 1), `(pictures, outputs)`."""
    return model(adapt(model, weights, task.support, task.support_targets, inner), task.query)


def meta_outputs(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """F_θ of every task, `(tasks, pictures, outputs)`."""
    return vmap(lambda *task: meta_output(model, weights, Tasks(*task), inner))(*tasks)


def meta_loss(model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop) -> Tensor:
    """L(θ) of Eq. 2."""
    return square_loss(meta_outputs(model, weights, tasks, inner), tasks.query_targets)


def train(
    model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop, *, rate: float, steps: int
) -> tuple[Weights, list[float]]:
    """Algorithm 1 with all tasks in each step.

    Returns:
        The weights, and the loss before each step and after the last one, `steps + 1` numbers. Training stops early
        where the loss is no longer finite.
    """
    slope = torch.func.grad_and_value(lambda weights: meta_loss(model, weights, tasks, inner))
    losses = []
    for _ in range(steps):
        slopes, loss = slope(weights)
        losses.append(float(loss))
        if not loss.isfinite():
            return weights, losses
        weights = _moved(weights, slopes, rate)
    losses.append(float(meta_loss(model, weights, tasks, inner)))
    return weights, losses


def train_by_flow(
    model: Model, weights: Weights, tasks: Tasks, inner: InnerLoop, *, time: float, steps: int
) -> Weights:
    """Meta-training with an infinitesimal rate (Eq. 7): gradient flow of L for `time`, η times the steps."""
    return flow(grad(lambda weights: meta_loss(model, weights, tasks, inner)), weights, time, steps)


def centred(model: Model, initial: Weights) -> Model:
    """The model minus its own outputs at `initial`: zero there, with the same derivatives."""
    initial = {name: weight.detach() for name, weight in initial.items()}
    return lambda weights, inputs: model(weights, inputs) - model(initial, inputs)
