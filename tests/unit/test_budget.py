"""Budgets: sizes by addition, what is possible, uniform samples, and searches that stay within them."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from small_meta_search import Memory, assert_resumes, make_problem
from small_search import SECTIONS, make_plan
from test_bayesian_optimisation import own_criterion, truth

from metantk.backbones.cells import Network
from metantk.backbones.counting import count_macs, count_parameters
from metantk.options.base import parse
from metantk.options.budget import NS_OF_MS, BudgetOptions
from metantk.options.config import parse_config
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.options.searches.best_of import BestOfOptions
from metantk.options.searches.prune import PruneOptions
from metantk.options.searches.sample import SampleOptions
from metantk.runtime.files import InputError
from metantk.searches import bayesian_optimisation, best_of, prune
from metantk.searches import sample as random_search
from metantk.searches.budget import Feasible, budget_of
from metantk.searches.sample import random_genotype
from metantk.space import paths
from metantk.space.budget import Budget
from metantk.space.genotype import CELL_TYPES, SPACES, Space, to_genotype
from metantk.space.layouts import make_layout
from metantk.space.sizes import Size, StackSizes, stack_sizes
from metantk.space.supernet import full_masks

FEW_SHOT = SPACES["few-shot"]
# Three operations on two nodes: each of its 26 244 architectures can be looked at.
SMALL = Space(("skip_connect", "conv_1x5_5x1", "max_pool_3x3"), nodes=2)


def size_of_network(genotype: dict, layout, side: int) -> Size:
    """Counted on the network itself."""
    network = Network(genotype, layout, classes=7)
    head = count_parameters(network.head)
    return Size(count_parameters(network) - head, count_macs(network, side) - network.head.weight.numel())


@pytest.mark.parametrize(
    ("space", "layout", "cells", "channels", "side"),
    [
        ("few-shot", "few-shot", 3, 4, 20),
        ("few-shot", "few-shot", 5, 3, 13),
        ("darts", "few-shot", 2, 6, 21),
        ("few-shot", "metanas", 5, 4, 17),
        ("darts", "t-nas", 2, 5, 23),
    ],
)
def test_sizes_are_those_of_the_networks(space, layout, cells, channels, side):
    stack = make_layout(layout, cells=cells, channels=channels)
    sizes = stack_sizes(SPACES[space], stack, side)
    for seed in range(3):
        genotype = random_genotype(SPACES[space], seed)
        assert sizes.of_genotype(SPACES[space], genotype) == size_of_network(genotype, stack, side)


def small_sizes():
    """With latencies of few digits, so that some architectures share theirs."""
    sizes = stack_sizes(SMALL, make_layout("few-shot", cells=3, channels=2), 8)
    rng = np.random.default_rng(7)
    choices = {
        cell: [[size._replace(latency_ns=int(rng.integers(4))) for size in edge] for edge in edges]
        for cell, edges in sizes.choices.items()
    }
    return StackSizes(sizes.fixed._replace(latency_ns=5), choices)


def all_sizes() -> Counter:
    """Of every architecture of the small space, one by one."""
    sizes = small_sizes()
    places = [paths.contents(SMALL)[node].tolist() for node in range(2 * SMALL.nodes)]
    flat = [size for cell in CELL_TYPES for edge in sizes.choices[cell] for size in edge]
    found = Counter()
    for pairs in itertools.product(*places):
        total = sizes.fixed
        for choice in itertools.chain(*pairs):
            total = total.plus(flat[choice])
        found[total] += 1
    return found


@pytest.mark.parametrize("respect", range(3))
def test_the_smallest_and_the_largest_are_those_of_all_architectures(respect):
    smallest, largest = Budget(SMALL, small_sizes(), BudgetOptions(parameters=10**9)).range()
    every = [size[respect] for size in all_sizes()]
    assert (smallest[respect], largest[respect]) == (min(every), max(every))


def test_architectures_within_a_budget_are_counted_and_equally_likely():
    every = all_sizes()
    middle = sorted(every.elements())[every.total() // 2]
    limits = BudgetOptions(
        parameters=middle.parameters,
        min_parameters=middle.parameters - 120,
        multiply_accumulates=middle.multiply_accumulates,
        latency_ms=middle.latency_ns / NS_OF_MS,
    )
    budget = Feasible(SMALL, small_sizes(), limits)
    within = {size: count for size, count in every.items() if budget.allows(np.array(size))}
    assert 3 < len(within) < len(every)
    assert budget.count == sum(within.values())
    rows = budget.sample(2000, np.random.default_rng(0))
    drawn = Counter(budget.size_of(paths.genotype_of(SMALL, row)) for row in rows)
    assert drawn.keys() <= within.keys()
    common = [size for size in within if within[size] * 2000 / budget.count > 5]
    rare = sum(drawn[size] for size in within if size not in common)
    expected = np.array([within[size] for size in common]) * 2000 / budget.count
    observed = [*(drawn[size] for size in common), rare]
    expected = [*expected, 2000 - expected.sum()]
    observed, expected = zip(*((o, e) for o, e in zip(observed, expected, strict=True) if e > 1e-6), strict=True)
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    # Of one size, every architecture comes up.
    size, count = max(within.items(), key=lambda item: -abs(item[1] - 40))
    one = Feasible(
        SMALL,
        small_sizes(),
        BudgetOptions(
            parameters=size.parameters,
            min_parameters=size.parameters,
            multiply_accumulates=size.multiply_accumulates,
            latency_ms=size.latency_ns / NS_OF_MS,
        ),
    )
    assert one.count >= count
    assert len(np.unique(one.sample(20 * one.count, np.random.default_rng(1)), axis=0)) == one.count


@pytest.mark.parametrize("seed", range(3))
def test_whether_choices_that_are_left_fit_is_known_exactly(seed):
    """Compared with every architecture that the masks leave."""
    rng = np.random.default_rng(seed)
    sizes = small_sizes()
    every = sorted(all_sizes().elements())
    for _ in range(40):
        low, high = sorted(rng.choice(len(every), 2))
        limits = BudgetOptions(
            min_parameters=every[low].parameters,
            parameters=every[high].parameters,
            multiply_accumulates=every[rng.integers(len(every))].multiply_accumulates,
            latency_ms=every[rng.integers(len(every))].latency_ns / NS_OF_MS,
        )
        try:
            budget = Feasible(SMALL, sizes, limits)
        except InputError:
            assert not any(
                limits.min_parameters <= size.parameters <= limits.parameters
                and size.multiply_accumulates <= limits.multiply_accumulates
                and size.latency_ns <= limits.latency_ns
                for size in every
            )
            continue
        masks = {cell: rng.random((len(SMALL.edges), 3)) < 0.6 for cell in CELL_TYPES}
        allowed = np.concatenate([masks[cell].ravel() for cell in CELL_TYPES])
        nodes = [pairs[allowed[pairs].all(1)] for pairs in paths.contents(SMALL)]
        totals = np.array([sizes.fixed])
        for pairs in nodes:
            each = budget.sizes_of_choices[pairs].sum(1)
            totals = np.unique((totals[:, None] + each).reshape(-1, 3), axis=0)
        assert budget.fits(masks) == bool(budget.allows(totals).any())


@pytest.mark.parametrize(
    ("text", "number"), [(20000, 20000), ("20k", 20000), ("5M", 5_000_000), ("1.5G", 1_500_000_000), ("7", 7)]
)
def test_numbers_with_units_are_read(text, number):
    assert parse(BudgetOptions, {"parameters": text}, where="budget").parameters == number


@pytest.mark.parametrize("text", ["20K", "k", "1.2345k", "-1", "1e3", "20 k", -1, 2.5, True, "9" * 16])
def test_what_is_no_number_is_one_line(text):
    with pytest.raises(InputError, match="'parameters'"):
        parse(BudgetOptions, {"parameters": text}, where="budget")


def test_limits_that_cross_are_refused():
    with pytest.raises(InputError, match="min_parameters 2000 is above parameters 1000"):
        parse(BudgetOptions, {"parameters": "1k", "min_parameters": "2k"}, where="budget")


def feasible(**limits) -> Feasible:
    """Of the problem of the tests: 2 cells of 4 channels, 12×12 images."""
    return budget_of(make_problem(), SampleOptions(budget=BudgetOptions(**limits)), Memory())[0]


def test_an_infeasible_budget_is_refused_with_what_is_possible():
    smallest, largest = feasible(parameters=10**6).range()
    with pytest.raises(
        InputError,
        match=f"no architecture has parameters ≤ {smallest.parameters - 1:,}; possible are"
        f" {smallest.parameters:,} to {largest.parameters:,} parameters, without the head",
    ):
        feasible(parameters=smallest.parameters - 1)
    assert feasible(parameters=smallest.parameters).count > 0
    with pytest.raises(InputError, match="multiply-accumulates ≤ 1; possible are"):
        feasible(min_parameters=largest.parameters, multiply_accumulates=1)


def test_random_architectures_are_within_the_budget_and_say_their_size():
    limits = BudgetOptions(parameters="4k", multiply_accumulates="200k")
    found = [random_search.find(make_problem(), SampleOptions(budget=limits), seed, Memory()) for seed in range(5)]
    layout = make_layout("few-shot", cells=2, channels=4)
    for each in found:
        size = size_of_network(each.genotype, layout, 12)
        assert size.parameters <= 4000
        assert size.multiply_accumulates <= 200_000
        facts = json.loads(json.dumps(each.facts["budget"]))
        assert (facts["parameters"], facts["multiply_accumulates"]) == size[:2]
        assert "latency_ms" not in facts
    assert len({json.dumps(each.genotype) for each in found}) > 1


def test_without_a_budget_the_random_architecture_is_the_former_one():
    found = random_search.find(make_problem(), SampleOptions(), 3, Memory())
    assert found.genotype == random_genotype(FEW_SHOT, 3)
    assert found.facts == {}


# --- The configuration ------------------------------------------------------------------------------------------


def configure(search: dict, *, image_size: int | None = 20, **more: dict):
    """A configuration of one search of 3 cells of 4 channels on glyphs."""
    return parse_config(
        {
            "datasets": {"glyphs": {"source": "glyphs", "image_size": image_size}},
            "rows": [{"backbone": "3cells-4ch", "search": ["mine", *more]}],
            "searches": {"mine": search, **more},
        }
    )


def test_several_budgets_stand_in_one_configuration():
    config = configure(
        {"kind": "sample", "budget": {"parameters": "5k"}},
        **{"random-10k": {"kind": "sample", "budget": {"min_parameters": 9000, "parameters": "10k"}}},
    )
    assert config.search("mine").budget == BudgetOptions(parameters=5000)
    assert config.search("random-10k").budget == BudgetOptions(parameters=10_000, min_parameters=9000)
    assert config.title("searches", "random-10k") == "random-10k"


@pytest.mark.parametrize("kind", ["sample", "prune", "bayesian-optimisation", "best-of"])
def test_a_budget_that_nothing_meets_is_refused_with_the_configuration(kind):
    criteria = {} if kind == "sample" else {"criteria": ["linear_regions"]}
    message = (
        "rows: backbone 3cells-4ch, search mine: budget: no architecture has parameters ≤ 1,000; possible are 1,108"
        " to 21,460 parameters, without the head"
    )
    with pytest.raises(InputError, match=message):
        configure({"kind": kind, "budget": {"parameters": "1k"}, **criteria})


def test_multiply_accumulates_are_checked_where_the_size_of_images_is_known():
    search = {"kind": "sample", "budget": {"multiply_accumulates": "100k"}}
    with pytest.raises(InputError, match=r"multiply-accumulates ≤ 100,000; possible are 164,800 to 1,316,800"):
        configure(search)
    assert configure(search, image_size=None).search("mine").budget.multiply_accumulates == 100_000


@pytest.mark.parametrize("kind", ["t-nas", "metanas", "autometa", "given"])
def test_searches_without_budgets_refuse_them_in_one_line(kind):
    with pytest.raises(InputError, match=r"searches\.mine: unknown key 'budget'"):
        configure({"kind": kind, "budget": {"parameters": "20k"}})


# --- Algorithm 1 -----------------------------------------------------------------------------------------------


def prune_by(scores: dict, budget: Feasible | None) -> prune.State:
    """A whole pruning in which an operation is the sooner removed, the higher its score."""
    plan = make_plan(criteria=["linear_regions"])
    state = prune.first_state(plan.space)
    while (this := prune.next_round(plan.space, state.masks)) is not None:
        change = [[scores[candidate] for candidate in this.candidates]]
        values = prune.Score(np.ones_like(change), np.ones_like(change), np.array(change))
        state = prune.prune(plan, this, {"linear_regions": values}, state, budget)
    return state


def random_scores(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    masks = full_masks(FEW_SHOT)
    return {
        prune.Candidate(cell, edge, operation): rng.normal()
        for cell in CELL_TYPES
        for edge, operation in masks[cell].nonzero().tolist()
    }


def test_pruning_ends_within_a_narrow_budget_and_says_where_that_decided():
    scores = random_scores(1)
    free = to_genotype(FEW_SHOT, prune_by(scores, None).masks)
    size = feasible(parameters=10**6).size_of(free)
    limits = {"parameters": size.parameters - 300, "min_parameters": size.parameters - 340}
    budget = feasible(**limits)
    state = prune_by(scores, budget)
    found = budget.size_of(to_genotype(FEW_SHOT, state.masks))
    assert limits["min_parameters"] <= found.parameters <= limits["parameters"]
    decided = [row for row in state.rows if row["decided_by"] == "budget"]
    assert decided
    assert all(row["removed"] for row in decided)
    per_edge = Counter((row["round"], row["cell"], row["edge"]) for row in state.rows if row["removed"])
    assert set(per_edge.values()) == {1}


def test_a_budget_that_binds_nowhere_changes_nothing():
    scores = random_scores(0)
    free, within = prune_by(scores, None), prune_by(scores, feasible(parameters=10**6))
    assert free.rows == within.rows
    assert to_genotype(FEW_SHOT, free.masks) == to_genotype(FEW_SHOT, within.masks)


# --- Bayesian optimisation, best-of ----------------------------------------------------------------------------


def test_bayesian_optimisation_measures_and_finds_only_what_is_within_the_budget(tmp_path):
    criterion = own_criterion(tmp_path, noise=0.0, name="exact_within")
    limits = BudgetOptions(parameters="2500")
    options = BayesianOptimisationOptions(
        criteria=[criterion],
        budget=limits,
        initial_samples=150,
        max_evaluations=190,
        tolerance=0.0,
        random_comparisons=20,
    )
    found = bayesian_optimisation.find(make_problem(), options, 0, Memory())
    budget = feasible(parameters=2500)
    for choices in found.trace["choices"]:
        row = np.zeros(len(truth()))
        row[list(map(int, choices.split()))] = 1
        assert budget.size_of(paths.genotype_of(FEW_SHOT, row)).parameters <= 2500
    assert found.facts["budget"]["parameters"] <= 2500
    value = paths.row_of(FEW_SHOT, found.genotype) @ truth()
    random = budget.sample(300, np.random.default_rng(0)) @ truth()
    assert value < random.min()


def test_best_of_finds_the_best_of_its_sample(tmp_path):
    criterion = own_criterion(tmp_path, noise=0.0, larger=True, name="best")
    options = BestOfOptions(criteria=[criterion], architectures=25, budget=BudgetOptions(parameters="3k"))
    found = best_of.find(make_problem(), options, 0, Memory())
    assert len(found.trace) == 25
    best = found.trace.loc[found.trace["chosen"]].iloc[0]
    assert best["best"] == found.trace["best"].max()
    assert found.facts["budget"]["parameters"] <= 3000
    row = np.zeros(len(truth()))
    row[list(map(int, best["choices"].split()))] = 1
    assert paths.genotype_of(FEW_SHOT, row) == found.genotype
    assert found.costs["best"].evaluations == 25


def test_best_of_ranks_as_algorithm_1_does():
    plan = make_plan(criteria=["meta_ntk_condition", {"linear_regions": 2.0}])
    values = {"meta_ntk_condition": [4.0, 2.0, 3.0, 9.0], "linear_regions": [5.0, 1.0, 7.0, 6.0]}
    ranks, sums, best = best_of.choose(plan, values)
    assert ranks == {"meta_ntk_condition": [2, 0, 1, 3], "linear_regions": [2, 3, 0, 1]}
    assert sums == [6.0, 6.0, 1.0, 5.0]
    assert best == 2
    tied = {"meta_ntk_condition": [3.0, 1.0, 2.0], "linear_regions": [9.0, 9.0, 9.0]}
    assert best_of.choose(plan, tied)[2] == 1


def test_best_of_tells_values_apart_that_agree_in_three_digits():
    for name, values, expected in (
        ("linear_regions", [1231.0, 1234.0, 1228.0], [1, 0, 2]),
        ("ntk_condition", [412.4, 412.1, 412.4], [1, 0, 1]),
    ):
        ranks, _, best = best_of.choose(make_plan(criteria=[name]), {name: values})
        assert (ranks, best) == ({name: expected}, 1)


def test_best_of_goes_on_where_it_was_ended():
    options = BestOfOptions(
        criteria=["ntk_condition"], architectures=12, image_size=8, criteria_options={"ntk": SECTIONS["ntk"]}
    )
    whole = best_of.find(make_problem(), options, 0, Memory())
    assert_resumes(best_of, options, whole, kills_at=[1])


def test_options_of_a_pruning_have_no_limit_by_default():
    assert not PruneOptions(criteria=["linear_regions"]).budget.is_set
