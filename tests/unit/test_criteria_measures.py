"""Every criterion of many candidates at once, against one plain network at a time, in float64."""

import importlib
import math

import numpy as np
import pytest
import torch
from reference import MixedNetwork, batch_norm, group_norm, kernels_by_loop
from small_search import SECTIONS, make_plan
from torch import nn

from metantk.backbones.counting import count_macs, count_parameters
from metantk.criteria import chunks, formulas, gradients, inputs, ntk, synaptic
from metantk.criteria.base import (
    CostMeter,
    Criterion,
    Measured,
    RandomKeys,
    load_criterion,
    measure_all,
    options_of,
)
from metantk.criteria.networks import alone
from metantk.kernels import meta_ntk
from metantk.options import catalogue
from metantk.options.base import parse
from metantk.options.criteria.gradients import GradientsOptions
from metantk.runtime import plugins
from metantk.runtime.devices import generator
from metantk.runtime.files import SCRIPTS, InputError
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.space.supernet import Supernet, full_masks, initialise

ALL = list(catalogue.CRITERIA)
NAMES = [name for name in ALL if name != "short_training"]  # which trains: see test_study.py
COUNTS = ("parameters", "multiply_accumulates", "layers")
DRAWS = RandomKeys((3,), (4,))
LOSS = ("grad_norm", "snip", "fisher", "zico")


def pruning_masks(space):
    """The full network, and three without one operation."""
    full = full_masks(space)
    masks = {kind: mask.repeat(4, 1, 1) for kind, mask in full.items()}
    masks["normal"][1, 2, 1] = masks["reduce"][2, 0, 0] = masks["normal"][3, 4, -1] = False
    return masks


def architectures(space, count=3, seed=0):
    """Two operations into each node, one on each of two edges."""
    draws = np.random.default_rng(seed)
    masks = {kind: torch.zeros(count, len(space.edges), len(space.operations)).bool() for kind in CELL_TYPES}
    for mask in masks.values():
        for one in mask:
            for node in range(2, 2 + space.nodes):
                edges = [index for index, edge in enumerate(space.edges) if edge.node == node]
                for edge in draws.choice(edges, 2, replace=False):
                    one[edge, draws.integers(len(space.operations))] = True
    return masks


def measure_by(names, masks, plan=None, draws=DRAWS):
    """`measure_all` of a small setting; two cells have both types."""
    plan = plan or make_plan(cells=2)
    criteria = {name: load_criterion(name) for name in names}
    criteria_options = {name: options_of(criterion, SECTIONS) for name, criterion in criteria.items()}
    return measure_all(criteria, plan.context, criteria_options, draws, masks)


def identity(channels):
    return nn.Identity()


def record(network, of_type, images, *, inputs):
    """What each module of a type reads or gives, in a pass without gradients."""
    seen = []
    keep = lambda module, given, output: seen.append(given[0] if inputs else output)  # noqa: E731
    hooks = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, of_type)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return seen


