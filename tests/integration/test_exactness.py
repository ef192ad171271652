"""The fast engine against the literal search: the same values, ranks and cells, round by round."""

import numpy as np
import pytest
import torch
from literal import changes, measure_round
from small_search import CRITERIA, make_plan, measure, two_operations_per_edge

from metantk.criteria import chunks, linear_regions
from metantk.criteria.base import RandomKeys
from metantk.searches import prune
from metantk.searches.plan import Plan
from metantk.searches.prune import Candidate, Round, State

pytestmark = pytest.mark.slow


def compare(plan: Plan, rows: list[dict], state: State, candidates: list[Candidate], seed: int) -> None:
    """Rows of search.csv against the literal values of the same candidates."""
    literal = list(measure_round(plan, candidates, state.masks, (seed, state.rounds, 0)))
    conditions, counts = ([pair[which] for pair in literal] for which in (0, 1))
    np.testing.assert_allclose([row["meta_ntk_condition"] for row in rows], conditions[1:], rtol=1e-8)
    np.testing.assert_allclose(rows[0]["meta_ntk_condition_unpruned"], conditions[0], rtol=1e-8)
    assert [row["linear_regions"] for row in rows] == counts[1:]
    this = prune.next_round(plan.space, state.masks)
    if len(candidates) == len(this.candidates):
        scores = {"meta_ntk_condition": changes(conditions), "linear_regions": changes(counts)}
        compare_ranks(plan, rows, this, scores)


def compare_ranks(plan: Plan, rows: list[dict], this: Round, scores: dict[str, list[float]]) -> None:
    # A condition is better small, regions are better many.
    better = {"meta_ntk_condition": False, "linear_regions": True}
    order, ranks = prune.removal_order(scores, plan.options.weights, better)
    for name in scores:
        assert [row[f"{name}_rank"] for row in rows] == ranks[name]
    removed = set(prune.choose_removed(this, order))
    assert [row["removed"] for row in rows] == [index in removed for index in range(len(rows))]


def test_first_round_has_the_literal_values():
    """Every fourteenth candidate of the full few-shot supernet."""
    plan = make_plan()
    state = prune.first_state(plan.space)
    chosen = prune.next_round(plan.space, state.masks).candidates[::14]
    batch = prune.batch_masks(state.masks, chosen)
    values = {name: measure(plan, name, batch, RandomKeys.of((5, 0, 0))) for name in plan.criteria}
    rows = [
        {name: value[index] for name, value in values.items()}
        | {"meta_ntk_condition_unpruned": values["meta_ntk_condition"][0]}
        for index in range(1, 1 + len(chosen))
    ]
    compare(plan, rows, state, chosen, seed=5)


def rounds_of_a_search(plan: Plan, seed: int, start: State, rounds: int) -> list[tuple[State, list[dict]]]:
    """The state before each of the rounds to the genotype, and the round's rows."""
    states = [start]
    final = prune.search(plan, seed, start, states.append)
    between_rounds = [state for state in states if not state.draws][:-1]
    assert len(between_rounds) == final.rounds == rounds
    return [(state, [row for row in final.rows if row["round"] == state.rounds]) for state in between_rounds]


@pytest.mark.parametrize("seed", range(2))
def test_rounds_have_the_literal_values_ranks_and_choices(seed):
    """5 rounds for each of 2 seeds: from two operations per edge to the genotype."""
    plan = make_plan()
    for state, rows in rounds_of_a_search(plan, seed, two_operations_per_edge(plan.space, seed), 5):
        compare(plan, rows, state, prune.next_round(plan.space, state.masks).candidates, seed)


@pytest.mark.parametrize("name", CRITERIA)
def test_values_do_not_depend_on_chunks_or_threads(name, monkeypatch):
    plan = make_plan(criteria=[name])
    masks = prune.first_state(plan.space).masks
    batch = prune.batch_masks(masks, prune.next_round(plan.space, masks).candidates[55:65])

    def values(threads: int, chunk: int) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        monkeypatch.setattr(linear_regions, "CPU_CHUNK", chunk)
        monkeypatch.setattr(chunks, "_chunk_size", lambda *_, **__: chunk)
        try:
            return measure(plan, name, batch, RandomKeys.of((3, 0, 0)))
        finally:
            torch.set_num_threads(before)

    expected = values(threads=1, chunk=1)
    assert len(np.unique(expected)) > 1
    for threads, chunk in ((1, 4), (1, 11), (2, 3)):
        np.testing.assert_allclose(values(threads, chunk), expected, rtol=1e-9)
