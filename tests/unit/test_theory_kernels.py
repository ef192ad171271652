"""The mathematics of the theory against slow, independent calculations, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from metantk.runtime.devices import generator
from metantk.theory import maml
from metantk.theory.kernels import (
    Pair,
    adapted_regression,
    all_inputs,
    empirical_kernels,
    infinite_kernels,
    kernel_regression,
    learned,
    meta_ntk_as_printed,
    meta_ntk_by_definition,
    meta_ntk_by_formula,
    relative_distance,
)
from metantk.theory.maml import InnerLoop, Tasks, meta_output, meta_outputs
from metantk.theory.networks import HEAD, Network, closed_form_kernels
from metantk.theory.tasks import draw_tasks

FLOW, ONE_STEP, ANIL = InnerLoop(0.2, 3), InnerLoop(0.1, 0), InnerLoop(0.3, 3, head_only=True)


def make(kind="fully_connected", activation="erf", width=6, depth=2, seed=0, count=2, side=3):
    """A small network, its weights and its tasks."""
    network = Network(kind, activation, depth, width, side, outputs=2)
    tasks = draw_tasks("gaussian", count, ways=2, shots=1, queries=1, side=side, key=("train", 0))
    return network, network.draw(generator("test weights", seed)), tasks


def perturbed(weights, direction, step):
    return {name: weights[name] + step * direction[name] for name in weights}


@pytest.mark.slow
@pytest.mark.parametrize("inner", [FLOW, ONE_STEP, ANIL], ids=["flow", "one step", "ANIL"])
@pytest.mark.parametrize("kind", ["fully_connected", "convolutional"])
def test_meta_ntk_by_definition_agrees_with_finite_differences(kind, inner):
    """Along every weight: the full Jacobian of the meta-output, inner loop included, by central differences."""
    network, weights, tasks = make(kind, width=2)
    step = np.finfo(float).eps ** (1 / 3)  # balances truncation and rounding, both of order step²
    columns = []
    for name, weight in weights.items():
        for index in np.ndindex(*weight.shape):
            direction = {other: torch.zeros_like(part) for other, part in weights.items()}
            direction[name][index] = 1
            ends = [meta_outputs(network, perturbed(weights, direction, s), tasks, inner) for s in (step, -step)]
            columns.append((ends[0] - ends[1]).flatten() / (2 * step))
    jacobian = torch.stack(columns, 1)
    expected = jacobian @ jacobian.T
    got = meta_ntk_by_definition(network, weights, tasks, inner)
    assert relative_distance(got, expected) < 100 * step**2


def cut(slope):
    """The slope as first-order MAML has it: no gradient flows through it."""
    return lambda weights: {name: part.detach() for name, part in slope(weights).items()}


def test_a_missing_inner_hessian_is_seen(monkeypatch):
    """First-order MAML is far from the definition and from the formula, where the true kernel is near both."""
    network, weights, tasks = make(width=256)
    formula = meta_ntk_by_formula(empirical_kernels(network, weights, all_inputs(tasks)), tasks, ONE_STEP)
    true = meta_ntk_by_definition(network, weights, tasks, ONE_STEP)
    descend = maml.descend
    monkeypatch.setattr(maml, "descend", lambda slope, *rest: descend(cut(slope), *rest))
    first_order = meta_ntk_by_definition(network, weights, tasks, ONE_STEP)
    assert relative_distance(first_order, true) > 10 * relative_distance(formula, true)


@pytest.mark.parametrize("inner", [FLOW, ONE_STEP, ANIL], ids=["flow", "one step", "ANIL"])
def test_the_formula_approaches_the_definition_and_a_wrong_sign_does_not(inner):
    errors, wrong = [], []
    for width in (16, 256):
        of_width = []
        for seed in range(4):
            network, weights, tasks = make(width=width, seed=seed)
            kernels = empirical_kernels(network, weights, all_inputs(tasks))
            true = meta_ntk_by_definition(network, weights, tasks, inner)
            of_width.append(relative_distance(meta_ntk_by_formula(kernels, tasks, inner), true))
            # A negative time makes −A of A, to first order: the wrong sign of the third and the fourth term.
            wrong_sign = meta_ntk_by_formula(kernels, tasks, inner._replace(time=-inner.time))
        errors.append(np.mean(of_width))
        wrong.append(relative_distance(wrong_sign, true))
    # The error is O(l^-1/2) at least: a factor of 4 for 16 times the width; half of that leaves room for chance.
    assert errors[1] < errors[0] / 2
    assert wrong[1] > 10 * errors[1]


def test_the_printed_formula_is_not_symmetric_and_the_transposed_one_is():
    network, _, tasks = make(count=3)
    limit = infinite_kernels(network, all_inputs(tasks))
    correct, printed = (form(limit, tasks, FLOW) for form in (meta_ntk_by_formula, meta_ntk_as_printed))
    torch.testing.assert_close(correct, correct.T, rtol=1e-12, atol=1e-12)
    assert relative_distance(printed.T, printed) > 0.01


def test_the_printed_formula_differs_in_its_last_term_only():
    """Block by block: put Θ(X_i, X'_j) in the place of Θ(X'_i, X'_j), and the right formula comes out."""
    network, _, tasks = make(count=2)
    kernels = infinite_kernels(network, all_inputs(tasks))
    theta, size = kernels.ntk, 4
    printed = meta_ntk_as_printed(kernels, tasks, FLOW)
    query = [slice(i * size, (i + 1) * size) for i in range(2)]
    support = [slice((2 + i) * size, (3 + i) * size) for i in range(2)]
    for i in range(2):
        for j in range(2):
            values, vectors = torch.linalg.eigh(theta[support[j], support[j]])
            inverse = vectors @ torch.diag(-torch.expm1(-FLOW.time * values) / values) @ vectors.T
            tail = inverse.T @ theta[support[j], query[j]]
            printed[query[i], query[j]] += (theta[support[i], support[j]] - theta[query[i], support[j]]) @ tail
    torch.testing.assert_close(printed, meta_ntk_by_formula(kernels, tasks, FLOW), rtol=1e-9, atol=1e-12)


def test_anils_inner_loop_moves_the_head_alone():
    network, weights, tasks = make()
    task = Tasks(*(part[0] for part in tasks))
    adapted = maml.adapt(network, weights, task.support, task.support_targets, ANIL)
    moved = {name for name in weights if not torch.equal(weights[name], adapted[name])}
    assert moved == {HEAD}


def test_anils_meta_output_is_kernel_regression_with_the_nngp_at_every_width():
    """The head's inner problem is linear: F = f(X) − K_QS T (f(X') − Y') to the integrator's error."""
    network, weights, tasks = make(width=5)
    inner = InnerLoop(0.5, 50, head_only=True)
    kernels = empirical_kernels(network, weights, all_inputs(tasks))
    query, support = network(weights, tasks.query.flatten(0, 1)), network(weights, tasks.support.flatten(0, 1))
    shifted = tasks._replace(support_targets=tasks.support_targets - support.view_as(tasks.support_targets))
    expected = query.view_as(tasks.query_targets) + adapted_regression(kernels, shifted, inner)
    got = meta_outputs(network, weights, tasks, inner)
    assert relative_distance(got, expected) < 1e-8


@pytest.mark.parametrize("steps", [4, 8])
def test_the_inner_flow_agrees_with_an_ode_solver(steps):
    network, weights, tasks = make(width=3)
    task = Tasks(*(part[0] for part in tasks))
    names = list(weights)

    def unflatten(flat):
        parts = torch.from_numpy(flat).split([weights[name].numel() for name in names])
        return {name: part.view_as(weights[name]) for name, part in zip(names, parts, strict=True)}

    def right_hand_side(_, flat):
        slope = torch.func.grad(lambda now: maml.square_loss(network(now, task.support), task.support_targets))(
            unflatten(flat)
        )
        return -torch.cat([slope[name].flatten() for name in names]).numpy()

    start = torch.cat([weights[name].flatten() for name in names]).numpy()
    solved = solve_ivp(right_hand_side, (0, 1.0), start, rtol=1e-10, atol=1e-12).y[:, -1]
    got = meta_output(network, weights, task, InnerLoop(1.0, steps))
    expected = network(unflatten(solved), task.query)
    # The classical method's error per unit of time is of order (step · rate)⁴ / 120; rates are below 4 here.
    assert relative_distance(got, expected) < (4 / steps) ** 4 / 120


def test_learned_agrees_with_an_ode_solver_and_with_steps():
    """dr/dt = −Φ(r): the matrix exponential against scipy's solver, and the finite form against plain descent."""
    draws = np.random.default_rng(0)
    root = draws.normal(size=(5, 7))
    phi, residual = root @ root.T / 7, draws.normal(size=5)
    solved = solve_ivp(lambda _, r: -phi @ r, (0, 1.7), residual, rtol=1e-11, atol=1e-13).y[:, -1]
    phi, residual = torch.from_numpy(phi), torch.from_numpy(residual)
    torch.testing.assert_close(
        residual - phi @ learned(phi, residual, time=1.7), torch.from_numpy(solved), rtol=1e-8, atol=1e-10
    )
    left = residual
    for _ in range(17):
        left = left - 0.1 * phi @ left
    torch.testing.assert_close(residual - phi @ learned(phi, residual, time=1.7, rate=0.1), left)
    torch.testing.assert_close(phi @ learned(phi, residual, time=math.inf), residual)


def test_a_singular_kernel_learns_what_it_can():
    phi = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    residual = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(learned(phi, residual, time=math.inf), torch.tensor([0.5, 0.0]).double())


def test_regression_on_the_training_tasks_ends_at_their_targets():
    network, _, tasks = make(count=3)
    kernels = infinite_kernels(network, all_inputs(tasks))
    phi, start = meta_ntk_by_formula(kernels, tasks, FLOW), adapted_regression(kernels, tasks, FLOW)
    outputs = kernel_regression(phi, start, tasks.query_targets, 2, time=math.inf)
    torch.testing.assert_close(outputs[:2], tasks.query_targets[:2], rtol=1e-8, atol=1e-8)
    # The third task's targets are not looked at.
    changed = tasks.query_targets.clone()
    changed[2] = 7
    again = kernel_regression(phi, start, changed, 2, time=math.inf)
    torch.testing.assert_close(again, outputs)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("kind", ["fully_connected", "convolutional"])
def test_closed_forms_agree_with_wide_sampled_networks(kind, activation, depth):
    """The mean over independent outputs of a wide network, within four of its own standard errors."""
    side, width, draws = 3, 192 if kind == "fully_connected" else 64, 12
    network = Network(kind, activation, depth, width, side, outputs=1)
    inputs = torch.randn(4, side**2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampled = [empirical_kernels(network, network.draw(generator("closed form", k)), inputs) for k in range(draws)]
    for kernel, expected in zip(Pair._fields, closed_form_kernels(network, inputs), strict=True):
        values = torch.stack([getattr(pair, kernel) for pair in sampled])
        error = values.std(0) / draws**0.5
        # Means at finite width are off by O(1/width) in relation to the diagonal.
        bias = 4 * depth * expected.diagonal().max() / width
        assert ((values.mean(0) - expected).abs() < 4 * error + bias).all()
        assert error.max() < 0.15 * expected.diagonal().max()


def test_closed_form_of_one_hidden_relu_layer_is_the_arc_cosine_kernel():
    """Cho and Saul's formulas written out for two unit vectors at 60 degrees."""
    angle = math.pi / 3
    inputs = torch.tensor([[1.0, 0, 0, 0], [math.cos(angle), math.sin(angle), 0, 0]], dtype=torch.float64) * 2
    network = Network("fully_connected", "relu", depth=1, width=1, side=2, outputs=1)
    tangent, nngp = closed_form_kernels(network, inputs)
    context = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    assert float(nngp[0, 1]) == pytest.approx(context, rel=1e-12)
    assert float(tangent[0, 1]) == pytest.approx(context + math.cos(angle) * (1 - angle / math.pi), rel=1e-12)


def test_centred_training_is_training_of_the_centred_network():
    """Shifted targets against the network minus its initial outputs, written out."""
    network, weights, tasks = make(width=5)

    def still(now, inputs):
        return network(now, inputs) - network(weights, inputs)

    several = maml.stack_weights([weights])
    offset = maml.initial_outputs(network, several, tasks)
    own = maml.centre(tasks, offset)
    trained, losses = maml.train(network, several, own, ONE_STEP, rate=0.05, steps=3)
    zeros = tuple(torch.zeros_like(part) for part in offset)
    expected, expected_losses = maml.train(still, several, maml.centre(tasks, zeros), ONE_STEP, rate=0.05, steps=3)
    torch.testing.assert_close(losses, expected_losses)
    torch.testing.assert_close(trained, expected)
