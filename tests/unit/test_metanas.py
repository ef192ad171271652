"""MetaNAS: its pieces against published numbers and slow versions, and whole searches as small as they come."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_meta_search import Memory, assert_resumes, make_problem
from torch import nn
from torch.nn import functional

from metantk import flops
from metantk.meta_learning.metanas import REMOVED, TaskLearner, adapt_to_task, make_generators, temperature_at
from metantk.meta_learning.reptile import draw_batch, make_adam, reptile_step, snapshot, step_on
from metantk.options.base import parse
from metantk.options.searches.metanas import Adaptation
from metantk.runtime.files import InputError
from metantk.searches import metanas, pacing
from metantk.searches.base import Found
from metantk.searches.decoding import decode_pairs
from metantk.searches.metanas import Options, decode, make_learner
from metantk.searches.tasks import TaskSource
from metantk.space.depthwise import AveragePool
from metantk.space.genotype import CELL_TYPES, SPACES, check_genotype
from metantk.space.mixed import METANAS_SPACE

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "nas-rivals" / "cases.json").read_text())["metanas"]
TINY = {
    "cells": 2,
    "channels": 4,
    "reductions": [1],
    "ways": 3,
    "shots": 4,
    "epochs": 6,
    "steps_per_epoch": 1,
    "warm_up_epochs": 3,
    "meta_batch_size": 2,
    "inner_steps": 2,
    "inner_batch_size": 6,
    "arch_inner_lr": 0.1,
    "prune_every_steps": 5,
}


@pytest.fixture(autouse=True)
def always_keep(monkeypatch):
    monkeypatch.setattr(pacing, "SECONDS_BETWEEN", 0.0)


def tiny(**changes) -> Options:
    return parse(Options, TINY | changes, where="test")


def make_tiny_learner(seed: int = 0, **changes) -> TaskLearner:
    problem = make_problem()
    return make_learner(tiny(**changes), problem.backbone.cells, problem.backbone.channels, seed, problem.device)


def draw_task(*key, queries: int = 0):
    problem = make_problem()
    source = TaskSource(problem, problem.train, ways=3, shots=4, queries=queries, image_size=None, where="test")
    return source.draw(*key)


def learn(learner: TaskLearner, *, architecture_steps: int | None, steps: int = 2, key: int = 0) -> float:
    task = draw_task(0)
    return learner.learn(
        task.support,
        task.support_labels,
        make_generators(torch.device("cpu"), key),
        steps=steps,
        architecture_steps=architecture_steps,
        batch=6,
        threshold=0.0,
        drop_path=0.0,
    )


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Pieces.


@pytest.mark.parametrize("case", CASES["temperature_schedule"], ids=lambda c: str(c["arch_steps"]))
def test_temperature_falls_as_published(case):
    steps, minimum = case["arch_steps"], case["t_min"]
    found = [temperature_at(step, steps, minimum) for step in range(steps)]
    np.testing.assert_allclose(found, case["temperature"], atol=1e-6)
    assert found[0] == 1
    assert found[-1] == minimum
    assert temperature_at(steps + 3, steps, minimum) == minimum


@pytest.mark.parametrize("case", CASES["pairwise_decode"], ids=["first", "second"])
def test_pairs_are_decoded_as_published(case):
    operations = np.array([row for node in case["alpha"] for row in node])
    pairs = np.array([weight for node in case["pairwise"] for weight in node])
    assert decode_pairs(operations, pairs, METANAS_SPACE) == case["cell"]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_decoded_nodes_have_two_different_inputs(space):
    draws = np.random.default_rng(0)
    pairs = sum((node * (node - 1)) // 2 for node in range(2, 2 + space.nodes))
    for _ in range(100):
        shape = (len(space.edges), len(space.operations))
        nodes = decode_pairs(draws.normal(size=shape), draws.normal(size=pairs), space)
        assert all(one[1] < other[1] for one, other in nodes)


@pytest.mark.parametrize("case", CASES["alpha_gradient"], ids=lambda c: f"T{c['temperature']}")
def test_gradient_of_a_softmax_is_the_published_one(case):
    learner = make_tiny_learner()
    products = torch.tensor(case["inner_products_g_dot_op_output"])
    count = len(products)
    with torch.no_grad():
        alpha = learner.alphas["normal"].operations
        alpha.fill_(REMOVED)  # what is not in the case
        alpha[0, :count] = torch.tensor(case["logits"])
        alpha[1:] = 0
    weights = learner.arch(case["temperature"], 0.0)["normal"].operations
    (gradient,) = torch.autograd.grad((weights[0, :count] * products).sum(), alpha)
    torch.testing.assert_close(gradient[0, :count], torch.tensor(case["dL_dalpha"]), atol=1e-6, rtol=1e-5)
    assert gradient[0].sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("case", CASES["reptile_step"], ids=lambda c: f"rate-{c['rate']}")
def test_reptile_moves_as_published(case):
    meta = torch.tensor(case["meta"], dtype=torch.float64)
    began = []

    def learn(index: int) -> None:
        began.append(meta.clone())
        meta.copy_(torch.tensor(case["task_results"][index], dtype=torch.float64))

    reptile_step([([meta], case["rate"])], len(case["task_results"]), learn)
    assert meta.tolist() == pytest.approx(case["new_meta"], abs=1e-9)
    assert all(start.tolist() == case["meta"] for start in began)


def test_one_task_at_rate_one_is_where_the_task_led():
    meta, result = torch.tensor([0.25, -3.0]), torch.tensor([1.5, 2.0])
    reptile_step([([meta], 1.0)], 1, lambda index: meta.copy_(result))
    torch.testing.assert_close(meta, result)


def test_identical_tasks_are_one():
    def run(tasks: int) -> torch.Tensor:
        meta = torch.tensor([0.5, -3.0], dtype=torch.float64)
        reptile_step([([meta], 0.7)], tasks, lambda index: meta.mul_(1.5).add_(0.25))
        return meta

    torch.testing.assert_close(run(1), run(4))


def test_first_step_without_a_first_moment_has_the_size_of_the_rate():
    weight = torch.tensor([2.0, -0.3, 0.0005], requires_grad=True)
    gradient = torch.tensor([1e-2, 5.0, -1.0])
    step_on((weight * gradient).sum(), make_adam([weight], 0.01))
    expected = torch.tensor([2.0, -0.3, 0.0005]) - 0.01 * gradient.sign()
    torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)
    # L2 is folded into the gradient: here it turns its sign.
    weight = torch.tensor([2.0], requires_grad=True)
    step_on(-weight.sum(), make_adam([weight], 0.01, decay=1.0))
    assert weight.item() == pytest.approx(2.0 - 0.01, abs=1e-6)


def test_steps_are_those_of_adam_written_out():
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimiser = make_adam([weight], 0.01)
    slow, second = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for index in range(1, 8):
        gradient = 2 * slow * index
        second = 0.999 * second + 0.001 * gradient**2
        slow = slow - 0.01 * gradient / ((second / (1 - 0.999**index)).sqrt() + 1e-8)
        step_on((weight**2).sum() * index, optimiser)
    torch.testing.assert_close(weight.detach(), slow)


# Learning a task.


def test_architecture_starts_near_uniform():
    learner = make_tiny_learner()
    for mixture in learner.arch(1.0, 0.0).values():
        assert (mixture.operations - 1 / 7).abs().max() < 1e-3
    assert sum(tensor.numel() for tensor in learner.alpha_tensors) == 146


def test_gradient_of_the_architecture_is_at_the_current_weights():
    """The published commands take it at a copy of the first network: there it would not change."""
    learner, task = make_tiny_learner(), draw_task(0)

    def gradient() -> torch.Tensor:
        draws = make_generators(torch.device("cpu"), 0)
        loss = learner.loss(task.support, task.support_labels, learner.arch(1.0, 0.0), 0.0, 0.0, draws)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, learner.alpha_tensors)])

    before = gradient()
    learn(learner, architecture_steps=None)
    after = gradient()
    assert not torch.allclose(before, after, rtol=0.01)
    with torch.no_grad():
        learner.alphas["normal"].operations[:, 0] += 1
    assert not torch.allclose(after, gradient(), rtol=0.01)


def test_steps_are_of_architecture_and_weights_in_turn():
    learner, slow = make_tiny_learner(), make_tiny_learner()
    learn(learner, architecture_steps=3, steps=4)
    task, draws = draw_task(0), make_generators(torch.device("cpu"), 0)
    alpha_adam, weight_adam = make_adam(slow.alpha_tensors, 0.1, 1e-3), make_adam(slow.weights, 1e-3)
    both = (alpha_adam, weight_adam)
    for temperature, optimisers in ((1.0, both), (0.55, both), (0.1, both), (0.1, (weight_adam,))):
        for optimiser in optimisers:
            chosen = draw_batch(task.support_labels, 6, draws.batches)
            logits = slow.network(task.support[chosen], slow.arch(temperature, 0.0))
            step_on(functional.cross_entropy(logits, task.support_labels[chosen]), optimiser)
    assert equal(learner.weights, slow.weights)
    assert equal(learner.alpha_tensors, slow.alpha_tensors)


def test_warm_up_leaves_the_architecture_and_its_temperature():
    learner, slow = make_tiny_learner(), make_tiny_learner()
    alphas = snapshot(learner.alpha_tensors)
    learn(learner, architecture_steps=None)
    assert equal(learner.alpha_tensors, alphas)
    assert not equal(learner.weights, slow.weights)
    task, draws = draw_task(0), make_generators(torch.device("cpu"), 0)
    adam = make_adam(slow.weights, 1e-3)
    for _ in range(2):
        chosen = draw_batch(task.support_labels, 6, draws.batches)
        logits = slow.network(task.support[chosen], slow.arch(1.0, 0.0))
        step_on(functional.cross_entropy(logits, task.support_labels[chosen]), adam)
    assert equal(learner.weights, slow.weights)


def test_no_steps_move_nothing():
    learner = make_tiny_learner()
    before = learner.tensors()
    learn(learner, architecture_steps=0, steps=0)
    assert equal(list(before.values()), list(learner.tensors().values()))


def test_removed_operations_stay_removed():
    learner = make_tiny_learner()
    with torch.no_grad():
        learner.alphas["normal"].operations[:, 2] -= 1
    assert learner.remove_tiny() == 9  # exp(-1 / 0.1) is below 0.01
    pairs = snapshot([learner.alphas["normal"].pairs])
    alphas = [(learner.alpha_tensors, 0.6)]
    reptile_step(alphas, 2, lambda index: learn(learner, architecture_steps=2, key=index))
    assert (learner.alphas["normal"].operations[:, 2] == REMOVED).all()
    assert (learner.alphas["normal"].operations[:, 3] > -1).all()
    assert not equal(pairs, [learner.alphas["normal"].pairs])  # pairs are not removed
    assert learner.remove_tiny() >= 9


def test_tensors_are_all_that_is_learned():
    learner, other = make_tiny_learner(), make_tiny_learner(seed=1)
    learn(learner, architecture_steps=2)
    other.load_tensors(learner.tensors())
    for one in (learner, other):
        learn(one, architecture_steps=2, key=1)
    assert equal(list(learner.tensors().values()), list(other.tensors().values()))


@pytest.mark.slow
def test_adaptation_to_a_task_learns_it_and_leaves_no_trace():
    options = tiny(inner_lr=0.02)
    adaptation = Adaptation(inner_steps=16, inner_batch_size=12, threshold=0.05)
    problem = make_problem()
    learner = make_learner(options, problem.backbone.cells, problem.backbone.channels, 0, problem.device)
    task = draw_task(7, queries=4)
    before = learner.tensors()

    def adapt():
        draws = make_generators(torch.device("cpu"), "test")
        return adapt_to_task(learner, task.support, task.support_labels, task.query, adaptation, draws)

    first, second = adapt(), adapt()
    assert torch.equal(first.logits, second.logits)
    assert equal(list(before.values()), list(learner.tensors().values()))
    assert before.keys() == learner.tensors().keys()
    assert (first.logits.argmax(1) == task.query_labels).double().mean() > 0.8
    assert first.parameters < sum(weight.numel() for weight in learner.weights)


# Whole searches.


@pytest.fixture(scope="module")
def found() -> Found:
    return metanas.find(make_problem(), tiny(), 0, Memory())


@pytest.mark.slow
def test_search_finds_a_genotype(found):
    assert check_genotype(found.genotype) == found.genotype
    assert len(found.genotype["normal"]) == 3
    rows = found.trace[found.trace["event"] == "epoch"]
    assert list(rows["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert rows["entropy_normal"][:3].nunique() == 1  # warm-up
    assert rows["entropy_normal"].iloc[-1] < rows["entropy_normal"].iloc[0]
    assert list(found.trace.loc[found.trace["event"] == "removal", "epoch"]) == [5]
    # 3 meta-epochs of 2 tasks of 2 steps each, without and with steps of the architecture.
    assert found.costs["warm-up"].evaluations == 12
    assert found.costs["search"].evaluations == 24
    assert found.costs["search"].operations > found.costs["warm-up"].operations > 0
    assert json.loads(json.dumps(found.facts)) == found.facts
    assert set(found.arrays) >= {"weights.head.weight", "alphas.normal.pairs", "moments.alphas.reduce.operations"}


def test_operations_of_a_step_are_those_of_its_layers():
    """Forward, and as many again for each gradient: of a layer's weights and of its input; images have none.

    Average pooling is a convolution with ones.
    """
    learner, task = make_tiny_learner(), draw_task("counting")
    layers, of_images = [], []

    def note(module, images, output):
        weights = 9 * output.shape[1] if isinstance(module, AveragePool) else module.weight.numel()
        places = output[0, 0].numel() if output.ndim == 4 else 1
        gradients = images[0].requires_grad + (not isinstance(module, AveragePool))
        of_images.append(not images[0].requires_grad)
        layers.append((1 + gradients) * 2 * len(output) * places * weights)

    for module in learner.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | AveragePool):
            module.register_forward_hook(note)

    def loss():
        arch = learner.arch(1.0, 0.0)
        return learner.loss(
            task.support, task.support_labels, arch, 0.0, 0.0, make_generators(task.support.device, 0)
        )

    counted = flops.count_operations(lambda: torch.autograd.grad(loss(), learner.weights))
    assert counted == sum(layers)
    assert any(of_images)
    assert any(module.groups > 1 for module in learner.network.modules() if isinstance(module, nn.Conv2d))


def test_decoded_architecture_is_that_of_the_tensors(found):
    learner = make_tiny_learner(seed=5)
    learner.load_tensors(found.arrays)
    assert decode(learner) == found.genotype


@pytest.mark.slow
def test_search_in_the_other_space_and_the_stack_of_the_backbone():
    changes = {"space": "darts", "layout": "few-shot", "cells": None, "channels": None, "image_size": 8}
    options = tiny(**changes, epochs=1, warm_up_epochs=0, meta_batch_size=1)
    found = metanas.find(make_problem(), options, 0, Memory())
    assert len(check_genotype(found.genotype)["reduce"]) == 4
    assert found.facts["network"]["channels"] == [8, 16]


@pytest.mark.slow
def test_search_of_a_warm_up_alone_is_reptile_on_the_uniform_mixture():
    options = tiny(epochs=3, warm_up_epochs=2, drop_path_rate=0.0).model_copy(update={"epochs": 2})
    found = metanas.find(make_problem(), options, 0, Memory())
    slow = make_tiny_learner()
    arch = slow.arch(1.0, 0.01)
    arch = {kind: type(mixture)(*(t.detach() for t in mixture)) for kind, mixture in arch.items()}
    adam = make_adam(slow.weights, 1e-3)
    for epoch in range(2):
        meta, results = snapshot(slow.weights), []
        for index in range(2):
            task, draws = draw_task(0, epoch, index), make_generators(torch.device("cpu"), 0, epoch, index)
            for _ in range(2):
                chosen = draw_batch(task.support_labels, 6, draws.batches)
                logits = slow.network(task.support[chosen], arch)
                step_on(functional.cross_entropy(logits, task.support_labels[chosen]), adam)
            results.append(snapshot(slow.weights))
            with torch.no_grad():
                for weight, value in zip(slow.weights, meta, strict=True):
                    weight.copy_(value)
        with torch.no_grad():
            for weight, *values in zip(slow.weights, *results, strict=True):
                weight.copy_(sum(values) / 2)
    for name, weight in slow.network.named_parameters():
        torch.testing.assert_close(found.arrays[f"weights.{name}"], weight.detach(), rtol=1e-4, atol=1e-5)


def test_meta_lr_zero_leaves_the_architecture():
    found = metanas.find(make_problem(), tiny(arch_meta_lr=0.0, epochs=2, warm_up_epochs=1), 0, Memory())
    start = make_tiny_learner()
    for kind in CELL_TYPES:
        assert torch.equal(found.arrays[f"alphas.{kind}.operations"], start.alphas[kind].operations)
    assert found.arrays["moments.alphas.normal.operations"].any()  # tasks did move it


@pytest.mark.slow
def test_seeds_differ_and_repeat():
    options = tiny(epochs=2, warm_up_epochs=1)
    one, same, other = (metanas.find(make_problem(), options, seed, Memory()) for seed in (0, 0, 1))
    assert one.trace.equals(same.trace)
    assert not one.trace.equals(other.trace)


@pytest.mark.slow
def test_killed_search_ends_the_same(found):
    assert_resumes(metanas, tiny(), found, kills_at=[2, 2, 1])  # in the warm-up, after it, after the removal


def test_reduction_cells_are_in_the_stack():
    with pytest.raises(InputError, match=r"reductions \[1, 3\] are not among its 2 cells"):
        make_tiny_learner(reductions=[1, 3])


@pytest.mark.parametrize("epochs", [6, 7])
def test_a_warm_up_that_never_ends_is_refused(epochs):
    with pytest.raises(InputError, match=f"warm_up_epochs, {epochs}, is not below epochs, 6: the arch"):
        tiny(warm_up_epochs=epochs)


def test_classes_are_enough():
    with pytest.raises(InputError, match="training classes: 4 classes are too few for 5-way"):
        metanas.find(make_problem(), tiny(ways=5), 0, Memory())
