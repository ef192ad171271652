"""T-NAS and auto-MAML: pieces against published numbers and slow versions, and searches as small as they come."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_meta_search import Memory, assert_resumes, make_problem, make_split
from torch.nn import functional

from metantk.meta_learning.first_order import add_meta_gradient, descend
from metantk.meta_learning.reptile import snapshot
from metantk.options.base import parse
from metantk.runtime.files import DivergedError, InputError
from metantk.searches import pacing, t_nas
from metantk.searches.base import Found
from metantk.searches.decoding import decode_edges, to_genotype
from metantk.searches.t_nas import Options, halve, make_learner, validate
from metantk.searches.tasks import Task, TaskSource
from metantk.space.genotype import CELL_TYPES, SPACES, check_genotype
from metantk.space.mixed import NONE, T_NAS_SPACE

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "nas-rivals" / "cases.json").read_text())["tnas"]
TINY = {
    "channels": 4,
    "ways": 3,
    "shots": 2,
    "queries": 3,
    "epochs": 2,
    "steps_per_epoch": 2,
    "meta_batch_size": 2,
    "inner_steps": 2,
    "validation_episodes": 3,
    "validation_inner_steps": 2,
}


@pytest.fixture(autouse=True)
def always_keep(monkeypatch):
    monkeypatch.setattr(pacing, "SECONDS_BETWEEN", 0.0)


def tiny(**changes) -> Options:
    return parse(Options, TINY | changes, where="test")


def make_tiny_learner(**changes) -> t_nas.MetaLearner:
    problem = make_problem()
    return make_learner(tiny(**changes), problem.backbone.cells, problem.backbone.channels, 0, problem.device)


def make_tasks(indices: np.ndarray | None = None) -> TaskSource:
    problem = make_problem()
    return TaskSource(
        problem, problem.train, ways=3, shots=2, queries=3, image_size=None, where="test", indices=indices
    )


def test_rates_that_leave_no_operation_are_one_line():
    with pytest.raises(DivergedError, match="a node is left without an operation"):
        t_nas.find(make_problem(), tiny(inner_lr=1e30), 0, Memory())


@pytest.mark.parametrize(("layout", "smallest"), [("t-nas", 4), ("few-shot", 1)])
def test_images_that_poolings_leave_nothing_of_are_refused(layout, smallest):
    logits = make_tiny_learner(layout=layout).logits(torch.rand(2, 3, smallest, smallest))
    assert logits.isfinite().all()
    assert {need.side for need in tiny(layout=layout, image_size=None).needs} == {smallest}
    with pytest.raises(InputError, match="image_size"):
        tiny(layout=layout, image_size=smallest - 1)


def test_tasks_that_no_memory_holds_are_refused():
    with pytest.raises(InputError, match="meta_batch_size, shots, queries: a step takes 15000000000 images"):
        t_nas.find(make_problem(), tiny(meta_batch_size=10**9), 0, Memory())


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Pieces.


@pytest.mark.parametrize("case", CASES["fomaml_toy"], ids=["two-steps", "five-steps"])
def test_meta_gradient_is_the_published_first_order_one(case):
    weight = torch.tensor([case["w0"]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([case["theta0"]], dtype=torch.float64, requires_grad=True)

    def support() -> torch.Tensor:
        return 0.5 * (weight * theta - case["y_support"]).pow(2).sum()

    def query() -> torch.Tensor:
        return 0.5 * (weight * theta - case["y_query"]).pow(2).sum()

    groups = [([weight], case["alpha_inner"]), ([theta], case["beta_inner"])]
    for count in (1, 2):  # gradients of tasks add up
        loss = add_meta_gradient(support, query, groups, case["steps"], [weight, theta], share=0.5)
        assert weight.grad.item() == pytest.approx(0.5 * count * case["outer_grad_w"], abs=1e-8)
        assert theta.grad.item() == pytest.approx(0.5 * count * case["outer_grad_theta"], abs=1e-8)
        assert (weight.item(), theta.item()) == (case["w0"], case["theta0"])
    assert loss == pytest.approx(0.5 * (case["w_M"] * case["theta_M"] - case["y_query"]) ** 2, abs=1e-6)
    descend(support, groups, case["steps"])
    assert weight.item() == pytest.approx(case["w_M"], abs=1e-8)
    assert theta.item() == pytest.approx(case["theta_M"], abs=1e-8)


@pytest.mark.parametrize("case", CASES["decode"], ids=["published"])
def test_edges_are_decoded_as_published(case):
    nodes = {}
    for kind in CELL_TYPES:
        theta = torch.tensor(case[f"theta_{kind}"], dtype=torch.float64)
        nodes[kind] = decode_edges(theta.softmax(-1).numpy(), T_NAS_SPACE, excluded=NONE)
    assert to_genotype(nodes, T_NAS_SPACE) == case["genotype"]


def slow_decode(weights: np.ndarray, space, node: int) -> list:
    """Of all operations but none on all edges of a node, the best per edge; the two best of these."""
    found = [
        (max((w, name) for w, name in zip(weights[e], space.operations, strict=True) if name != NONE), edge.input)
        for e, edge in enumerate(space.edges)
        if edge.node == node
    ]
    return [[name, source] for (_, name), source in sorted(found, reverse=True)[:2]]


@pytest.mark.parametrize("space", [T_NAS_SPACE, SPACES["few-shot"]], ids=["t-nas", "few-shot"])
def test_decoding_is_that_of_a_slow_search_and_never_none(space):
    draws = np.random.default_rng(0)
    for _ in range(50):
        weights = draws.dirichlet([0.3] * len(space.operations), size=len(space.edges))
        weights[0, 0] = 1.5  # none, where there is one
        nodes = decode_edges(weights, space, excluded=NONE)
        assert nodes == [slow_decode(weights, space, node) for node in range(2, 2 + space.nodes)]
        assert NONE not in json.dumps(nodes)


# Meta-steps.


def slow_meta_step(learner: t_nas.MetaLearner, tasks: list[Task], rates: tuple[float, float]) -> None:
    """Written out: gradients by `backward`, functional copies of the weights, Adam's first step by hand."""
    names = [name for name, _ in learner.network.named_parameters()]
    total_w = [torch.zeros_like(w) for w in learner.weights]
    total_theta = [torch.zeros_like(t) for t in learner.thetas]
    for task in tasks:
        weights = [w.detach().clone() for w in learner.weights]
        thetas = [t.detach().clone() for t in learner.thetas]
        for step in range(learner.options.inner_steps + 1):
            is_last = step == learner.options.inner_steps
            images, labels = (task.query, task.query_labels) if is_last else (task.support, task.support_labels)
            for tensor in (*weights, *thetas):
                tensor.requires_grad_()
                tensor.grad = None
            arch = {
                kind: t_nas.softmax_mixture(theta, learner.network.space)
                for kind, theta in zip(CELL_TYPES, thetas, strict=True)
            }
            parameters = dict(zip(names, weights, strict=True))
            logits = torch.func.functional_call(learner.network, parameters, (images, arch))
            functional.cross_entropy(logits, labels).backward()
            if is_last:
                total_w = [a + w.grad / len(tasks) for a, w in zip(total_w, weights, strict=True)]
                total_theta = [a + t.grad / len(tasks) for a, t in zip(total_theta, thetas, strict=True)]
            else:
                weights = [(w - rates[0] * w.grad).detach() for w in weights]
                thetas = [(t - rates[1] * t.grad).detach() for t in thetas]
    with torch.no_grad():
        for tensors, gradients, rate, decay in (
            (learner.weights, total_w, learner.weight_optimiser.param_groups[0]["lr"], 0),
            (learner.thetas, total_theta, learner.theta_optimiser.param_groups[0]["lr"], 1e-3),
        ):
            for tensor, gradient in zip(tensors, gradients, strict=True):
                gradient = gradient + decay * tensor
                tensor -= rate * gradient / (gradient.abs() + 1e-8)


