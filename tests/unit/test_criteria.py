"""Criteria of networks that are hardly networks, of broken pictures, of the smallest batch, and without memory."""

import math
import threading
import time

import numpy as np
import pytest
import torch
from small_search import make_setting

from metantk import criteria, pruning
from metantk.criteria import CRITERIA
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.storage import InputError


def only(space_name: str, *operations: str) -> dict[str, torch.Tensor]:
    """One candidate with the same operations on every edge of both cells."""
    space = SPACES[space_name]
    chosen = torch.tensor([name in operations for name in space.operations])
    return {kind: chosen.repeat(1, len(space.edges), 1) for kind in CELL_TYPES}


@pytest.mark.parametrize("space_name", ["few-shot", "darts"])
@pytest.mark.parametrize("operation", ["skip_connect", "avg_pool_3x3", "max_pool_3x3"])
def test_cells_without_weights_have_values(space_name, operation):
    setting = make_setting(space=space_name)
    for name, criterion in CRITERIA.items():
        value = criterion.measure(setting, (0,), only(space_name, operation)).values
        assert value.shape == (1,)
        assert np.isfinite(value).all(), name


def test_networks_without_output_are_the_worst():
    """No operation anywhere: the output is zero for every picture, and so are all gradients."""
    setting, masks = make_setting(), only("few-shot")
    values = {name: criterion.measure(setting, (0,), masks).values[0] for name, criterion in CRITERIA.items()}
    assert values["meta_ntk_condition"] == values["ntk_condition"] == math.inf
    assert values["ntk_spectral_entropy"] == -math.inf
    alive = CRITERIA["linear_regions"].measure(setting, (0,), only("few-shot", "conv_3x3")).values[0]
    assert 1 <= values["linear_regions"] < alive


@pytest.mark.parametrize("name", ["meta_ntk_condition", "ntk_condition", "ntk_spectral_entropy"])
def test_values_that_are_not_finite_in_half_the_batch_make_the_worst_candidate(name, monkeypatch):
    for draw in ("_draw_tasks", "_draw_pictures"):
        original = getattr(criteria, draw)

        def broken(setting, key, original=original):
            pictures = original(setting, key)
            pictures[::2] = math.nan
            return pictures

        monkeypatch.setattr(criteria, draw, broken)
    value = CRITERIA[name].measure(make_setting(), (0,), only("few-shot", "conv_3x3")).values[0]
    assert value == (math.inf if name.endswith("condition") else -math.inf)


def test_one_query_of_one_task_is_a_kernel_of_one_number():
    """Its condition number is 1 for every network: defined, and of no use."""
    setting = make_setting(meta_ntk={"tasks": 1, "ways": 1, "shots": 1, "queries": 1})
    masks = only("few-shot", "conv_3x3", "skip_connect")
    assert CRITERIA["meta_ntk_condition"].measure(setting, (0,), masks).values.tolist() == [1.0]


@pytest.mark.parametrize("kernel", ["maml", "anil"])
@pytest.mark.parametrize("time", [0.5, "infinite"])
def test_kernel_and_time_of_the_inner_loop_matter(kernel, time):
    masks = only("few-shot", "conv_3x3")
    plain = CRITERIA["meta_ntk_condition"].measure(make_setting(), (0,), masks).values
    setting = make_setting(meta_ntk={"ways": 2, "tasks": 2, "queries": 2, "kernel": kernel, "time": time})
    value = CRITERIA["meta_ntk_condition"].measure(setting, (0,), masks).values
    assert np.isfinite(value).all()
    assert (value == plain).all() == ((kernel, time) == ("maml", "infinite"))


def test_equal_keys_give_both_ntk_criteria_the_same_kernel(monkeypatch):
    seen = []
    for name in ("condition_numbers", "spectral_entropies"):
        original = getattr(criteria, name)
        monkeypatch.setattr(
            criteria, name, lambda kernel, original=original: seen.append(kernel) or original(kernel)
        )
    for name in ("ntk_condition", "ntk_spectral_entropy"):
        CRITERIA[name].measure(make_setting(), (4,), only("few-shot", "conv_3x3"))
    assert torch.equal(*seen)


def test_chunks_are_halved_until_they_fit(caplog):
    setting = make_setting()
    advanced = []
    masks = {kind: torch.arange(13).view(13, 1, 1) for kind in CELL_TYPES}

    def measure(network, chunk):
        numbers = chunk["normal"].flatten()
        if len(numbers) > 3:
            raise torch.OutOfMemoryError("made up")
        return numbers.tolist()

    setting = setting._replace(advance=advanced.append)
    parts = criteria._over_chunks(setting, torch.nn.Identity(), masks, 100, 1, measure)
    assert [number for part in parts for number in part] == list(range(13))
    assert max(map(len, parts)) <= 3
    assert sum(advanced) == 13
    assert "out of memory" in caplog.text


def test_one_candidate_that_does_not_fit_is_an_error_that_says_so():
    def measure(network, chunk):
        raise torch.OutOfMemoryError("made up")

    masks = only("few-shot", "conv_3x3")
    with pytest.raises(InputError, match="single candidate"):
        criteria._over_chunks(make_setting(), torch.nn.Identity(), masks, 8, 1, measure)


def test_chunks_side_by_side_keep_their_order_and_share_no_network():
    barrier = threading.Barrier(3)
    advanced = []
    setting = make_setting()._replace(advance=advanced.append)
    masks = {kind: torch.arange(11).view(11, 1, 1) for kind in CELL_TYPES}
    networks = set()

    def measure(network, chunk):
        numbers = chunk["normal"].flatten().tolist()
        networks.add(id(network))
        if max(numbers) < 6:  # the first three chunks wait for one another: they run at the same time
            barrier.wait(timeout=60)
        return numbers

    parts = criteria._over_chunks(setting, torch.nn.Identity(), masks, 2, 3, measure)
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert len(networks) == 3
    assert advanced == [2, 2, 2, 2, 2, 1]


def test_few_candidates_are_shared_among_all_threads():
    masks = {kind: torch.zeros(5, 1, 1) for kind in CELL_TYPES}
    sizes = criteria._over_chunks(
        make_setting(), torch.nn.Identity(), masks, 100, 2, lambda network, chunk: len(chunk["normal"])
    )
    assert sizes == [3, 2]


def test_no_more_chunks_side_by_side_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(criteria.devices, "physical_memory", lambda: 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [criteria._workers(make_setting(), size) for size in (1, 10, 24, 26, 1000)] == [8, 5, 2, 1, 1]


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
        criteria._over_chunks(make_setting(), torch.nn.Identity(), masks, 1, 2, measure)
    assert len(measured) < 50
    assert torch.get_num_threads() == threads


def test_candidates_that_are_all_alike_are_logged(caplog):
    draws = [pruning.Draw([10.0] * 4, [10.0] * 4)]
    assert pruning.score("linear_regions", draws, where="round 3").change.tolist() == [[0.0] * 4]
    assert "round 3, linear_regions: all candidates are alike" in caplog.text
