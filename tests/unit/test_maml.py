"""MAML, ANIL, NIL, Reptile and the parts of MAML++, compared with published values and with obvious loops."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.backbones.cells import stack
from metantk.learners.maml import (
    initial_rates,
    multi_step_weights,
    nil_scores,
    predict,
    tasks_loss,
)
from metantk.learners.reptile import inner_optimiser, reptile_displacement
from metantk.meta_learning.adaptation import StepNorms, adapted_names
from metantk.meta_learning.schedules import cosine_rate
from metantk.runtime.files import InputError
from metantk.space.genotype import check_genotype

FIXTURES = Path(__file__).parents[1] / "fixtures"
GENOTYPE = check_genotype(
    json.loads((FIXTURES / "published_genotypes.json").read_text())["architectures"][0]["genotype"]
)
INNERS = [
    {"adapt": "all"},
    {"adapt": "all but norms"},
    {"adapt": "head"},
    {"adapt": "head", "joint_statistics": True},
    {"adapt": "all", "first_order": True},
    {"adapt": "head", "first_order": True},
]


def task_loss(network: nn.Module, *task: Tensor, **options) -> Tensor:
    """`tasks_loss` of one task, given without the axis of tasks."""
    losses, _ = tasks_loss(network, *(part[None] for part in task), **options)
    return losses[0]


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, epsilon: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels, eps=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(functional.relu(self.bn(self.conv(x))), 2)


class Conv4(nn.Module):
    """The network of the fixtures, with their names."""

    def __init__(self, channels: int, *, side: int, ways: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        for index in range(1, 5):
            setattr(self, f"block{index}", Block(3 if index == 1 else channels, channels, epsilon))
        self.head = nn.Linear(channels * (side // 16) ** 2, ways)

    def features(self, images: Tensor) -> Tensor:
        return self.block4(self.block3(self.block2(self.block1(images)))).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Plain(nn.Module):
    """One convolution without pooling, group normalisation, tanh: small enough to write out by hand."""

    def __init__(self, ways: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, bias=False)
        self.norm = nn.GroupNorm(2, 6)
        self.head = nn.Linear(6, ways)

    def features(self, images: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(images))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def by_hand(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """`Plain` as a function of its weights."""
    x = functional.conv2d(images, weights["conv.weight"], stride=2)
    x = functional.group_norm(x, 2, weights["norm.weight"], weights["norm.bias"])
    return functional.linear(torch.tanh(x).mean((2, 3)), weights["head.weight"], weights["head.bias"])


def make(kind: str, ways: int = 3, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with weights of its own: scales and offsets away from 1 and 0."""
    torch.manual_seed(3)
    match kind:
        case "conv4":
            network = Conv4(4, side=16, ways=ways)
        case "cells":
            network = stack(GENOTYPE, cells=3, channels=4, classes=ways)
        case "plain":
            network = Plain(ways)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.to(dtype)


def draw(
    tasks: int, *, ways: int = 3, shots: int = 2, queries: int = 3, side: int = 16, dtype=torch.float64
) -> tuple:
    """Supports, labels, queries, labels; each class has a colour, and no two tasks are alike."""
    random = torch.Generator().manual_seed(5)
    parts = []
    for count in (shots, queries):
        labels = torch.stack([torch.arange(ways).repeat_interleave(count)] * tasks)
        labels = torch.stack([row[torch.randperm(len(row), generator=random)] for row in labels])
        images = torch.rand(*labels.shape, 3, side, side, generator=random, dtype=dtype)
        images[:, :, 0] += 0.2 * labels[..., None, None]
        parts += [images, labels]
    return tuple(parts)


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def fixture(name: str) -> dict[str, Tensor]:
    arrays = np.load(FIXTURES / "rivals" / f"{name}_seed0.npz")
    tensors = {key: torch.from_numpy(arrays[key]) for key in arrays}
    return {key: value.double() if value.is_floating_point() else value.long() for key, value in tensors.items()}


