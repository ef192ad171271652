"""Latency: graphs that compute what networks do, the sum over choices, and searches that go on with their table."""

import json

import numpy as np
import pytest
import torch
from small_meta_search import Interrupted, Memory, make_problem
from test_bayesian_optimisation import own_criterion
from test_budget import FEW_SHOT, configure, prune_by, random_scores
from torch import nn

from metantk import backbones
from metantk.backbones.graph import UnknownOperation, to_graph
from metantk.backbones.latency import Timed, latency_ms
from metantk.options.base import parse
from metantk.options.budget import BudgetOptions
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.options.searches.best_of import BestOfOptions
from metantk.options.searches.prune import PruneOptions
from metantk.options.searches.sample import SampleOptions
from metantk.runtime import plugins
from metantk.runtime.files import InputError
from metantk.searches import bayesian_optimisation, best_of, latency, sample
from metantk.searches.budget import budget_of
from metantk.searches.latency import FITTED, TRIED, Table, fit_and_try, measure
from metantk.searches.sample import random_genotype
from metantk.space import paths
from metantk.space.genotype import CELL_TYPES, SPACES, to_genotype
from metantk.space.layouts import make_layout
from metantk.space.sizes import stack_sizes

# --- Graphs ----------------------------------------------------------------------------------------------------


def architecture(kind: str, image_size: int, genotype: dict | None = None, **options: object) -> dict:
    found = parse(plugins.options_class("backbones", kind), {"kind": kind, **options}, where="backbone")
    return found.architecture(image_size, genotype)


def cells(space: str, layout: str, count: int, side: int, seed: int) -> dict:
    genotype = random_genotype(SPACES[space], seed)
    return architecture("cells", side, genotype, cells=count, channels=6, layout=layout)


