"""Criteria of networks that are hardly networks, of broken images, of the smallest batch, and without memory."""

import math
import threading
import time

import numpy as np
import pytest
import torch
from small_search import CRITERIA, SECTIONS, make_plan, measure

from metantk.criteria import chunks, formulas, inputs, meta_ntk, ntk
from metantk.criteria.base import Criterion, RandomKeys, load_criterion, options_of
from metantk.runtime.files import InputError
from metantk.searches import prune
from metantk.space.genotype import CELL_TYPES, SPACES


def only(space_name: str, *operations: str) -> dict[str, torch.Tensor]:
    """One candidate with the same operations on every edge of both cells."""
    space = SPACES[space_name]
    chosen = torch.tensor([name in operations for name in space.operations])
    return {kind: chosen.repeat(1, len(space.edges), 1) for kind in CELL_TYPES}


@pytest.mark.parametrize("space_name", ["few-shot", "darts"])
@pytest.mark.parametrize("operation", ["skip_connect", "avg_pool_3x3", "max_pool_3x3"])
def test_cells_without_weights_have_values(space_name, operation):
    plan = make_plan(space=space_name)
    for name in CRITERIA:
        value = measure(plan, name, only(space_name, operation))
        assert value.shape == (1,)
        assert np.isfinite(value).all(), name


def test_networks_without_output_are_the_worst():
    """No operation anywhere: the output is zero for every image, and so are all gradients."""
    plan = make_plan()
    values = {name: measure(plan, name, only("few-shot"))[0] for name in CRITERIA}
    assert values["meta_ntk_condition"] == values["ntk_condition"] == math.inf
    assert values["ntk_spectral_entropy"] == -math.inf
    alive = measure(plan, "linear_regions", only("few-shot", "conv_3x3"))[0]
    assert 1 <= values["linear_regions"] < alive