def published(arrays: dict[str, Tensor], epsilon: float = 1e-5) -> tuple[Conv4, tuple]:
    network = Conv4(4, side=28, ways=3, epsilon=epsilon).double()
    weights = {key.removeprefix("param/"): value for key, value in arrays.items() if key.startswith("param/")}
    missing = network.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all("running" in key or "num_batches" in key for key in missing.missing_keys)
    return network, tuple(arrays[key] for key in ("support", "support_labels", "query", "query_labels"))


MAML, ANIL = fixture("maml"), fixture("anil")
CASES = [
    (name, key.removesuffix("/query_loss"))
    for name, arrays in (("maml", MAML), ("anil", ANIL))
    for key in arrays
    if key.endswith("/query_loss")
]


@pytest.mark.parametrize(("name", "case"), CASES, ids=lambda value: value)
def test_losses_and_outer_gradients_are_the_published_ones(name, case):
    arrays = {"maml": MAML, "anil": ANIL}[name]
    variant, context, order = case.split("/")
    steps, rate = context.removeprefix("steps").split("_lr")
    network, task = published(arrays, epsilon=1e-3 if variant == "finn" else 1e-5)
    inner = {
        "affine": {"adapt": "all"},
        "affine_bn_outer_only": {"adapt": "all but norms"},
        "finn": {"adapt": "all but norms"},
        "joint": {"adapt": "head", "joint_statistics": True},
        "separate": {"adapt": "head"},
    }[variant]
    if variant == "finn":  # no scales, and an inner loss that is the sum over the shots: `ways` times the mean
        for block in (network.block1, network.block2, network.block3, network.block4):
            nn.init.ones_(block.bn.weight)
    losses, logits = tasks_loss(
        network,
        *(part[None] for part in task),
        steps=int(steps),
        rate=float(rate) * (3 if variant == "finn" else 1),
        first_order=order == "first",
        **inner,
    )
    torch.testing.assert_close(losses[0], arrays[f"{case}/query_loss"], rtol=0, atol=1e-8)
    torch.testing.assert_close(logits[0], arrays[f"{case}/query_logits"], rtol=0, atol=1e-8)
    found = gradients(network, losses[0])
    compared = 0
    for key, parameter in found.items():
        if f"{case}/grad/{key}" in arrays:
            torch.testing.assert_close(parameter, arrays[f"{case}/grad/{key}"], rtol=0, atol=1e-8)
            compared += 1
    assert compared == len(found) - (4 if variant == "finn" else 0)


def test_orders_differ_and_norms_have_an_outer_gradient_without_being_adapted():
    network, (task,) = make("conv4"), zip(*draw(1), strict=True)
    found = [
        gradients(network, task_loss(network, *task, steps=3, rate=0.2, adapt="all but norms", first_order=order))
        for order in (False, True)
    ]
    assert all((found[0][key] - found[1][key]).abs().max() > 1e-4 for key in found[0] if ".conv.bias" not in key)
    assert all(found[0][key].abs().max() > 1e-4 for key in found[0] if ".bn." in key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("adapt", ["all", "all but norms", "head"])
def test_another_network_agrees_with_an_obvious_loop(adapt, first_order, dtype):
    network = make("plain", dtype=dtype)
    task = [part[0] for part in draw(1, side=9, dtype=dtype)]
    fixed = {"all": (), "all but norms": ("norm.weight", "norm.bias"), "head": ("conv.", "norm.")}[adapt]
    start = dict(network.named_parameters())
    weights, expected_logits = dict(start), []
    for _ in range(4):
        moving = [name for name in weights if not name.startswith(fixed)]
        loss = functional.cross_entropy(by_hand(weights, task[0]), task[1])
        slopes = torch.autograd.grad(loss, [weights[name] for name in moving], create_graph=True)
        for name, slope in zip(moving, slopes, strict=True):
            weights[name] = weights[name] - 0.3 * (slope.detach() if first_order else slope)
        expected_logits.append(by_hand(weights, task[2]))
    scale = torch.tensor([0.1, 0.2, 0.0, 0.7], dtype=dtype)
    each = [functional.cross_entropy(logits, task[3]) for logits in expected_logits]
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype is torch.float32 else 1e-14}
    for step_weights, expected in (
        (None, each[-1]),
        (scale, sum(w * loss for w, loss in zip(scale, each, strict=True))),
    ):
        expected_gradient = torch.autograd.grad(expected, list(start.values()), retain_graph=True)
        loss = task_loss(
            network, *task, steps=4, rate=0.3, adapt=adapt, first_order=first_order, step_weights=step_weights
        )
        torch.testing.assert_close(loss, expected, **tolerance)
        found = gradients(network, loss)
        for name, gradient in zip(start, expected_gradient, strict=True):
            torch.testing.assert_close(found[name], gradient, **tolerance)