def slow_values(plan, masks, index):
    """All criteria of one candidate, by a plain network with its own ReLUs and norms."""
    context, space = plan.context, plan.space
    options = {
        section: options_of(load_criterion(name), SECTIONS)
        for name, section in catalogue.CRITERIA.items()
        if name in NAMES
    }
    own = {kind: mask[index] for kind, mask in masks.items()}

    def plain(outputs, norm, kind="kaiming_normal"):
        network = chunks.build(context, DRAWS, masks, outputs=outputs, initialisation=kind)
        return MixedNetwork(network, space, own, norm=norm).double()

    ways, classes = options["gradients"].ways, context.classes
    batches = [inputs.draw_labelled(context, options["gradients"], (4,), batch) for batch in (0, 1)]
    measured = {}
    for measure, norm, used, parts in (
        (gradients.measure_losses, batch_norm, batches, LOSS),
        (gradients.measure_grasp, batch_norm, batches[:1], ("grasp",)),
        (gradients.measure_jacobians, batch_norm, batches[:1], ("jacob_cov", "epe_nas")),
        (gradients.measure_single_images, group_norm, batches[:1], ("gradsign", "knas")),
    ):
        measured |= measure(alone(plain(ways, norm)), used, parts)
    positive = plain(classes, identity)
    for parameter in positive.parameters():
        parameter.data.abs_()
    ones = torch.ones(1, 3, 8, 8, dtype=torch.float64)
    measured |= synaptic.measure_networks(alone(positive), ones, ("synflow", "logsynflow"))
    values = {name: float(one.values[0]) for name, one in measured.items()}

    batch = inputs.draw_batch(context, options["patterns"].images, (4,))
    relus = record(plain(classes, batch_norm), nn.ReLU, batch, inputs=True)
    patterns = torch.cat([relu.flatten(1) for relu in relus], 1)
    values["naswot"] = formulas.naswot(patterns)
    values["swap"] = formulas.swap(patterns[: options["patterns"].swap_images])

    thick = plain(classes, batch_norm, "normal")
    noise = torch.randn(2, options["zen"].images, 3, 8, 8, generator=generator("noise", 4)).double()
    moved = noise[0] + options["zen"].noise_scale * noise[1]
    variances = [x.var((0, 2, 3), correction=0) for x in record(thick, nn.BatchNorm2d, noise[0], inputs=True)]
    maps = [record(thick, nn.ReLU, x, inputs=False)[-1] for x in (noise[0], moved)]
    values["zen"] = formulas.zen(*maps, variances)

    network = plain(classes, batch_norm)
    values["parameters"], values["multiply_accumulates"] = count_parameters(network), count_macs(network.float(), 8)
    values["layers"] = len(list(network.parameters()))

    gram, _ = kernels_by_loop(plain(classes, group_norm), inputs.draw_batch(context, 6, (4,)))
    tasks = options["meta_ntk"]
    outer, _ = kernels_by_loop(plain(tasks.ways, group_norm), inputs.draw_tasks(context, tasks, (4,)))
    sizes = {"tasks": tasks.tasks, "queries": tasks.ways * tasks.queries, "supports": tasks.ways * tasks.shots}
    adapted = meta_ntk(outer, outer, **sizes, time=math.inf, ridge=tasks.ridge)
    for summary, function in formulas.GRAM_SUMMARIES.items():
        values[f"ntk_{summary}"], values[f"meta_ntk_{summary}"] = float(function(gram)), float(function(adapted))
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space_name", "make_masks"),
    [("few-shot", pruning_masks), ("few-shot", architectures), ("darts", architectures)],
)
def test_candidates_together_have_the_values_of_plain_networks(space_name, make_masks):
    """Linear regions are compared in test_supernet.py."""
    plan = make_plan(space=space_name)
    masks = make_masks(plan.space)
    names = [name for name in NAMES if name != "linear_regions"]
    measured = measure_by(names, masks, plan)
    index = len(masks["normal"]) - 1
    slow = slow_values(plan, masks, index)
    assert set(slow) == set(names)
    # The smallest eigenvalue of a kernel of tasks that are alike loses digits, and so does what it divides.
    loose = {"zico", "grasp", "ntk_condition", "meta_ntk_condition"}
    wrong = {
        name: (measured[name].values[index], value)
        for name, value in slow.items()
        if measured[name].values[index] != pytest.approx(value, rel=1e-6 if name in loose else 1e-9)
    }
    assert not wrong
    assert len(np.unique(measured["snip"].values)) == len(masks["normal"])