@pytest.mark.parametrize(
    ("described", "side"),
    [
        (cells("few-shot", "few-shot", 3, 13, 0), 13),  # odd: reductions end in zeros
        (cells("few-shot", "metanas", 5, 12, 1), 12),
        (cells("darts", "t-nas", 2, 16, 2), 16),
        (architecture("conv4", 20), 20),
        (architecture("conv4", 32), 32),  # features of more than one pixel
        (architecture("conv4", 33, pool="average"), 33),
        (architecture("resnet12", 16), 16),
        (architecture("pixels", 9), 9),
    ],
)
def test_a_graph_computes_the_features_of_its_network(described, side):
    network = backbones.build(described, 3).to(memory_format=torch.channels_last)  # as trained ones are
    rng = torch.Generator().manual_seed(0)
    network.initialise_(rng)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=rng)
                module.running_var.uniform_(0.5, 2, generator=rng)
    timed = Timed(to_graph(network, side), side, images=3)
    with torch.no_grad():
        expected = network.features(torch.from_numpy(timed.images)).numpy()
    np.testing.assert_allclose(timed.features, expected, rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    """A backbone that does one thing to a mean over pixels."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def features(self, images):
        return self.function(images.mean((2, 3)))


def test_the_latency_of_a_known_network_is_a_time():
    assert 0 < latency_ms(Small(torch.relu), 8, images=2) < 1000


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.cos, "cos.default is not known"),
        (lambda x: x.add(x, alpha=2), "weighted by 2"),
        (lambda x: x * 2.0, "2.0 stands where a tensor is expected"),
        (lambda x: torch.from_numpy(np.cos(x.numpy())), "what its recorded operations do not"),
        (lambda x: x.clamp(0), "is not known"),
        (lambda x: x.missing, "AttributeError: 'Tensor' object has no attribute 'missing'"),
    ],
)
def test_what_cannot_be_written_is_no_latency(function, message):
    with pytest.raises(UnknownOperation, match=message):
        latency_ms(Small(function), 8)


# --- The sum over choices --------------------------------------------------------------------------------------

COSTS = {"skip_connect": 0.0, "skip_connect, halving": 0.4, "sep_conv_3x3": 0.3, "dil_conv_3x3": 0.15}
COSTS |= {"avg_pool_3x3": 0.05, "max_pool_3x3": 0.02, "conv_1x5_5x1": 0.2, "conv_3x3": 0.1}


def made_up_table() -> Table:
    of_normal = {name: cost for name, cost in COSTS.items() if "halving" not in name}
    return Table(
        2.0, {"normal": of_normal, "reduce": {name: 2 * cost for name, cost in COSTS.items()}}, 0, 0, 60, 1.0
    )


def made_up_latency(genotype: dict) -> float:
    """In milliseconds, from the costs themselves."""
    total = 2.0
    for cell in CELL_TYPES:
        for operation, source in (pair for node in genotype[cell] for pair in node):
            halves = cell == "reduce" and source < 2 and operation == "skip_connect"
            total += COSTS[f"{operation}, halving" if halves else operation] * (2 if cell == "reduce" else 1)
    return total


def samples(*counts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [paths.balanced_sample(FEW_SHOT, count, rng) for count in counts]


def test_the_table_gives_each_network_its_latency():
    sizes = stack_sizes(FEW_SHOT, make_layout("few-shot", cells=2, channels=4), 12)
    timed = made_up_table().added_to(sizes, FEW_SHOT)
    for row in samples(20)[0]:
        genotype = paths.genotype_of(FEW_SHOT, row)
        assert timed.of_genotype(FEW_SHOT, genotype).latency_ns == round(1e6 * made_up_latency(genotype))
        assert timed.of_genotype(FEW_SHOT, genotype)[:2] == sizes.of_genotype(FEW_SHOT, genotype)[:2]


def test_costs_that_add_up_are_found_and_errors_are_those_of_other_networks():
    fitted, tried = samples(FITTED, TRIED)

    def exact(rows: np.ndarray) -> np.ndarray:
        return np.array([made_up_latency(paths.genotype_of(FEW_SHOT, row)) for row in rows])

    table = fit_and_try(FEW_SHOT, fitted, tried, exact)
    assert table.worst_error < 1e-6
    sizes = stack_sizes(FEW_SHOT, make_layout("few-shot", cells=2, channels=4), 12)
    timed = table.added_to(sizes, FEW_SHOT)
    for row in samples(0, 0, 20)[2]:
        genotype = paths.genotype_of(FEW_SHOT, row)
        assert timed.of_genotype(FEW_SHOT, genotype).latency_ns == pytest.approx(
            1e6 * made_up_latency(genotype), 1e-4
        )
    wrong = fit_and_try(FEW_SHOT, fitted, tried, lambda rows: exact(rows) * (1 + (np.arange(len(rows)) == FITTED)))
    assert wrong.worst_error == pytest.approx(0.5, abs=1e-6)  # of the one that took twice as long
    assert wrong.median_error < 1e-6


def test_networks_are_measured_in_milliseconds():
    values = measure(make_problem(), FEW_SHOT, samples(2)[0])
    assert values.shape == (2,)
    assert (values > 0).all()


# --- Searches --------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch) -> list:
    """The made-up table in place of a measurement; a list with an entry of each time that it was measured."""
    calls = []

    def measured_table(problem, space):
        calls.append(space)
        return made_up_table()

    monkeypatch.setattr(latency, "measured_table", measured_table)
    return calls


def feasible(limit_ms: float, checkpoint: Memory | None = None, **limits: int):
    options = SampleOptions(budget=BudgetOptions(latency_ms=limit_ms, **limits))
    return budget_of(make_problem(), options, checkpoint or Memory())[0]


def test_a_latency_that_nothing_meets_is_refused_with_what_is_possible(measured):
    with pytest.raises(InputError, match=r"latency ≤ 1\.5 ms; possible are 2\.12 to 8\.6 ms, without the head"):
        feasible(1.5, checkpoint := Memory())
    assert checkpoint.state is None
    with pytest.raises(
        InputError, match=r"parameters ≤ 5 and latency ≤ 3 ms; possible are [0-9,]+ to [0-9,]+ param"
    ):
        feasible(3.0, parameters=5)
    assert len(measured) == 1  # what needs no measurement is refused before it


def test_random_architectures_are_within_a_latency_and_say_how_it_was_measured(measured):
    options = SampleOptions(budget=BudgetOptions(latency_ms=3.0, parameters="4k"))
    checkpoint = Memory()
    found = [sample.find(make_problem(), options, seed, checkpoint) for seed in range(6)]
    assert len(measured) == 1  # once: the checkpoint has it
    for each in found:
        facts = json.loads(json.dumps(each.facts["budget"]))
        assert facts["latency_ms"] == pytest.approx(made_up_latency(each.genotype))
        assert facts["latency_ms"] <= 3.0
        assert facts["parameters"] <= 4000
        assert facts["latency"]["networks"] == 60
        assert facts["smallest"]["latency_ms"] == pytest.approx(2.12)
    assert len({json.dumps(each.genotype) for each in found}) > 1


def test_a_search_that_goes_on_has_the_same_table(measured, monkeypatch):
    options = BestOfOptions(
        criteria=["linear_regions"], architectures=12, image_size=8, budget=BudgetOptions(latency_ms=3.5)
    )
    whole = best_of.find(make_problem(), options, 0, Memory())
    checkpoint = Memory(kills_at=2)  # the table, and the first architectures
    with pytest.raises(Interrupted):
        best_of.find(make_problem(), options, 0, checkpoint)
    monkeypatch.setattr(latency, "measured_table", lambda *_: pytest.fail("it was measured again"))
    resumed = best_of.find(make_problem(), options, 0, Memory(checkpoint.state))
    assert resumed.genotype == whole.genotype
    assert resumed.facts == whole.facts
    assert resumed.trace.equals(whole.trace)
    assert whole.facts["budget"]["latency_ms"] <= 3.5


def test_pruning_ends_within_a_latency(measured):
    scores = random_scores(1)
    free = to_genotype(FEW_SHOT, prune_by(scores, None).masks)
    limit = made_up_latency(free) - 0.5
    state = prune_by(scores, feasible(limit))
    assert made_up_latency(to_genotype(FEW_SHOT, state.masks)) <= limit + 1e-6
    assert any(row["decided_by"] == "budget" for row in state.rows)


def test_bayesian_optimisation_measures_and_finds_only_what_is_within_a_latency(measured, tmp_path):
    options = BayesianOptimisationOptions(
        criteria=[own_criterion(tmp_path, noise=0.0, name="exact_within_latency")],
        budget=BudgetOptions(latency_ms=3.5),
        initial_samples=60,
        max_evaluations=80,
        tolerance=0.0,
        random_comparisons=5,
    )
    found = bayesian_optimisation.find(make_problem(), options, 0, Memory())
    rows = np.zeros((len(found.trace), len(paths.choices(FEW_SHOT))))
    for row, choices in zip(rows, found.trace["choices"], strict=True):
        row[list(map(int, choices.split()))] = 1
    latencies = [made_up_latency(paths.genotype_of(FEW_SHOT, row)) for row in rows]
    assert max([*latencies, made_up_latency(found.genotype)]) <= 3.5 + 1e-6
    assert set(found.trace["stage"]) == {"first sample", "focused"}


def test_only_a_limit_of_latency_makes_networks_part_of_a_search():
    search = {"kind": "prune", "criteria": ["linear_regions"]}
    limited = configure(search | {"budget": {"latency_ms": 5}}).search("mine")
    assert isinstance(limited, PruneOptions)
    assert set(limited.dependencies) - set(configure(search).search("mine").dependencies) == {
        ("backbones", "cells")
    }