@pytest.mark.parametrize(
    ("family", "draw", "name"),
    [
        (meta_ntk, "draw_tasks", "meta_ntk_condition"),
        (ntk, "draw_batch", "ntk_condition"),
        (ntk, "draw_batch", "ntk_spectral_entropy"),
        (ntk, "draw_batch", "ntk_trace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_not_finite_in_half_the_batch_make_the_worst_candidate(family, draw, name, monkeypatch):
    original = getattr(family, draw)

    def broken(*arguments):
        drawn = original(*arguments)
        drawn[::2] = math.nan
        return drawn

    monkeypatch.setattr(family, draw, broken)
    value = measure(make_plan(), name, only("few-shot", "conv_3x3"))[0]
    assert value == (-math.inf if load_criterion(name).larger_is_better else math.inf)


def test_one_query_of_one_task_is_a_kernel_of_one_number():
    """Its condition number is 1 for every network: defined, and of no use."""
    plan = make_plan(meta_ntk={"tasks": 1, "ways": 1, "shots": 1, "queries": 1})
    masks = only("few-shot", "conv_3x3", "skip_connect")
    assert measure(plan, "meta_ntk_condition", masks).tolist() == [1.0]


@pytest.mark.parametrize("kernel", ["maml", "anil"])
@pytest.mark.parametrize("time", [0.5, "infinite"])
def test_kernel_and_time_of_the_inner_loop_matter(kernel, time):
    masks = only("few-shot", "conv_3x3")
    plain = measure(make_plan(), "meta_ntk_condition", masks)
    plan = make_plan(meta_ntk=SECTIONS["meta_ntk"] | {"kernel": kernel, "time": time})
    value = measure(plan, "meta_ntk_condition", masks)
    assert np.isfinite(value).all()
    assert (value == plain).all() == ((kernel, time) == ("maml", "infinite"))


def test_equal_keys_give_both_ntk_criteria_the_same_kernel(monkeypatch):
    seen = []
    for name in ("condition", "spectral_entropy"):
        original = formulas.GRAM_SUMMARIES[name]
        seeing = lambda kernel, original=original: seen.append(kernel) or original(kernel)  # noqa: E731
        monkeypatch.setitem(formulas.GRAM_SUMMARIES, name, seeing)
        measure(make_plan(), f"ntk_{name}", only("few-shot", "conv_3x3"), RandomKeys.of((4,)))
    assert torch.equal(*seen)


@pytest.mark.parametrize("name", CRITERIA)
def test_each_key_draws_what_it_names_and_nothing_else(name):
    """Weights, images and, where there is a head, its weights are drawn apart from one another."""
    masks = only("few-shot", "conv_3x3", "skip_connect")

    def value(weights=(1,), drawn=(1,), head=(1,)):
        return float(measure(make_plan(), name, masks, RandomKeys(weights, drawn, head))[0])

    assert value() == value()
    assert value(weights=(2,)) != value()
    assert value(drawn=(2,)) != value()
    assert (value(head=(2,)) != value()) == (name != "linear_regions")


def test_a_head_of_its_own_leaves_the_body_as_it_was(monkeypatch):
    """All of a network's convolutions are those of the key of the weights; the head alone is another."""
    seen, original = [], chunks.empirical_kernels

    def noted(network, *arguments):
        seen.append(network)
        return original(network, *arguments)

    monkeypatch.setattr(chunks, "empirical_kernels", noted)
    for head in ((1,), (2,), None):
        measure(make_plan(), "ntk_condition", only("few-shot", "conv_3x3"), RandomKeys((0,), (0,), head))
    states = [network.state_dict() for network in seen]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]) == (name != "head.weight"), name
        if name != "head.weight":
            assert torch.equal(tensor, states[2][name])


def test_criteria_say_which_way_is_better_how_they_change_and_what_they_are_called():
    criteria = {name: load_criterion(name) for name in CRITERIA}
    assert {name: criterion.larger_is_better for name, criterion in criteria.items()} == {
        "meta_ntk_condition": False,
        "ntk_condition": False,
        "ntk_spectral_entropy": True,
        "linear_regions": True,
    }
    # An entropy is a logarithm already, and may be 0.
    assert {name for name, criterion in criteria.items() if criterion.change != "relative"} == {
        "ntk_spectral_entropy"
    }
    # The published program draws thin networks anew for each candidate.
    assert {name for name, criterion in criteria.items() if criterion.weights_per_candidate} == {"linear_regions"}
    assert len({criterion.title for criterion in criteria.values()}) == len(CRITERIA)
    assert criteria["ntk_condition"].facts == {
        "title": "condition number\nof the NTK",
        "larger_is_better": False,
        "logarithmic": True,
    }


def test_options_of_a_criterion_are_its_sections_alone():
    criterion = load_criterion("ntk_condition")
    assert options_of(criterion, {"ntk": {"images": 7}, "meta_ntk": {"nonsense": 1}}).images == 7
    assert options_of(criterion, {}).images == 30
    with pytest.raises(InputError, match=r"criteria\.ntk: unknown key 'image'"):
        options_of(criterion, {"ntk": {"image": 7}})
    assert options_of(Criterion(measure=None, larger_is_better=True, title="x"), {"ntk": {}}) is None


def test_crops_and_batches_larger_than_the_images_are_refused():
    plan = make_plan(linear_regions={"crop_size": 9}, ntk={"images": 25})
    with pytest.raises(InputError, match="crop_size 9 is larger than image_size 8"):
        measure(plan, "linear_regions", only("few-shot", "conv_3x3"))
    with pytest.raises(InputError, match="24 images are too few for an NTK of 25"):
        measure(plan, "ntk_condition", only("few-shot", "conv_3x3"))


def test_crops_that_no_memory_holds_are_refused():
    plan = make_plan(linear_regions={"images": 10**9})
    with pytest.raises(InputError, match=r"criteria\.linear_regions: images: a step takes 1000000000 images"):
        inputs.draw_crops(plan.context, plan.criteria_options["linear_regions"], (0,))


def test_crops_are_of_the_size_and_number_asked_for():
    plan = make_plan(linear_regions={"crop_size": 5, "images": 11, "batches": 3})
    batches = inputs.draw_crops(plan.context, plan.criteria_options["linear_regions"], (0,))
    assert [tuple(batch.shape) for batch in batches] == [(4, 1, 5, 5), (4, 1, 5, 5), (3, 1, 5, 5)]


def test_chunks_are_halved_until_they_fit(caplog):
    context = make_plan().context
    advanced = []
    masks = {kind: torch.arange(13).view(13, 1, 1) for kind in CELL_TYPES}

    def measure(network, chunk):
        indices = chunk["normal"].flatten()
        if len(indices) > 3:
            raise torch.OutOfMemoryError("made up")
        return indices.tolist()

    context = context._replace(advance=advanced.append)
    parts = chunks.over_chunks(context, torch.nn.Identity(), masks, 100, 1, measure)
    assert [index for part in parts for index in part] == list(range(13))
    assert max(map(len, parts)) <= 3
    assert sum(advanced) == 13
    assert "out of memory" in caplog.text


def test_one_candidate_that_does_not_fit_is_an_error_that_says_so():
    def measure(network, chunk):
        raise torch.OutOfMemoryError("made up")

    masks = only("few-shot", "conv_3x3")
    with pytest.raises(InputError, match="single candidate"):
        chunks.over_chunks(make_plan().context, torch.nn.Identity(), masks, 8, 1, measure)


def test_chunks_side_by_side_keep_their_order_and_share_no_network():
    barrier = threading.Barrier(3)
    advanced = []
    context = make_plan().context._replace(advance=advanced.append)
    masks = {kind: torch.arange(11).view(11, 1, 1) for kind in CELL_TYPES}
    networks = set()

    def measure(network, chunk):
        indices = chunk["normal"].flatten().tolist()
        networks.add(id(network))
        if max(indices) < 6:  # the first three chunks wait for one another: they run at the same time
            barrier.wait(timeout=60)
        return indices

    parts = chunks.over_chunks(context, torch.nn.Identity(), masks, 2, 3, measure)
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert len(networks) == 3
    assert advanced == [2, 2, 2, 2, 2, 1]


def test_few_candidates_are_shared_among_all_threads():
    masks = {kind: torch.zeros(5, 1, 1) for kind in CELL_TYPES}
    sizes = chunks.over_chunks(
        make_plan().context, torch.nn.Identity(), masks, 100, 2, lambda network, chunk: len(chunk["normal"])
    )
    assert sizes == [3, 2]


def test_no_more_chunks_side_by_side_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(chunks.devices, "physical_memory", lambda: 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [chunks._workers(make_plan().context, size) for size in (1, 10, 24, 26, 1000)] == [8, 5, 2, 1, 1]


def test_a_failure_side_by_side_ends_the_others_and_keeps_the_threads():
    threads = torch.get_num_threads()
    measured = []

    def measure(network, chunk):
        measured.append(chunk)
        if len(measured) == 1:
            raise ValueError("made up")
        time.sleep(0.05)

    masks = {kind: torch.zeros(50, 1, 1) for kind in CELL_TYPES}
    with pytest.raises(ValueError, match="made up"):
        chunks.over_chunks(make_plan().context, torch.nn.Identity(), masks, 1, 2, measure)
    assert len(measured) < 50
    assert torch.get_num_threads() == threads


def test_candidates_that_are_all_alike_are_logged(caplog):
    draws = [prune.Draw([10.0] * 4, [10.0] * 4)]
    score = prune.score(load_criterion("linear_regions"), draws, where="round 3, linear_regions")
    assert score.change.tolist() == [[0.0] * 4]
    assert "round 3, linear_regions: all candidates are alike" in caplog.text