@pytest.mark.slow
@pytest.mark.parametrize("make_masks", [pruning_masks, architectures])
def test_values_do_not_depend_on_the_chunks(make_masks, monkeypatch):
    masks = make_masks(SPACES["few-shot"])
    plain = measure_by(NAMES, masks)
    monkeypatch.setattr(chunks, "CHUNK_NUMBERS", 1)  # one by one
    monkeypatch.setattr(chunks, "SPARSE_SHARE", 1.0)  # through networks of their own
    apart = measure_by(NAMES, masks)
    monkeypatch.setattr(chunks, "CHUNK_NUMBERS", 10**9)
    monkeypatch.setattr(chunks, "SPARSE_SHARE", 0.0)  # all together
    together = measure_by(NAMES, masks)
    for name in NAMES:
        tolerance = 1e-6 if name in ("zico", "grasp") else 1e-9
        np.testing.assert_allclose(apart[name].values, plain[name].values, rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(together[name].values, plain[name].values, rtol=tolerance, err_msg=name)
        if make_masks is architectures and name not in (*COUNTS, "linear_regions"):
            assert apart[name].operations < together[name].operations, name


@pytest.mark.slow
def test_chunks_side_by_side_change_nothing(monkeypatch):
    masks = architectures(SPACES["few-shot"], 4)
    one = measure_by(NAMES, masks)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    two = measure_by(NAMES, masks)
    for name in NAMES:
        np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equal_keys_give_equal_values_and_others_do_not(name):
    masks = architectures(SPACES["few-shot"], 2)
    value = lambda draws: measure_by([name], masks, draws=draws)[name].values.tolist()  # noqa: E731
    first = value(RandomKeys((1,), (2,)))
    assert value(RandomKeys((1,), (2,))) == first
    if name in COUNTS:
        assert value(RandomKeys((5,), (6,))) == first
        return
    # A few tiny crops may well have as many regions again.
    assert name == "linear_regions" or value(RandomKeys((5,), (2,))) != first
    if name not in ("linear_regions", "synflow", "logsynflow"):
        assert value(RandomKeys((1,), (6,))) != first


@pytest.fixture(scope="module")
def together():
    return measure_by(NAMES, architectures(SPACES["few-shot"], 2))


@pytest.mark.parametrize("name", NAMES)
def test_measured_alone_a_criterion_has_the_value_and_the_operations_of_all_together(name, together):
    masks, plan = architectures(SPACES["few-shot"], 2), make_plan(cells=2)
    criterion = load_criterion(name)
    single = criterion.measure(plan.context, options_of(criterion, SECTIONS), DRAWS, masks)
    np.testing.assert_array_equal(single.values, together[name].values)
    assert single.operations == together[name].operations
    assert (single.operations > 0) == (name not in COUNTS)
    assert together[name].seconds > 0


def test_what_is_expensive_is_computed_once(monkeypatch):
    calls, original = [], ntk.kernels_of_candidates
    monkeypatch.setattr(ntk, "kernels_of_candidates", lambda *a, **k: calls.append(1) or original(*a, **k))
    names = [name for name in NAMES if name.startswith("ntk_")]
    measured = measure_by(names, architectures(SPACES["few-shot"], 2))
    assert list(measured) == names
    assert (len(names), len(calls)) == (5, 1)


def test_options_that_differ_are_measured_apart(monkeypatch):
    calls, original = [], ntk.draw_batch
    monkeypatch.setattr(ntk, "draw_batch", lambda context, *a: calls.append(a[0]) or original(context, *a))
    names = ("ntk_trace", "ntk_mean", "ntk_condition")
    criteria = {name: load_criterion(name) for name in names}
    criteria_options = {
        name: options_of(criteria[name], {"ntk": {"images": 5 + (name == "ntk_mean")}}) for name in names
    }
    measure_all(criteria, make_plan().context, criteria_options, DRAWS, architectures(SPACES["few-shot"], 1))
    assert sorted(calls) == [5, 6]


def test_each_criterion_is_charged_what_it_needs():
    """Fisher needs no gradient of a weight, zico two batches, grasp two gradients."""
    found = measure_by(["fisher", "snip", "zico", "grasp"], architectures(SPACES["few-shot"], 1))
    costs = {name: measured.operations for name, measured in found.items()}
    assert costs["fisher"] * 3 == costs["snip"] * 2
    assert costs["zico"] == costs["grasp"] == 2 * costs["snip"]


def test_time_within_is_charged_by_that_alone(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("metantk.criteria.base.time.perf_counter", lambda: next(clock))
    meter = CostMeter(["a", "b"])
    with meter.of(), meter.of("a", "not asked for"):  # 0, 1, 2 and 3
        pass
    meter.count(5, "b")
    assert meter.seconds == {"a": 3, "b": 2}
    assert meter.operations == {"a": 0, "b": 5}


def measure_own(returned):
    """What `measure_all` gives for a user-defined criterion that returns this for two candidates."""
    own = Criterion(lambda context, options, draws, masks: returned, larger_is_better=True, title="x")
    return measure_all({"own": own}, make_plan().context, {}, DRAWS, architectures(SPACES["few-shot"], 2))["own"]


def test_a_user_defined_criterion_is_timed_and_has_the_worst_value_where_it_has_none():
    found = measure_own(Measured(np.array([1.0, math.nan]), 7))
    assert (found.values.tolist(), found.operations) == ([1.0, -math.inf], 7)
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(2), "returned ndarray; expected metantk.criteria.base.Measured"),
        (Measured(np.zeros(1), 0), r"of shape \(1,\); expected \(2,\), one per candidate"),
        (Measured(np.zeros((2, 3)), 0), r"of shape \(2, 3\); expected"),
    ],
    ids=["no Measured", "too few", "not one per candidate"],
)
def test_what_a_user_defined_criterion_returns_is_checked(returned, message):
    with pytest.raises(InputError, match=f"criteria: own: measure .*{message}"):
        measure_own(returned)


