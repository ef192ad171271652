"""Algorithm 1: ranks, ties, the edge stage, draws, and whole searches over made-up scores."""

import json
import math
from pathlib import Path

import literal
import numpy as np
import pytest
import torch
from small_search import make_plan

from metantk.criteria.base import Criterion, Measured, RandomKeys, load_criterion
from metantk.criteria.inputs import draw_crops, draw_tasks
from metantk.options.searches.sample import SampleOptions
from metantk.runtime.devices import generator
from metantk.runtime.files import DivergedError
from metantk.searches import prune, sample
from metantk.searches.plan import Plan
from metantk.searches.prune import Candidate, Cost, Round
from metantk.space.genotype import CELL_TYPES, SPACES, check_genotype, to_genotype
from metantk.space.supernet import initialise

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "ranking_cases.json").read_text())
SPACE = SPACES["few-shot"]
LARGER_IS_BETTER = {"meta_ntk_condition": False, "ntk_condition": False, "ntk_spectral_entropy": True}
LARGER_IS_BETTER |= {"linear_regions": True}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["kind"])
def test_ranks_and_choices_are_the_published_ones(case):
    keys = [tuple(key) for _, key in case["ntk_all"]]
    regions = {tuple(key): score for score, key in case["regions_all"]}
    scores = {
        "meta_ntk_condition": [score for score, _ in case["ntk_all"]],
        "linear_regions": [regions[key] for key in keys],
    }
    order, ranks = prune.removal_order(scores, dict.fromkeys(scores, 1.0), LARGER_IS_BETTER)
    got = [[list(keys[i]), [ranks["meta_ntk_condition"][i], ranks["linear_regions"][i]]] for i in order]
    assert got == case["rankings"]
    stage = {"op": "operations", "group": "edges"}[case["kind"]]
    removed = prune.choose_removed(Round(stage, [Candidate(*key) for key in keys]), order)
    expected = [choice[0] if case["kind"] == "op" else choice for choice in case["choices"]]
    assert [list(keys[i]) for i in removed] == expected


def test_equal_scores_share_a_rank_and_the_next_is_one_higher():
    ranks, order = prune.dense_ranks([0.1, 0.3, 0.1, 0.2], descending=True)
    assert order == [1, 3, 0, 2]
    assert ranks == [2, 0, 2, 1]


def test_order_uses_rounded_scores_and_ties_unrounded_ones():
    """0.12344 and 0.12341 are equal to 3 digits, so their given order stays; unequal unrounded, they tie not."""
    ranks, order = prune.dense_ranks([0.12341, 0.12344], descending=True)
    assert order == [0, 1]
    assert ranks == [0, 1]


def criterion_of(change: str, *, larger_is_better: bool = False) -> Criterion:
    return Criterion(measure=None, larger_is_better=larger_is_better, title="made up", change=change)


def compare(change: str, unpruned: list[float], pruned: list[float], **options) -> list[float]:
    criterion = criterion_of(change, **options)
    draw = prune.Draw(unpruned, pruned)
    return prune.score(criterion, [draw], where="test").change[0].tolist()


def test_changes_are_relative_to_the_size_differences_or_logarithms():
    """Each positive where the value falls, also for values below zero; rounded to 3 decimals."""
    assert compare("relative", [10, 10, -10, -10, 3], [8, 12, -12, -8, 2]) == [0.2, -0.2, 0.2, -0.2, 0.333]
    assert compare("difference", [10, -10, 0], [8.1234, -8, 1]) == [1.877, -2, -1]
    assert compare("logarithm", [10, 1], [1, math.e**2]) == [2.303, -2]