@pytest.mark.parametrize("inner", INNERS[:4], ids=str)
@pytest.mark.parametrize("kind", ["conv4", "plain"])
def test_outer_gradient_agrees_with_finite_differences(kind, inner):
    network, (task,) = make(kind), zip(*draw(1), strict=True)
    found = gradients(network, task_loss(network, *task, steps=3, rate=0.2, **inner))
    random = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(g.shape, generator=random, dtype=g.dtype) for name, g in found.items()}
    slope = sum((found[name] * direction[name]).sum() for name in found)
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        for name, parameter in moved.named_parameters():
            # A small step: inner gradients jump where a ReLU switches, so that the outer loss does too.
            parameter.data += sign * 1e-8 * direction[name]
        losses.append(task_loss(moved, *task, steps=3, rate=0.2, **inner).item())
    assert (losses[0] - losses[1]) / 2e-8 == pytest.approx(slope.item(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv4", "cells"])
@pytest.mark.parametrize("inner", INNERS, ids=str)
def test_tasks_equal_adapted_copies_one_by_one(kind, inner):
    network, batch = make(kind), draw(3)
    losses, logits = tasks_loss(network, *batch, steps=2, rate=0.2, **inner)
    found = gradients(network, losses.mean())
    adapted = adapted_names(network, inner["adapt"])
    total = {name: torch.zeros_like(gradient) for name, gradient in found.items()}
    for index, task in enumerate(zip(*batch, strict=True)):
        support, labels, query, query_labels = task
        own = make(kind)
        joint = "joint_statistics" in inner
        for _ in range(2):
            own.zero_grad()
            images = torch.cat([support, query]) if joint else support
            functional.cross_entropy(own(images)[: len(support)], labels).backward()
            for name, parameter in own.named_parameters():
                parameter.data -= (name in adapted) * 0.2 * parameter.grad
        answers = own(torch.cat([support, query]) if joint else query)[-len(query) :]
        loss = functional.cross_entropy(answers, query_labels)
        torch.testing.assert_close(logits[index], answers, rtol=0, atol=1e-10)
        torch.testing.assert_close(losses[index], loss, rtol=0, atol=1e-10)
        if "first_order" not in inner:  # at first order the outer gradient is the adapted copy's own
            own = make(kind)
            loss = task_loss(own, *task, steps=2, rate=0.2, **inner)
        for name, gradient in gradients(own, loss).items():
            total[name] += gradient / 3
    torch.testing.assert_close(found, total, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["conv4", "cells"])
def test_running_averages_are_the_mean_of_what_each_task_makes_of_them(kind):
    network, batch = make(kind), draw(3)
    expected = []
    for support, labels, query, _ in zip(*batch, strict=True):
        own = copy.deepcopy(network)  # an ordinary module that trains by ordinary steps
        for _ in range(2):
            own.zero_grad()
            functional.cross_entropy(own(support), labels).backward()
            for parameter in own.parameters():
                parameter.data -= 0.2 * parameter.grad
        own(query)
        expected.append(dict(own.named_buffers()))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    tasks_loss(network, *batch, steps=2, rate=0.2)
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == before[name] + 3
        else:
            torch.testing.assert_close(buffer, sum(own[name] for own in expected) / 3)
            assert (buffer - before[name]).abs().max() > 1e-3
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    tasks_loss(network.eval(), *batch, steps=2, rate=0.2)
    torch.testing.assert_close(dict(network.named_buffers()), kept, rtol=0, atol=0)


def test_the_head_alone_moves_inside():
    """The adapted answers are those of the unadapted features, and the body is read once for the supports."""
    network, (task,) = make("conv4"), zip(*draw(1), strict=True)
    support, labels, query, _ = task
    passes = []
    network.block1.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    _, logits = tasks_loss(network, *(part[None] for part in task), steps=5, rate=0.5, adapt="head")
    assert passes == [len(support), len(query)]
    features, asked = network.features(support).detach(), network.features(query).detach()
    head = copy.deepcopy(network.head)
    for _ in range(5):
        head.zero_grad()
        functional.cross_entropy(head(features), labels).backward()
        for parameter in head.parameters():
            parameter.data -= 0.5 * parameter.grad
    torch.testing.assert_close(logits[0], head(asked), rtol=0, atol=1e-12)
    assert adapted_names(network, "head") == ["head.weight", "head.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("transductive", [True, False])
@pytest.mark.parametrize("inner", INNERS[:4], ids=str)
@pytest.mark.parametrize(("kind", "threads"), [("conv4", 1), ("conv4", 2), ("conv4", 3), ("cells", 2)])
def test_predictions_are_those_of_a_copy_that_trains(kind, inner, transductive, threads):
    network = make(kind)
    batch = draw(5, shots=1, queries=4)
    tasks_loss(network, *batch, steps=2, rate=0.2)  # running averages away from 0 and 1
    network.train(not transductive)  # the mode is the caller's: what counts is the argument
    before = copy.deepcopy(network.state_dict())
    inner = {"steps": 3, "rate": 0.5, **inner}
    adapted = adapted_names(network, inner["adapt"])
    expected = []
    for support, labels, query, _ in zip(*batch, strict=True):
        own = copy.deepcopy(network).train(transductive)
        for _ in range(3):
            own.zero_grad()
            images = torch.cat([support, query]) if "joint_statistics" in inner else support
            functional.cross_entropy(own(images)[: len(support)], labels).backward()
            for name, parameter in own.named_parameters():
                parameter.data -= (name in adapted) * 0.5 * parameter.grad
        images = torch.cat([support, query]) if "joint_statistics" in inner else query
        expected.append(own(images)[-len(query) :].argmax(1))
    given = {"transductive": transductive, **inner}
    had = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        predictions = predict(network, *batch[:3], **given)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(had)
    assert predictions.dtype == torch.int64
    assert torch.equal(predictions, torch.stack(expected))
    assert network.training != transductive
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_predictions_keep_no_graph_of_earlier_steps():
    """What autograd saves in each step is freed before the next one: as much for 2 steps as for 6."""
    network, batch = make("conv4"), draw(1)

    def peak(steps: int) -> int:
        alive = 0
        most = 0

        class Saved:
            def __init__(self, tensor: Tensor) -> None:
                nonlocal alive, most
                self.tensor = tensor
                alive += tensor.numel()
                most = max(most, alive)

            def __del__(self) -> None:
                nonlocal alive
                alive -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            predict(network, *batch[:3], steps=steps, rate=0.1)
        return most

    kept = [peak(2), peak(6)]
    assert kept[0] > 0
    assert kept[0] == kept[1]


def test_nil_scores_are_the_published_ones():
    network, (support, labels, query, _) = published(ANIL)
    features, asked = network.features(support), network.features(query)
    raw = nil_scores(features, labels, asked, ways=3)
    torch.testing.assert_close(raw, ANIL["nil/scores_raw"], rtol=0, atol=1e-8)
    soft = nil_scores(features, labels, asked, ways=3, softmax=True)
    torch.testing.assert_close(soft, ANIL["nil/scores_softmax"], rtol=0, atol=1e-8)
    many = nil_scores(features.expand(2, -1, -1), labels.expand(2, -1), asked.expand(2, -1, -1), ways=3)
    torch.testing.assert_close(many, torch.stack([raw, raw]))


def test_learn_inner_lr_equal_one_rate_and_their_gradient_finite_differences():
    network, (task,) = make("conv4"), zip(*draw(1), strict=True)
    rates = initial_rates(network, steps=3, rate=0.2, adapt="all but norms")
    assert set(rates) == set(adapted_names(network, "all but norms"))
    inner = {"steps": 3, "adapt": "all but norms"}
    for first_order in (False, True):
        loss = task_loss(network, *task, rate=rates, first_order=first_order, **inner)
        torch.testing.assert_close(loss, task_loss(network, *task, rate=0.2, **inner), rtol=0, atol=1e-14)
    loss = task_loss(network, *task, rate=rates, **inner)
    slopes = torch.autograd.grad(loss, list(rates.values()))
    for name, slope in zip(rates, slopes, strict=True):
        if name.endswith("conv.bias"):
            continue  # batch normalisation takes it away: no slope
        for step in range(3):
            losses = []
            for sign in (1, -1):
                moved = {key: value.detach().clone() for key, value in rates.items()}
                moved[name][step] += sign * 1e-5
                losses.append(task_loss(network, *task, rate=moved, **inner).item())
            assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope[step].item(), rel=1e-4, abs=1e-9)


class Normed(nn.Module):
    """A convolution, batch normalisation, a head."""

    def __init__(self, ways: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, ways)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bn(self.conv(images))).mean((2, 3)))