@pytest.mark.parametrize("larger", [True, False])
def test_values_that_do_not_exist_are_the_worst(larger):
    criterion = Criterion(measure=None, larger_is_better=larger, title="x")
    found = criterion.settled(Measured(np.array([1.0, math.nan, math.inf, -math.inf]), 0)).values
    assert found.tolist() == [1.0] + 3 * [-math.inf if larger else math.inf]


def test_a_network_without_operations_is_no_better_than_any():
    space = SPACES["few-shot"]
    masks = architectures(space, 3)
    for mask in masks.values():
        mask[1] = False
    for name, measured in measure_by(NAMES, masks).items():
        order = measured.values if load_criterion(name).larger_is_better else -measured.values
        assert not np.isnan(order).any(), name
        assert order[1] == order.min(), (name, measured.values)


def test_heads_of_their_own():
    """As the published program draws: equal bodies, another head for each candidate."""
    space = SPACES["few-shot"]
    one = architectures(space, 1)
    masks = {kind: mask.repeat(2, 1, 1) for kind, mask in one.items()}
    names = ["snip", "jacob_cov", "gradsign", "synflow", "grasp", "naswot", "zen", "ntk_trace"]
    for name, measured in measure_by(names, masks, draws=DRAWS._replace(head=(9,))).items():
        assert (measured.values[0] == measured.values[1]) == (name in ("naswot", "zen")), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grasp_agrees_with_the_hessian(dtype):
    """−Σ w ⊙ (H g), with second derivatives of a plain network."""
    plan, masks = make_plan(), architectures(SPACES["few-shot"], 1)
    options = options_of(load_criterion("grasp"), SECTIONS)
    images, labels = inputs.draw_labelled(plan.context, options, (4,))
    network = chunks.build(plan.context, DRAWS, masks, outputs=options.ways)
    own = {kind: mask[0] for kind, mask in masks.items()}
    plain = MixedNetwork(network, plan.space, own, norm=batch_norm)
    value = nn.functional.cross_entropy(plain(images), labels)
    weights = list(plain.parameters())
    firsts = torch.autograd.grad(value, weights, create_graph=True)
    product = sum((first * first.detach()).sum() for first in firsts)
    curved = torch.autograd.grad(product, weights)
    slow = -sum(float((weight * second).detach().sum()) for weight, second in zip(weights, curved, strict=True))
    batch = images.to(dtype), labels
    got = gradients.measure_grasp(alone(plain.to(dtype)), [batch], ["grasp"])["grasp"].values[0]
    scale = sum(float(first.detach().square().sum()) for first in firsts)
    assert got == pytest.approx(slow, abs=scale * (1e-7 if dtype == torch.float64 else 2e-2))