@pytest.mark.parametrize("change", ["relative", "difference", "logarithm"])
@pytest.mark.parametrize(("larger_is_better", "worst"), [(False, -math.inf), (True, math.inf)])
def test_values_that_are_not_finite_are_the_worst_or_say_nothing(change, larger_is_better, worst, caplog):
    changes = compare(
        change,
        [10, 10, math.inf, -math.inf, math.nan],
        [math.inf, math.nan, 5, math.inf, 5],
        larger_is_better=larger_is_better,
    )
    assert changes[:2] == [worst, worst]
    assert np.isnan(changes[2:]).all()
    assert "test: no value (a singular or not finite kernel) of 3 unpruned and 3 pruned networks" in caplog.text


@pytest.mark.parametrize(
    ("change", "unpruned", "pruned", "expected"),
    [
        ("relative", 0, 5, math.nan),  # no size to compare with
        ("relative", 5, 0, 1.0),
        ("difference", 0, 5, -5.0),
        ("logarithm", 0, 5, math.nan),
        ("logarithm", -1, 5, math.nan),
        ("logarithm", 5, 0, -math.inf),
        ("logarithm", 5, -1, -math.inf),
    ],
)
def test_values_without_a_size_or_a_logarithm(change, unpruned, pruned, expected):
    """Beside a candidate whose own unpruned network has a value."""
    assert compare(change, [unpruned, 1], [pruned, 1]) == pytest.approx([expected, 0], nan_ok=True)


@pytest.mark.parametrize("change", ["relative", "difference", "logarithm"])
@pytest.mark.parametrize(("larger_is_better", "worst"), [(False, -math.inf), (True, math.inf)])
def test_where_the_unpruned_network_is_singular_candidates_are_compared_with_their_median(
    change, larger_is_better, worst, caplog
):
    lost = [math.inf] * 5
    changes = compare(change, lost, [4, 2, 8, math.inf, math.nan], larger_is_better=larger_is_better)
    expected = {"relative": [0, 0.5, -1], "difference": [0, 2, -4], "logarithm": [0, 0.693, -0.693]}[change]
    assert changes == pytest.approx([*expected, worst, worst])
    assert "the unpruned network has no value in 1 of 1 draws" in caplog.text


def test_a_singular_unpruned_network_does_not_leave_the_choice_to_the_order_of_the_list():
    """What makes the kernel best by its absence goes first, however late it stands."""
    plan, *_ = fake_plan(["ntk_condition"])
    state = prune.first_state(SPACE)
    this = prune.next_round(SPACE, state.masks)
    draw = prune.measure_draw(plan, "ntk_condition", this.candidates, state.masks, (0, 0, 0), Cost())
    singular = draw._replace(unpruned=[math.inf] * len(draw.pruned))
    scores = {"ntk_condition": prune.score(plan.criteria["ntk_condition"], [singular], where="test")}
    after = prune.prune(plan, this, scores, state)
    for edge in range(9):
        values = {
            c.operation: v
            for c, v in zip(this.candidates, draw.pruned, strict=True)
            if (c.cell, c.edge) == ("normal", edge)
        }
        (gone,) = (operation for operation in values if not after.masks["normal"][edge, operation])
        assert values[gone] == pytest.approx(min(values.values()), rel=1e-3)


def test_a_round_without_any_value_ends_the_search():
    """Not the first alone: later, the order of the list would have decided without a word."""
    plan, *_ = fake_plan(["ntk_condition"], repeats=1)
    found = plan.criteria["ntk_condition"].measure

    def singular_when_small(context, options, keys, masks):
        measured = found(context, options, keys, masks)
        left = sum(masks[kind].sum((1, 2)) for kind in CELL_TYPES).numpy()
        return measured._replace(values=np.where(left < 100, np.nan, measured.values))

    criteria = {"ntk_condition": plan.criteria["ntk_condition"]._replace(measure=singular_when_small)}
    with pytest.raises(DivergedError, match="no value for any of 90 candidates of round 2"):
        prune.search(plan._replace(criteria=criteria), 0, prune.first_state(SPACE), lambda state: None)


def test_means_leave_out_draws_that_say_nothing():
    means = prune.mean_change(np.array([[0.2, math.nan, 0.5], [0.4, math.nan, math.nan]]))
    assert means == pytest.approx([0.3, 0.0, 0.5])