def make_per_step_batch_norm(network: nn.Module, steps: int) -> StepNorms:
    """With a scale, an offset and averages of its own for each step."""
    norms, random = StepNorms(network, steps), torch.Generator().manual_seed(1)
    for tensor in (*norms.learned.values(), *norms.averages.buffers()):
        tensor.data += 0.3 * torch.rand(tensor.shape, generator=random, dtype=tensor.dtype)
    return norms


def normed_by_hand(weights: dict, scales: Tensor, offsets: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of `Normed`, and the mean and the unbiased variance of the batch."""
    x = functional.conv2d(images, weights["conv.weight"], stride=2)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    unbiased = x.var((0, 2, 3))
    x = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    x = torch.tanh(x * scales[:, None, None] + offsets[:, None, None]).mean((2, 3))
    return functional.linear(x, weights["head.weight"], weights["head.bias"]), mean.detach(), unbiased.detach()


@pytest.mark.parametrize("first_order", [False, True])
def test_norms_of_each_step_agree_with_an_obvious_loop(first_order):
    """Step s takes its supports by the norms of number s; so do the queries that are answered after it."""
    torch.manual_seed(3)
    network, batch, steps = Normed(3).double(), draw(2, side=9), 3
    norms = make_per_step_batch_norm(network, steps)
    scale = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    start = {name: value for name, value in network.named_parameters() if not name.startswith("bn.")}
    scales, offsets = norms.learned["bn|weight"], norms.learned["bn|bias"]
    losses, averages = [], []
    for support, labels, query, query_labels in zip(*batch, strict=True):
        weights, total = dict(start), 0.0
        means, variances = (getattr(norms.averages, f"bn|running_{kind}").clone() for kind in ("mean", "var"))

        def answer(images, step, weights, means=means, variances=variances):
            logits, mean, variance = normed_by_hand(weights, scales[step], offsets[step], images)
            means[step] = 0.9 * means[step] + 0.1 * mean
            variances[step] = 0.9 * variances[step] + 0.1 * variance
            return logits

        for step in range(steps):
            loss = functional.cross_entropy(answer(support, step, weights), labels)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            for name, slope in zip(weights, slopes, strict=True):
                weights[name] = weights[name] - 0.4 * (slope.detach() if first_order else slope)
            total = total + scale[step] * functional.cross_entropy(answer(query, step, weights), query_labels)
        losses.append(total)
        averages.append((means, variances))
    inner = {"steps": steps, "rate": 0.4, "adapt": "all but norms", "first_order": first_order}
    found, _ = tasks_loss(network, *batch, **inner, step_weights=scale, norms=norms)
    torch.testing.assert_close(found, torch.stack(losses), rtol=0, atol=1e-12)
    learned = [*start.values(), scales, offsets]
    expected = torch.autograd.grad(sum(losses), learned)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), learned), expected, rtol=0, atol=1e-12)
    assert all((slope[step] != 0).any() for slope in expected[-2:] for step in range(steps))
    for kind, each in zip(("mean", "var"), zip(*averages, strict=True), strict=True):
        torch.testing.assert_close(getattr(norms.averages, f"bn|running_{kind}"), sum(each) / 2)


@pytest.mark.parametrize("transductive", [True, False])
def test_predictions_take_the_norms_of_each_step(transductive):
    network, batch = make("conv4"), draw(3)
    norms, inner = make_per_step_batch_norm(network, 2), {"steps": 2, "rate": 0.4, "adapt": "all but norms"}
    kept = copy.deepcopy(norms)
    named = predict(network, *batch[:3], **inner, transductive=transductive, norms=norms)
    torch.testing.assert_close(norms.state_dict(), kept.state_dict(), rtol=0, atol=0)
    _, logits = tasks_loss(network.train(transductive), *batch, **inner, norms=norms)
    assert torch.equal(named, logits.argmax(-1))
    _, other = tasks_loss(network, *batch, **inner)
    assert (other - logits).abs().max() > 0.01


def test_norms_of_steps_that_begin_as_the_networks_own_change_nothing():
    network, batch = make("cells"), draw(2)
    inner = {"steps": 1, "rate": 0.2, "adapt": "all but norms"}
    own, _ = tasks_loss(network, *batch, **inner)
    apart, _ = tasks_loss(network, *batch, **inner, norms=StepNorms(network, 1))
    torch.testing.assert_close(apart, own, rtol=0, atol=0)


def test_norms_of_steps_that_do_not_fit_are_refused():
    network, batch = make("conv4"), draw(1)
    with pytest.raises(InputError, match="norms of 2 steps for 3"):
        tasks_loss(network, *batch, steps=3, rate=0.2, adapt="all but norms", norms=StepNorms(network, 2))
    with pytest.raises(InputError, match="need adapt 'all but norms', found 'all'"):
        tasks_loss(network, *batch, steps=1, rate=0.2, adapt="all", norms=StepNorms(network, 2))


def test_weights_of_steps_fall_from_equal_to_the_last_alone():
    torch.testing.assert_close(multi_step_weights(0, steps=5, epochs=10), torch.full((5,), 0.2).double())
    halfway = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6], dtype=torch.float64)
    torch.testing.assert_close(multi_step_weights(5, steps=5, epochs=10), halfway)
    floor = torch.tensor([0.006] * 4 + [0.976], dtype=torch.float64)
    torch.testing.assert_close(multi_step_weights(97, steps=5, epochs=100), floor)
    torch.testing.assert_close(multi_step_weights(99, steps=5, epochs=100), floor)
    assert multi_step_weights(10, steps=5, epochs=10).tolist() == [0, 0, 0, 0, 1]
    assert multi_step_weights(0, steps=1, epochs=10).tolist() == [1]


def test_cosine_rate_is_that_of_pytorch():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 7, eta_min=0.01)
    for epoch in range(8):
        assert cosine_rate(epoch, steps=7, rate=0.3, last=0.01) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert math.isclose(cosine_rate(7, steps=7, rate=0.3), 0, abs_tol=1e-16)
    halves = [cosine_rate(step, steps=4, rate=2.0) for step in range(5)]
    assert halves == pytest.approx([2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0])


def minibatches(tasks: int, steps: int) -> tuple[Tensor, Tensor]:
    support, labels, _, _ = draw(tasks * steps)
    return support.unflatten(0, (tasks, steps)), labels.unflatten(0, (tasks, steps))


def outer_step(network: nn.Module) -> dict[str, Tensor]:
    """The state after plain SGD of rate 1 on what `.grad` holds."""
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    return network.state_dict()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_reptile_moves_to_the_mean_of_the_trained_networks(name):
    images, labels = minibatches(3, 4)
    network = make("conv4")
    trained = []
    for task in range(3):
        own = make("conv4")
        optimiser = (
            torch.optim.SGD(own.parameters(), lr=0.05)
            if name == "sgd"
            else torch.optim.Adam(own.parameters(), lr=0.05, betas=(0.0, 0.999))
        )
        for step in range(4):
            optimiser.zero_grad()
            functional.cross_entropy(own(images[task, step]), labels[task, step]).backward()
            optimiser.step()
        trained.append(own.state_dict())
    before = copy.deepcopy(network.state_dict())
    losses, correct = reptile_displacement(network, images, labels, inner_optimiser(network, name, rate=0.05))
    averages = {key for key in before if "running" in key}
    assert averages
    for key, value in network.state_dict().items():
        if key in averages:
            torch.testing.assert_close(value, sum(own[key] for own in trained) / 3)
        else:
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert losses.shape == correct.shape == (3, 4)
    named = network(images[2, 0]).argmax(1)
    assert correct[2, 0] == (named == labels[2, 0]).sum()
    expected = functional.cross_entropy(network(images[2, 0]), labels[2, 0])
    torch.testing.assert_close(losses[2, 0], expected.detach())
    after = outer_step(network)
    for key in trained[0]:
        if "running" in key or key.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(after[key], sum(own[key].detach() for own in trained) / 3)
        assert key.endswith("conv.bias") or (after[key] - before[key]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_reptile_with_one_task_with_alike_tasks_and_without_steps(name):
    images, labels = minibatches(1, 3)
    one, alike, still = make("conv4"), make("conv4"), make("conv4")
    reptile_displacement(one, images, labels, inner_optimiser(one, name, rate=0.05))
    optimiser = inner_optimiser(alike, name, rate=0.05)
    reptile_displacement(alike, images.expand(4, *images.shape[1:]), labels.expand(4, -1, -1), optimiser)
    before = copy.deepcopy(still.state_dict())
    losses, correct = reptile_displacement(
        still, images[:, :0], labels[:, :0], inner_optimiser(still, name, rate=0.05)
    )
    assert losses.shape == correct.shape == (1, 0)
    torch.testing.assert_close(outer_step(one), outer_step(alike))
    torch.testing.assert_close(outer_step(still), before, rtol=0, atol=0)


def test_moments_pass_from_task_to_task_only_if_kept():
    images, labels = minibatches(1, 2)
    both = images.expand(2, *images.shape[1:]), labels.expand(2, -1, -1)
    found = []
    for keep in (False, True):
        network = make("conv4")
        reptile_displacement(network, *both, inner_optimiser(network, "adam", rate=0.05), keep_moments=keep)
        found.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ({"adapt": "body"}, "adapt is 'body'"),
        ({"steps": -1}, "steps is -1"),
        ({"joint_statistics": True}, "joint_statistics needs adapt 'head'"),
        ({"rate": {}}, "no entry for parameter block1.conv.weight"),
        ({"step_weights": torch.ones(3)}, "step_weights has 3 entries for 2 steps"),
    ],
)
def test_bad_input_is_refused(inner, message):
    with pytest.raises(InputError, match=message):
        tasks_loss(make("conv4"), *draw(1), **{"steps": 2, "rate": 0.1, **inner})


def test_too_few_learn_inner_lr_are_refused():
    network = make("conv4")
    rates = initial_rates(network, steps=2, rate=0.1)
    with pytest.raises(InputError, match="has 2 entries for 3 steps"):
        predict(network, *draw(1)[:3], steps=3, rate=rates)


def test_unknown_inner_optimisers_are_refused():
    with pytest.raises(InputError, match="'momentum'; it may be 'sgd' or 'adam'"):
        inner_optimiser(make("plain"), "momentum", rate=0.1)


def nodes_of(tensor: Tensor) -> set[str]:
    """Names of all nodes of its graph."""
    names, pending, seen = set(), [tensor.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            pending += [following for following, _ in node.next_functions]
    return names


@pytest.mark.parametrize("first_order", [False, True])
def test_second_order_takes_the_fast_second_derivatives(first_order):
    images, labels = torch.randn(1, 4, 3, 16, 16), torch.arange(4).remainder(2)[None]
    network = Conv4(2, side=16, ways=2)
    loss, _ = tasks_loss(network, images, labels, images, labels, steps=1, rate=0.1, first_order=first_order)
    fast = {"_ConvolutionBackwardBackward", "_NormBackwardBackward"}
    assert nodes_of(loss) & fast == (set() if first_order else fast)