def test_restricted_networks_have_the_outputs_of_the_whole():
    space = SPACES["few-shot"]
    network = Supernet(space, full_masks(space), ["normal", "reduce", "normal"], 3, outputs=4, norm="batch")
    initialise(network, "kaiming_normal", generator("x"))
    masks = architectures(space, 2)
    images = torch.randn(3, 3, 8, 8, generator=generator("y"))
    with torch.no_grad():
        whole = network(images, masks)
        smaller = network.restricted(chunks.union(masks))
        torch.testing.assert_close(smaller(images, masks), whole, rtol=1e-4, atol=1e-5)
    assert count_parameters(smaller) < count_parameters(network) / 2


def test_images_of_an_episode_and_of_a_batch():
    context = make_plan().context
    episode = parse(GradientsOptions, {"ways": 3, "images": 9}, where="x")
    images, labels = inputs.draw_labelled(context, episode, (0,))
    assert images.shape == (9, 3, 8, 8)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert not torch.equal(images, inputs.draw_labelled(context, episode, (0,), 1)[0])
    batch = parse(GradientsOptions, {"sampling": "batch", "images": 24}, where="x")
    assert torch.bincount(inputs.draw_labelled(context, batch, (0,))[1]).tolist() == [6, 6, 6, 6]
    too_many = batch.model_copy(update={"images": 25})
    with pytest.raises(InputError, match="24 images are too few for a batch of 25"):
        inputs.draw_labelled(context, too_many, (0,))
    with pytest.raises(InputError, match="10 images are not as many for each of 3 ways"):
        parse(GradientsOptions, {"ways": 3, "images": 10}, where="x")


def test_batches_have_an_output_per_class_and_values_of_their_own():
    masks, plan = architectures(SPACES["few-shot"], 1), make_plan()
    criterion = load_criterion("snip")
    values = [
        criterion.measure(plan.context, GradientsOptions(sampling=draw, ways=3, images=9), DRAWS, masks).values[0]
        for draw in ("episode", "batch")
    ]
    assert values[0] != values[1]


def families_in_modules():
    """The module of each criterion."""
    for path in sorted((SCRIPTS / "metantk" / "criteria").glob("[!_]*.py")):
        module = importlib.import_module(f"metantk.criteria.{path.stem}")
        yield from ((name, path.stem) for name in getattr(module, "CRITERIA", {}))


def test_the_catalogue_is_the_criteria_that_there_are():
    assert sorted(families_in_modules()) == sorted(catalogue.FAMILIES.items())
    assert sorted(ALL) == plugins.kinds("criteria")
    titles = set()
    for name, section in catalogue.CRITERIA.items():
        criterion = load_criterion(name)
        assert criterion.section == section, name
        assert criterion.options is catalogue.SECTIONS.get(section), name
        # The logarithm of a change needs an axis of logarithms, and a score that is one already takes differences.
        assert criterion.change != "logarithm" or criterion.logarithmic, name
        assert criterion.change != "difference" or not criterion.logarithmic, name
        assert criterion.larger_is_better == (catalogue.CRITERION_ENTRIES[name].better == "higher"), name
        assert catalogue.CRITERION_ENTRIES[name].what, name
        titles.add(criterion.title)
    assert len(titles) == len(ALL)
    assert {name for name in ALL if not load_criterion(name).larger_is_better} == {
        "ntk_condition",
        "meta_ntk_condition",
    }