def test_a_candidate_with_a_singular_kernel_goes_last():
    weights = {"ntk_condition": 1.0, "ntk_spectral_entropy": 1.0}
    for name, scores in (
        ("ntk_condition", [0.1, -math.inf, 0.3]),
        ("ntk_spectral_entropy", [0.1, math.inf, -0.3]),
    ):
        order, _ = prune.removal_order({name: scores}, weights, LARGER_IS_BETTER)
        assert order == [2, 0, 1]


def test_weights_multiply_ranks():
    scores = {"ntk_condition": [0.3, 0.2, 0.1], "linear_regions": [0.3, 0.2, 0.1]}
    for weights, expected in (((1.0, 0.5), [0, 1, 2]), ((0.5, 1.0), [2, 1, 0])):
        order, _ = prune.removal_order(scores, dict(zip(scores, weights, strict=True)), LARGER_IS_BETTER)
        assert order == expected


def fake_plan(
    criteria: list[str], random_numbers: str = "common", repeats: int = 2
) -> tuple[Plan, list, list[int]]:
    """A plan whose criteria are sums of fixed random worths of the operations: no network is built."""
    calls = []

    def measure(name):
        worth = {
            kind: torch.from_numpy(np.random.default_rng([len(name), index]).uniform(1, 2, size=(9, 7)))
            for index, kind in enumerate(CELL_TYPES)
        }

        def values(context, options, keys, masks):
            calls.append((name, keys, len(masks["normal"])))
            context.advance(len(masks["normal"]))
            values = sum((masks[kind] * worth[kind]).sum((1, 2)) for kind in CELL_TYPES).numpy()
            return Measured(values, operations=10 * len(values))

        return values

    work = []
    plan = make_plan(criteria=criteria, random_numbers=random_numbers, repeats=repeats)
    made_up = {name: criterion._replace(measure=measure(name)) for name, criterion in plan.criteria.items()}
    return plan._replace(criteria=made_up, context=plan.context._replace(advance=work.append)), calls, work


STYLES = ["common", "independent", "published"]


@pytest.mark.parametrize("draws", STYLES)
def test_search_ends_with_two_inputs_per_node_and_traces_every_candidate(draws):
    plan, calls, _ = fake_plan(["meta_ntk_condition", "linear_regions"], draws)
    kept = []
    state = prune.search(plan, 0, prune.first_state(SPACE), kept.append)
    genotype = check_genotype(to_genotype(SPACE, state.masks))
    for kind in CELL_TYPES:
        for node in genotype[kind]:
            assert len(node) == 2
            assert node[0][1] != node[1][1]
    counts = [sum(row["round"] == index for row in state.rows) for index in range(state.rounds)]
    assert counts == [126, 108, 90, 72, 54, 36, 3, 4, 3, 4]
    assert sum(row["removed"] for row in state.rows) == 6 * 18 + 2 * (1 + 2)
    assert len(kept) == state.rounds * (1 + 2 * 2)
    for name, cost in state.costs.items():
        assert cost.evaluations == sum(count for called, _, count in calls if called == name)
        assert cost.operations == 10 * cost.evaluations
    assert prune.trace_columns(plan.criteria) == list(state.rows[0])


@pytest.mark.parametrize("draws", STYLES)
def test_progress_ends_at_the_whole_work_wherever_a_search_goes_on(draws):
    plan, _, work = fake_plan(["ntk_condition", "linear_regions"], draws)
    whole = prune.total_work(SPACE, plan.options)
    kept = [prune.first_state(SPACE)]
    prune.search(plan, 0, kept[0], kept.append)
    assert sum(work) == whole
    for state in kept[1::7]:
        work.clear()
        prune.search(plan, 0, state, lambda state: None)
        assert sum(work) == whole


