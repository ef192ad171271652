"""Algorithm 1: ranks, ties, the edge stage, and whole searches over made-up scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from metantk.config import SearchOptions
from metantk.pruning import Candidate, Round

from metantk import pruning
from metantk.criteria import CRITERIA, Criterion, Measured, Setting
from metantk.datasets.store import Split
from metantk.space.genotype import CELL_TYPES, SPACES, check_genotype

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "ranking_cases.json").read_text())
SPACE = SPACES["few-shot"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_ranks_and_choices_are_the_published_ones(case):
    keys = [tuple(key) for _, key in case["ntk_all"]]
    regions = {tuple(key): score for score, key in case["regions_all"]}
    scores = {
        "meta_ntk_condition": [score for score, _ in case["ntk_all"]],
        "linear_regions": [regions[key] for key in keys],
    }
    order, ranks = pruning.removal_order(scores, dict.fromkeys(scores, 1.0))
    got = [[list(keys[i]), [ranks["meta_ntk_condition"][i], ranks["linear_regions"][i]]] for i in order]
    assert got == case["rankings"]
    stage = {"op": "operations", "group": "edges"}[case["kind"]]
    removed = pruning.choose_removed(Round(stage, [Candidate(*key) for key in keys]), order)
    expected = [choice[0] if case["kind"] == "op" else choice for choice in case["choices"]]
    assert [list(keys[i]) for i in removed] == expected


def test_equal_scores_share_a_rank_and_the_next_is_one_higher():
    ranks, order = pruning.dense_ranks([0.1, 0.3, 0.1, 0.2], descending=True)
    assert order == [1, 3, 0, 2]
    assert ranks == [2, 0, 2, 1]


def test_order_uses_rounded_scores_and_ties_unrounded_ones():
    """0.12344 and 0.12341 are equal to 3 digits, so their given order stays; unequal unrounded, they tie not."""
    ranks, order = pruning.dense_ranks([0.12341, 0.12344], descending=True)
    assert order == [0, 1]
    assert ranks == [0, 1]


def test_relative_change_of_singular_kernels():
    unpruned = np.array([[10.0, 10.0, math.inf, 0.0]])
    pruned = np.array([[8.0, math.inf, 5.0, 5.0]])
    for larger_is_better, worst in ((False, -math.inf), (True, math.inf)):
        change = pruning.relative_change(unpruned, pruned, larger_is_better=larger_is_better, where="test")
        assert change[0, :2].tolist() == [0.2, worst]
        assert np.isnan(change[0, 2:]).all()
    means = pruning.mean_change(np.array([[0.2, math.nan], [0.4, math.nan]]))
    assert means == pytest.approx([0.3, 0.0])


def test_a_candidate_with_a_singular_kernel_goes_last():
    weights = {"ntk_condition": 1.0, "ntk_spectral_entropy": 1.0}
    order, _ = pruning.removal_order({"ntk_condition": [0.1, -math.inf, 0.3]}, weights)
    assert order == [2, 0, 1]
    order, _ = pruning.removal_order({"ntk_spectral_entropy": [0.1, math.inf, -0.3]}, weights)
    assert order == [2, 0, 1]


def test_weights_multiply_ranks():
    scores = {"ntk_condition": [0.3, 0.2, 0.1], "linear_regions": [0.3, 0.2, 0.1]}
    assert pruning.removal_order(scores, {"ntk_condition": 1.0, "linear_regions": 0.5})[0] == [0, 1, 2]
    assert pruning.removal_order(scores, {"ntk_condition": 0.5, "linear_regions": 1.0})[0] == [2, 1, 0]


def fake_setting(criteria, monkeypatch, draws="common", repeat=2):
    """A setting whose criteria are sums of fixed random worths of the operations: no network is built."""
    calls = []

    def measure(name):
        worth = {
            kind: torch.from_numpy(np.random.default_rng([len(name), number]).uniform(1, 2, size=(9, 7)))
            for number, kind in enumerate(CELL_TYPES)
        }

        def values(setting, key, masks):
            calls.append((name, key, len(masks["normal"])))
            values = sum((masks[kind] * worth[kind]).sum((1, 2)) for kind in CELL_TYPES).numpy()
            return Measured(values, operations=10 * len(values))

        return values

    for name in criteria:
        monkeypatch.setitem(CRITERIA, name, Criterion(measure(name), CRITERIA[name].larger_is_better))
    options = SearchOptions(criteria=criteria, draws=draws, repeat=repeat)
    nothing = Split(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64), [])
    work = []
    setting = Setting(options, 5, 4, nothing, torch.device("cpu"), work.append)
    return setting, calls, work


@pytest.mark.parametrize("draws", ["common", "independent"])
def test_search_ends_with_two_inputs_per_node_and_traces_every_candidate(monkeypatch, draws):
    setting, calls, _ = fake_setting(["meta_ntk_condition", "linear_regions"], monkeypatch, draws)
    kept = []
    state = pruning.search(setting, 0, pruning.first_state(SPACE), kept.append)
    genotype = check_genotype(pruning.to_genotype(SPACE, state.masks))
    for kind in CELL_TYPES:
        for node in genotype[kind]:
            assert len(node) == 2
            assert node[0][1] != node[1][1]
    counts = [sum(row["round"] == number for row in state.rows) for number in range(state.rounds)]
    assert counts == [126, 108, 90, 72, 54, 36, 3, 4, 3, 4]
    assert sum(row["removed"] for row in state.rows) == 6 * 18 + 2 * (1 + 2)
    assert len(kept) == state.rounds * (1 + 2 * 2)
    for name, cost in state.costs.items():
        assert cost.evaluations == sum(count for called, _, count in calls if called == name)
        assert cost.operations == 10 * cost.evaluations
    assert set(pruning.trace_columns(setting.options.weights)) == set(state.rows[0])


@pytest.mark.parametrize("draws", ["common", "independent"])
def test_progress_ends_at_the_whole_work_wherever_a_search_goes_on(monkeypatch, draws):
    setting, _, work = fake_setting(["ntk_condition", "linear_regions"], monkeypatch, draws)
    whole = pruning.total_work(SPACE, setting.options)
    for name, criterion in CRITERIA.items():
        monkeypatch.setitem(CRITERIA, name, criterion._replace(measure=_reporting(criterion.measure)))
    kept = [pruning.first_state(SPACE)]
    pruning.search(setting, 0, kept[0], kept.append)
    assert sum(work) == whole
    for state in kept[1::7]:
        work.clear()
        pruning.search(setting, 0, state, lambda state: None)
        assert sum(work) == whole


def _reporting(measure):
    def measured(setting, key, masks):
        setting.advance(len(masks["normal"]))
        return measure(setting, key, masks)

    return measured


def test_trace_says_by_which_criterion_an_edge_was_decided():
    candidates = [Candidate("normal", 0, operation) for operation in range(3)]
    this = Round("operations", [*candidates, Candidate("reduce", 1, 2)])
    ranks = {"ntk_condition": [0, 1, 2, 9], "linear_regions": [2, 1, 0, 9]}
    assert pruning._decided_by(this, ranks, 0) == "ntk_condition"
    assert pruning._decided_by(this, ranks, 1) == "compromise"
    assert pruning._decided_by(this, ranks, 2) == "linear_regions"
    assert pruning._decided_by(this, ranks, 3) == "ntk_condition linear_regions"
    group = Round("edges", [Candidate("normal", edge, 0) for edge in range(4)])
    assert pruning._decided_by(group, {"ntk_condition": [0, 1, 2, 3], "linear_regions": [3, 1, 0, 2]}, 1) == (
        "ntk_condition linear_regions"
    )


def test_common_draws_measure_the_unpruned_network_once_per_repeat(monkeypatch):
    setting, calls, _ = fake_setting(["linear_regions"], monkeypatch)
    pruning.search(setting, 7, pruning.first_state(SPACE), lambda state: None)
    assert calls[:2] == [("linear_regions", (7, 0, 0), 127), ("linear_regions", (7, 0, 1), 127)]


def test_search_resumed_from_any_draw_or_round_is_the_same(monkeypatch):
    setting, *_ = fake_setting(["ntk_condition", "linear_regions"], monkeypatch)
    kept = [pruning.first_state(SPACE)]
    whole = pruning.search(setting, 3, kept[0], kept.append)
    for state in kept:
        stored = json.loads(json.dumps(state.to_json()))
        resumed = pruning.search(setting, 3, pruning.State.from_json(stored), lambda state: None)
        assert _without_seconds(resumed) == _without_seconds(whole)


def _without_seconds(state):
    values = state.to_json()
    for cost in values["costs"].values():
        del cost["seconds"]
    return values


def test_what_is_worst_goes_first(monkeypatch):
    """With one criterion the removed operations are those whose absence changes it most."""
    setting, *_ = fake_setting(["ntk_condition"], monkeypatch, repeat=1)
    state = pruning.first_state(SPACE)
    this = pruning.next_round(SPACE, state.masks)
    draw = pruning.measure_draw(setting, "ntk_condition", this.candidates, state.masks, (0, 0, 0), pruning.Cost())
    scores = {"ntk_condition": pruning.score("ntk_condition", [draw], where="test")}
    after = pruning.prune(setting, this, scores, state)
    change = scores["ntk_condition"].change[0]
    for edge in range(9):
        members = [i for i, c in enumerate(this.candidates) if c.cell == "normal" and c.edge == edge]
        gone = [i for i in members if not after.masks["normal"][edge, this.candidates[i].operation]]
        assert len(gone) == 1
        assert change[gone[0]] == max(change[i] for i in members)


def test_random_genotypes_are_valid_and_cover_the_space():
    genotypes = [check_genotype(pruning.random_genotype(SPACE, seed)) for seed in range(60)]
    assert genotypes[0] == pruning.random_genotype(SPACE, 0)
    used = {name for g in genotypes for kind in CELL_TYPES for node in g[kind] for name, _ in node}
    assert used == set(SPACE.operations)
    assert {node[0][1] for g in genotypes for node in [g["normal"][2]]} == {0, 1, 2}
    for genotype in genotypes:
        for kind in CELL_TYPES:
            assert all(len({source for _, source in node}) == 2 for node in genotype[kind])