def to_double(learner: t_nas.MetaLearner) -> t_nas.MetaLearner:
    theta = {kind: value.detach().double().requires_grad_() for kind, value in learner.theta.items()}
    return t_nas.MetaLearner(learner.network.double(), theta, learner.options)


@pytest.mark.slow
@pytest.mark.parametrize("arch_inner_lr", [0.0, 30.0])
def test_meta_step_is_the_one_written_out(arch_inner_lr):
    tasks = [make_tasks().draw(index) for index in range(2)]
    tasks = [Task(t.support.double(), t.support_labels, t.query.double(), t.query_labels) for t in tasks]
    fast, slow = (to_double(make_tiny_learner(arch_inner_lr=arch_inner_lr)) for _ in range(2))
    fast.meta_step(tasks, fast.optimisers)
    slow_meta_step(slow, tasks, (0.1, arch_inner_lr))
    for one, other in zip([*fast.weights, *fast.thetas], [*slow.weights, *slow.thetas], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)  # of steps of 1e-3


@pytest.mark.slow
def test_without_rates_of_the_architecture_it_is_plain_maml():
    """Rates of zero and an architecture that is no parameter at all give the same weights."""
    tasks = [make_tasks().draw(index) for index in range(2)]
    joint = make_tiny_learner(arch_inner_lr=0.0, arch_meta_lr=0.0)
    plain = make_tiny_learner()
    thetas = snapshot(joint.thetas)
    arch = {kind: t_nas.softmax_mixture(theta.detach(), plain.network.space) for kind, theta in plain.theta.items()}
    for _ in range(2):
        joint.meta_step(tasks, joint.optimisers)
        meta = snapshot(plain.weights)
        sums = [torch.zeros_like(weight) for weight in meta]
        for task in tasks:
            optimiser = torch.optim.SGD(plain.weights, lr=0.1)
            for _ in range(2):
                optimiser.zero_grad()
                functional.cross_entropy(plain.network(task.support, arch), task.support_labels).backward()
                optimiser.step()
            optimiser.zero_grad()
            functional.cross_entropy(plain.network(task.query, arch), task.query_labels).backward()
            with torch.no_grad():
                for total, weight, value in zip(sums, plain.weights, meta, strict=True):
                    total += weight.grad / 2
                    weight.copy_(value)
        for weight, total in zip(plain.weights, sums, strict=True):
            weight.grad = total
        plain.weight_optimiser.step()
    assert equal(joint.thetas, thetas)
    for one, other in zip(joint.weights, plain.weights, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


def test_adaptation_is_undone_to_the_last_bit():
    learner, task = make_tiny_learner(), make_tasks().draw(0)
    before = learner.tensors()
    with learner.adapted(task, 3):
        during = learner.tensors()
    after = learner.tensors()
    assert equal(list(before.values()), list(after.values()))
    assert not any(torch.equal(before[f"theta.{kind}"], during[f"theta.{kind}"]) for kind in CELL_TYPES)
    with pytest.raises(KeyError), learner.adapted(task, 1):
        raise KeyError
    assert equal(list(before.values()), list(learner.tensors().values()))


def test_auto_maml_moves_the_architecture_between_tasks_only():
    learner, task = make_tiny_learner(variant="auto-maml"), make_tasks().draw(0)
    before = learner.tensors()
    with learner.adapted(task, 2):
        assert equal([before["theta.normal"]], [learner.theta["normal"]])
        assert not torch.equal(before["weights.head.weight"], learner.network.head.weight)
        gradients = torch.autograd.grad(learner.query_loss(task)(), learner.thetas)
    learner.meta_step([task], [learner.theta_optimiser])
    assert all(torch.equal(before[f"weights.{n}"], w) for n, w in learner.network.named_parameters())
    for kind, gradient in zip(CELL_TYPES, gradients, strict=True):
        # The gradient is taken at the adapted weights; Adam's first step has the size of its rate.
        gradient = gradient + 1e-3 * before[f"theta.{kind}"]
        expected = before[f"theta.{kind}"] - 3e-4 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(learner.theta[kind].detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_large_steps_of_the_architecture_decode_more_genotypes():
    counts = {}
    for rate in (0.003, 30.0):
        learner = make_tiny_learner(arch_inner_lr=rate, validation_episodes=6)
        with torch.no_grad():  # as if trained: operations differ by more than rounding
            for theta in learner.thetas:
                theta.mul_(100)
        _, counts[rate] = validate(learner, make_tasks(), 0)
    assert counts[0.003] == 1 < counts[30.0] <= 6


def test_halves_share_no_image_and_split_every_class():
    labels = make_split(0, classes=5, images_per_class=7).labels
    one, other = halve(labels, 0)
    assert sorted([*one, *other]) == list(range(35))
    assert np.bincount(labels[one]).tolist() == [4] * 5
    assert halve(labels, 0)[0].tolist() == one.tolist()
    assert halve(labels, 1)[0].tolist() != one.tolist()


def test_tasks_of_a_half_use_only_its_images():
    split = make_problem().train
    one, _ = halve(split.labels, 0)
    tasks = make_tasks(one)
    images = {split.images[index].tobytes() for index in one}
    for key in range(5):
        task = tasks.draw(key)
        raw = torch.cat([task.support, task.query]).mul(0.25).add(0.5).mul(255).round().to(torch.uint8)
        assert all(image.permute(1, 2, 0).numpy().tobytes() in images for image in raw)
        # Class by class, and support and query agree on which class is which.
        means = [raw[:6].float().view(3, 2, -1).mean((1, 2)), raw[6:].float().view(3, 3, -1).mean((1, 2))]
        torch.testing.assert_close(means[0], means[1], atol=6, rtol=0)


# Whole searches.


@pytest.fixture(scope="module")
def found() -> Found:
    return t_nas.find(make_problem(), tiny(), 0, Memory())


@pytest.mark.slow
def test_search_finds_the_genotype_of_the_best_epoch(found):
    assert check_genotype(found.genotype) == found.genotype
    assert len(found.genotype["normal"]) == 3
    assert list(found.trace["epoch"]) == [1, 2]
    best = found.trace["accuracy"].argmax()
    assert found.trace["best"].tolist() == [True, bool(best == 1)]
    assert found.trace["genotypes"].between(1, 3).all()
    # 2 epochs of 4 tasks of 2 steps and the queries; of 3 validation tasks.
    assert found.costs["training"].evaluations == 2 * 4 * 3
    assert found.costs["validation"].evaluations == 2 * 3 * 3
    assert found.costs["training"].operations > found.costs["validation"].operations > 0
    learner = make_tiny_learner()
    learner.load_tensors(found.arrays)
    assert learner.genotype() == found.genotype
    assert json.loads(json.dumps(found.facts)) == found.facts


@pytest.mark.slow
def test_killed_search_ends_the_same(found):
    assert_resumes(t_nas, tiny(), found, kills_at=[1, 2, 1])  # in an epoch, after its validation, in the next


@pytest.mark.slow
def test_auto_maml_shares_one_genotype():
    options = tiny(
        variant="auto-maml",
        space="darts",
        epochs=1,
        inner_steps=1,
        steps_per_epoch=2,
        meta_batch_size=1,
        validation_episodes=1,
    )
    found = t_nas.find(make_problem(), options, 0, Memory())
    assert found.trace["genotypes"].tolist() == [1]
    assert found.costs["training"].evaluations == 2 * 2 * 2  # tasks of theta and of w
    assert len(check_genotype(found.genotype)["normal"]) == 4
    assert_resumes(t_nas, options, found, kills_at=[1])


@pytest.mark.slow
def test_search_in_the_stack_of_the_backbone():
    options = tiny(layout="few-shot", channels=None, image_size=8, epochs=1, steps_per_epoch=1)
    found = t_nas.find(make_problem(), options, 0, Memory())
    assert found.facts["network"]["channels"] == [8, 16]