def test_trace_says_by_which_criterion_an_edge_was_decided():
    candidates = [Candidate("normal", 0, operation) for operation in range(3)]
    this = Round("operations", [*candidates, Candidate("reduce", 1, 2)])
    ranks = {"ntk_condition": [0, 1, 2, 9], "linear_regions": [2, 1, 0, 9]}
    assert prune._decided_by(this, ranks, 0) == "ntk_condition"
    assert prune._decided_by(this, ranks, 1) == "compromise"
    assert prune._decided_by(this, ranks, 2) == "linear_regions"
    assert prune._decided_by(this, ranks, 3) == "ntk_condition linear_regions"
    group = Round("edges", [Candidate("normal", edge, 0) for edge in range(4)])
    assert prune._decided_by(group, {"ntk_condition": [0, 1, 2, 3], "linear_regions": [3, 1, 0, 2]}, 1) == (
        "ntk_condition linear_regions"
    )


def calls_of_draw(draws: str, name: str, repeat: int = 0) -> list[tuple[RandomKeys, int]]:
    """Keys and number of networks of each measurement of two candidates of round 4 of seed 7."""
    plan, calls, _ = fake_plan([name], draws)
    masks = prune.first_state(SPACE).masks
    candidates = prune.next_round(SPACE, masks).candidates[:2]
    prune.measure_draw(plan, name, candidates, masks, (7, 4, repeat), Cost())
    return [(keys, count) for _, keys, count in calls]


def test_common_draws_measure_the_unpruned_network_once_per_repeat():
    for repeat in (0, 1):
        key = (7, 4, repeat)
        assert calls_of_draw("common", "linear_regions", repeat) == [(RandomKeys(key, key), 3)]


def test_independent_draws_are_a_candidates_own_and_both_networks_of_a_pair_share_them():
    keys = [(7, 4, 1, candidate) for candidate in (0, 1)]
    assert calls_of_draw("independent", "linear_regions", 1) == [(RandomKeys(key, key), 2) for key in keys]


def test_published_draws_fix_the_body_for_a_round_and_draw_images_and_heads_anew():
    calls = [calls_of_draw("published", "meta_ntk_condition", repeat) for repeat in (0, 1)]
    keys = [keys for of_repeat in calls for keys, _ in of_repeat]
    assert [count for of_repeat in calls for _, count in of_repeat] == [2] * 4  # repeats × candidates: a pair each
    assert {draws.weights for draws in keys} == {(7, 4)}  # seed and round
    for part in ("images", "head"):  # a pair's own: candidate and repeat
        assert len({getattr(draws, part) for draws in keys} - {None}) == 4


