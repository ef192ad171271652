"""The fast engine against the literal search: the same values, ranks and cells, round by round."""

import numpy as np
import pytest
import torch
from literal import changes, measure_round
from small_search import make_setting

from metantk import criteria, pruning
from metantk.criteria import Setting


def compare(setting: Setting, rows: list[dict], state: pruning.State, candidates: list, seed: int) -> None:
    """Rows of search.csv against the literal values of the same candidates."""
    literal = list(measure_round(setting, candidates, state.masks, (seed, state.rounds, 0)))
    conditions, counts = ([pair[which] for pair in literal] for which in (0, 1))
    np.testing.assert_allclose([row["meta_ntk_condition"] for row in rows], conditions[1:], rtol=1e-8)
    np.testing.assert_allclose(rows[0]["meta_ntk_condition_unpruned"], conditions[0], rtol=1e-8)
    assert [row["linear_regions"] for row in rows] == counts[1:]
    if len(candidates) == len(pruning.next_round(setting.space, state.masks).candidates):
        compare_ranks(setting, rows, pruning.next_round(setting.space, state.masks), conditions, counts)


def compare_ranks(setting: Setting, rows: list[dict], this: pruning.Round, conditions: list, counts: list) -> None:
    scores = {"meta_ntk_condition": changes(conditions), "linear_regions": changes(counts)}
    order, ranks = pruning.removal_order(scores, setting.options.weights)
    for name in scores:
        assert [row[f"{name}_rank"] for row in rows] == ranks[name]
    removed = set(pruning.choose_removed(this, order))
    assert [row["removed"] for row in rows] == [number in removed for number in range(len(rows))]


def test_first_round_has_the_literal_values():
    """Every seventh candidate of the full few-shot supernet."""
    setting = make_setting()
    state = pruning.first_state(setting.space)
    chosen = pruning.next_round(setting.space, state.masks).candidates[::7]
    values = {
        name: criteria.CRITERIA[name].measure(setting, (5, 0, 0), pruning.batch_masks(state.masks, chosen)).values
        for name in setting.options.weights
    }
    rows = [
        {name: value[number] for name, value in values.items()}
        | {"meta_ntk_condition_unpruned": values["meta_ntk_condition"][0]}
        for number in range(1, 1 + len(chosen))
    ]
    compare(setting, rows, state, chosen, seed=5)


@pytest.mark.parametrize("seed", range(4))
def test_rounds_have_the_literal_values_ranks_and_choices(seed):
    """5 rounds for each of 4 seeds: from two operations per edge to the genotype."""
    setting = make_setting()
    draws = torch.Generator().manual_seed(seed)
    start = pruning.first_state(setting.space)
    for mask in start.masks.values():
        mask.zero_().scatter_(1, torch.rand(mask.shape, generator=draws).argsort(1)[:, :2], value=True)
    states = [start]
    final = pruning.search(setting, seed, start, states.append)
    between_rounds = [state for state in states if not state.draws][:-1]
    assert len(between_rounds) == final.rounds == 5
    for state in between_rounds:
        rows = [row for row in final.rows if row["round"] == state.rounds]
        compare(setting, rows, state, pruning.next_round(setting.space, state.masks).candidates, seed)


@pytest.mark.parametrize("name", ["meta_ntk_condition", "ntk_condition", "ntk_spectral_entropy", "linear_regions"])
def test_values_do_not_depend_on_chunks_or_threads(name, monkeypatch):
    setting = make_setting(criteria=[name], ntk={"pictures": 6})
    masks = pruning.first_state(setting.space).masks
    batch = pruning.batch_masks(masks, pruning.next_round(setting.space, masks).candidates[55:75])

    def measure(threads: int, chunk: int) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        monkeypatch.setitem(criteria.PATTERN_CHUNK, "cpu", chunk)
        monkeypatch.setattr(criteria, "_chunk_size", lambda *_, **__: chunk)
        try:
            return criteria.CRITERIA[name].measure(setting, (3, 0, 0), batch).values
        finally:
            torch.set_num_threads(before)

    expected = measure(threads=1, chunk=1)
    assert len(np.unique(expected)) > 1
    for threads, chunk in ((1, 4), (1, 21), (2, 1), (2, 7)):
        np.testing.assert_allclose(measure(threads, chunk), expected, rtol=1e-9)