def test_published_draws_keep_the_weights_of_a_thin_network_for_all_repeats_of_its_candidate():
    calls = [calls_of_draw("published", "linear_regions", repeat) for repeat in (0, 1)]
    weights = [[draws.weights for draws, _ in of_repeat] for of_repeat in calls]
    assert weights[0] == weights[1] == [(7, 4, 0), (7, 4, 1)]
    assert len({draws.images for of_repeat in calls for draws, _ in of_repeat}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("draws", STYLES)
def test_values_of_a_draw_are_those_of_plain_networks_one_by_one(draws):
    """Bodies are those of the round's network, cut out; in published draws heads are fresh for each network."""
    plan = make_plan(random_numbers=draws)
    masks = prune.first_state(SPACE).masks
    candidates = prune.next_round(SPACE, masks).candidates[5:30:12]
    got = {name: prune.measure_draw(plan, name, candidates, masks, (3, 1, 0), Cost()) for name in plan.criteria}
    for index, candidate in enumerate(candidates):
        wide, thin, drawn = {
            "common": [(3, 1, 0)] * 3,
            "independent": [(3, 1, 0, index)] * 3,
            "published": [(3, 1), (3, 1, index), (3, 1, 0, index)],
        }[draws]
        plain, plain_thin = (literal.Networks(plan, key, masks) for key in (wide, thin))
        images = draw_tasks(plan.context, plan.criteria_options["meta_ntk_condition"], drawn)
        crops = draw_crops(plan.context, plan.criteria_options["linear_regions"], drawn)
        pair = prune.batch_masks(masks, [candidate])
        for side, values in enumerate(prune.Draw._fields):
            mask = {kind: of_pair[side] for kind, of_pair in pair.items()}
            if draws == "published":
                initialise(plain.wide.head, "kaiming_normal", generator("head", *drawn, side))
            condition = literal.meta_ntk_condition(plan, plain.plain(mask), images)
            found = {name: getattr(draw, values)[index] for name, draw in got.items()}
            assert found["meta_ntk_condition"] == pytest.approx(condition, rel=1e-6)
            assert found["linear_regions"] == literal.regions(plain_thin.plain_thin(mask), crops)


@pytest.mark.slow
@pytest.mark.parametrize("draws", STYLES)
def test_search_resumed_from_any_draw_or_round_is_the_same(draws):
    plan, *_ = fake_plan(["ntk_condition", "linear_regions"], draws)
    kept = [prune.first_state(SPACE)]
    whole = prune.search(plan, 3, kept[0], kept.append)
    for state in kept[:: 1 if draws == "common" else 7]:
        stored = json.loads(json.dumps(state.to_json()))
        resumed = prune.search(plan, 3, prune.State.from_json(stored), lambda state: None)
        assert _without_seconds(resumed) == _without_seconds(whole)


def _without_seconds(state):
    values = state.to_json()
    for cost in values["costs"].values():
        del cost["seconds"]
    return values


@pytest.mark.parametrize(("name", "extreme"), [("ntk_condition", max), ("linear_regions", min)])
def test_what_is_worst_goes_first(name, extreme):
    """With one criterion the removed operations are those whose absence makes it best."""
    plan, *_ = fake_plan([name], repeats=1)
    state = prune.first_state(SPACE)
    this = prune.next_round(SPACE, state.masks)
    draw = prune.measure_draw(plan, name, this.candidates, state.masks, (0, 0, 0), Cost())
    scores = {name: prune.score(plan.criteria[name], [draw], where="test")}
    after = prune.prune(plan, this, scores, state)
    change = scores[name].change[0]
    for edge in range(9):
        members = [i for i, c in enumerate(this.candidates) if c.cell == "normal" and c.edge == edge]
        gone = [i for i in members if not after.masks["normal"][edge, this.candidates[i].operation]]
        assert len(gone) == 1
        assert change[gone[0]] == extreme(change[i] for i in members)


def test_one_way_of_change_is_asked_of_each_criterion():
    """A relative change of an entropy near zero would be huge; its difference is not."""
    draw = prune.Draw([0.001, 0.001], [0.5, 0.2])
    entropy = prune.score(load_criterion("ntk_spectral_entropy"), [draw], where="test")
    assert entropy.change.tolist() == [[-0.499, -0.199]]
    condition = prune.score(load_criterion("ntk_condition"), [draw], where="test")
    assert condition.change.tolist() == [[-499.0, -199.0]]


def random_genotype(seed: int, space: str = "few-shot") -> dict:
    return sample.find(None, SampleOptions(space=space), seed, None).genotype


@pytest.mark.parametrize("space", ["few-shot", "darts"])
def test_random_genotypes_are_valid_and_cover_the_space(space):
    genotypes = [check_genotype(random_genotype(seed, space)) for seed in range(60)]
    assert genotypes[0] == random_genotype(0, space)
    used = {name for g in genotypes for kind in CELL_TYPES for node in g[kind] for name, _ in node}
    assert used == set(SPACES[space].operations)
    assert {node[0][1] for g in genotypes for node in [g["normal"][2]]} == {0, 1, 2}
    for genotype in genotypes:
        for kind in CELL_TYPES:
            assert all(len({source for _, source in node}) == 2 for node in genotype[kind])
