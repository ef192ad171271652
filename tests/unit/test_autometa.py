"""AutoMeta: enumeration and growth of cells, the predictor, Reptile, and a search as small as they come."""

import json
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_meta_search import Memory, assert_resumes, make_problem
from torch.nn import functional

from metantk.backbones.cells import stack
from metantk.backbones.initial import uniform_
from metantk.meta_learning.reptile import snapshot
from metantk.options.base import parse
from metantk.options.searches.autometa import FILLED
from metantk.runtime.devices import generator
from metantk.searches import autometa, pacing
from metantk.searches.autometa import Options, Trainee, first_cells
from metantk.searches.base import Found
from metantk.searches.predictor import Ensemble
from metantk.searches.progressive import canonical, expand, genotype_of, grow, unique_blocks
from metantk.searches.tasks import TaskSource
from metantk.space.genotype import SPACES, check_genotype
from metantk.space.mixed import batch_norm

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "nas-rivals" / "cases.json").read_text())["autometa"]
TINY = {
    "first_level": 3,
    "beam": 2,
    "ensemble": 2,
    "predictor_steps": 5,
    "ways": 3,
    "shots": 4,
    "meta_steps": 2,
    "meta_batch_size": 2,
    "inner_steps": 2,
    "inner_batch_size": 6,
    "validation_episodes": 2,
    "validation_shots": 2,
    "validation_queries": 3,
    "validation_inner_steps": 2,
}


@pytest.fixture(autouse=True)
def always_keep(monkeypatch):
    monkeypatch.setattr(pacing, "SECONDS_BETWEEN", 0.0)


def tiny(**changes) -> Options:
    return parse(Options, TINY | changes, where="test")


# Cells.


@pytest.mark.parametrize("case", [*CASES["block_counts"], {"ops": 3, "inputs": 2, "unique_blocks": 21}])
def test_blocks_are_as_many_as_published(case):
    blocks = unique_blocks(case["inputs"], case["ops"])
    assert len(blocks) == len(set(blocks)) == case["unique_blocks"]
    halves = list(product(range(case["inputs"]), range(case["ops"])))
    ordered = list(product(halves, halves))
    assert len(ordered) == case.get("ordered_blocks", len(ordered))
    assert {canonical((block,)) for block in ordered} == {(block,) for block in blocks}


def test_swapped_halves_and_reordered_blocks_are_the_same_cell():
    one = (((0, 3), (1, 2)), ((0, 1), (2, 4)))
    assert canonical(one) == canonical((((1, 2), (0, 3)), ((2, 4), (0, 1))))
    independent = (((0, 3), (1, 2)), ((0, 1), (1, 4)), ((2, 5), (3, 6)))
    assert canonical(independent) == canonical((((0, 1), (1, 4)), ((0, 3), (1, 2)), ((3, 5), (2, 6))))
    assert canonical(independent) != canonical((((0, 1), (1, 4)), ((0, 3), (1, 2)), ((2, 5), (3, 6))))


@pytest.mark.parametrize("seed", range(3))
def test_equal_forms_are_equal_networks(seed):
    """A cell and its canonical form give the same features up to their order, weights moved along."""
    draws = np.random.default_rng(seed)
    space = SPACES["few-shot"]
    names = ["skip_connect", "avg_pool_3x3", "max_pool_3x3"]  # without weights
    cell = tuple(
        tuple((int(draws.integers(b + 2)), space.operations.index(draws.choice(names))) for _ in range(2))
        for b in range(3)
    )
    one, other = (
        stack(genotype_of(form, space), cells=1, channels=4, classes=2, norm=batch_norm)
        for form in (cell, canonical(cell))
    )
    other.stem.load_state_dict(one.stem.state_dict())
    other.cells[0].preprocess.load_state_dict(one.cells[0].preprocess.state_dict())
    for parameter in (*one.cells[0].operations.parameters(), *other.cells[0].operations.parameters()):
        torch.nn.init.constant_(parameter, 0.1)  # a cell alone is a reduction: its skips have weights
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    features = [network.features(images).view(4, 3, 8) for network in (one, other)]
    torch.testing.assert_close(features[0].sum(1), features[1].sum(1))


def test_expansion_is_that_of_all_ordered_cells():
    parents = [(block,) for block in unique_blocks(2, 2)]
    halves = list(product(range(3), range(2)))
    every = {canonical((*parent, block)) for parent in parents for block in product(halves, halves)}
    assert expand(parents, 2) == sorted(every)
    two = [(((0, 0), (0, 0)),), (((1, 1), (1, 1)),)]
    children = expand(two, 2)
    # 21 blocks each; the child that holds both parents is one, not two.
    assert len(children) == 2 * 21 - 1


def test_published_cell_is_a_genotype():
    genotype = CASES["genotype_as_transcribed_by_metanas_authors"]
    space = SPACES["few-shot"]
    cell = tuple(
        tuple((source, space.operations.index(name)) for name, source in node) for node in genotype["normal"]
    )
    assert genotype_of(cell, space) == genotype
    assert check_genotype(genotype) == genotype


# Growth.


class Oracle:
    """Knows the scores; says on what it was fitted."""

    def __init__(self, score) -> None:
        self.score, self.fitted = score, []

    def fit(self, cells, scores) -> None:
        assert scores == [self.score(cell) for cell in cells]
        self.fitted.append(len(cells))

    def predict(self, cells) -> list[float]:
        return [self.score(cell) for cell in cells]


def made_up_score(cell) -> float:
    draws = np.random.default_rng([value for block in cell for half in block for value in half])
    return float(draws.random())


@pytest.mark.parametrize("beam", [1, 5, 10**6])
def test_beam_trains_the_best_predicted(beam):
    measured = []

    def measure(cell, predicted) -> float:
        measured.append(cell)
        assert predicted == (None if len(cell) == 1 else made_up_score(cell))
        return made_up_score(cell)

    first = [(block,) for block in unique_blocks(2, 2)]
    oracle = Oracle(made_up_score)
    levels = grow(first, operations=2, blocks=2, beam=beam, measure=measure, predictor=oracle)
    children = expand(first, 2)
    assert [len(level) for level in levels] == [10, min(beam, len(children))]
    assert measured == [candidate.cell for level in levels for candidate in level]
    assert oracle.fitted == [10]
    best = sorted(children, key=made_up_score, reverse=True)
    assert [candidate.cell for candidate in levels[1]] == best[:beam]
    # Exhaustive: all cells of two blocks, however they are written.
    halves = [list(product(range(2 + b), range(2))) for b in range(2)]
    every = product(*(combinations_with_replacement(h, 2) for h in halves))
    assert max(levels[1], key=lambda c: c.score).cell == max(map(canonical, every), key=made_up_score)


def test_networks_trained_are_the_first_level_and_a_beam_per_block():
    first = first_cells(3, None, 0)
    oracle = Oracle(made_up_score)
    levels = grow(first, operations=3, blocks=3, beam=4, measure=lambda c, _: made_up_score(c), predictor=oracle)
    assert sum(map(len, levels)) == 21 + (3 - 1) * 4
    assert oracle.fitted == [21, 4]
    assert all(len(set(level)) == len(level) for level in levels)


def test_first_level_is_all_or_a_draw():
    assert len(first_cells(7, None, 0)) == len(first_cells(7, 1000, 0)) == 105
    drawn = first_cells(7, 16, 0)
    assert len(set(drawn)) == 16
    assert drawn == first_cells(7, 16, 0) != first_cells(7, 16, 1)


# The predictor.


def additive_score(cell) -> float:
    """Operations have a worth of their own, and old inputs are better."""
    return float(np.mean([0.2 + 0.1 * operation - 0.05 * source for block in cell for source, operation in block]))


def test_predictor_ranks_cells_that_it_has_not_seen():
    cells = [(block,) for block in unique_blocks(2, 7)]
    order = np.random.default_rng(0).permutation(len(cells))
    seen, held_out = ([cells[index] for index in part] for part in (order[:70], order[70:]))
    ensemble = Ensemble(blocks=3, operations=7, members=2, epochs=60, seed=0)
    ensemble.fit(seen, [additive_score(cell) for cell in seen])

    def correlation(asked) -> float:
        pairs = [ensemble.predict(asked), [additive_score(cell) for cell in asked]]
        return pd.DataFrame(pairs).T.rank().corr().iloc[0, 1]

    assert correlation(held_out) > 0.8
    children = expand(seen, 7)[::40]
    assert correlation(children) > 0.3  # of a level that nobody has measured yet
    ensemble.fit(children[::2], [additive_score(cell) for cell in children[::2]])
    assert correlation(children[1::2]) > 0.8


def test_predictor_is_seeded_and_draws_nothing_global():
    cells = [(block,) for block in unique_blocks(2, 2)]

    def run(seed: int) -> list[float]:
        ensemble = Ensemble(blocks=2, operations=2, members=2, epochs=3, seed=seed)
        ensemble.fit(cells, [additive_score(cell) for cell in cells])
        return ensemble.predict(cells)

    one = run(0)
    torch.rand(3)
    assert run(0) == one != run(1)


def test_members_leave_out_parts_of_their_own():
    """What a member is not fitted on does not change it."""
    cells = [(block,) for block in unique_blocks(2, 2)]
    scores = [additive_score(cell) for cell in cells]
    changed = []
    for index in range(len(cells)):
        members = []
        for delta in (0.0, 0.5):
            ensemble = Ensemble(blocks=1, operations=2, members=5, epochs=1, seed=0)
            ensemble.fit(cells, [score + delta * (i == index) for i, score in enumerate(scores)])
            members.append([member.score.weight.detach().clone() for member in ensemble.members])
        changed.append([not torch.equal(a, b) for a, b in zip(*members, strict=True)])
    unchanged = ~np.array(changed)
    assert unchanged.sum(0).tolist() >= [2] * 5
    assert (unchanged.sum(1) >= 1).all()


def test_one_predictor_of_one_cell():
    ensemble = Ensemble(blocks=1, operations=2, members=3, epochs=2, seed=0)
    ensemble.fit([(((0, 0), (0, 0)),)], [0.5])
    assert 0 < ensemble.predict([(((0, 0), (0, 1)),)])[0] < 1


# Candidates.


def make_trainee(**changes) -> Trainee:
    cell = (((0, 0), (1, 6)),)  # skip_connect, conv_3x3
    network = stack(genotype_of(cell, SPACES["few-shot"]), cells=2, channels=4, classes=3, norm=batch_norm)
    uniform_(network, generator("initial weights", 0))
    return Trainee(network, tiny(**changes), 0)


def make_tasks(queries: int = 0) -> TaskSource:
    problem = make_problem()
    return TaskSource(problem, problem.train, ways=3, shots=4, queries=queries, image_size=None, where="test")


def test_training_step_is_reptile_written_out():
    trainee, slow = make_trainee(), make_trainee()
    tasks = make_tasks()
    adam = torch.optim.Adam(slow.weights, lr=1e-3, betas=(0.0, 0.999), weight_decay=1e-4)
    for iteration in range(2):
        trainee.train_step(tasks)
        meta, moved = snapshot(slow.weights), []
        for index in range(2):
            task = tasks.draw(0, iteration, index)
            draws = autometa.generator("autometa batches", 0, "training", iteration, index)
            for _ in range(2):
                chosen = torch.randint(12, (6,), generator=draws)
                adam.zero_grad()
                loss = functional.cross_entropy(slow.network(task.support[chosen]), task.support_labels[chosen])
                loss.backward()
                adam.step()
            moved.append(snapshot(slow.weights))
            with torch.no_grad():
                for weight, value in zip(slow.weights, meta, strict=True):
                    weight.copy_(value)
        rate = (1.0, 0.5)[iteration]
        with torch.no_grad():
            for weight, value, *ends in zip(slow.weights, meta, *moved, strict=True):
                weight.copy_(value + rate * (sum(ends) / 2 - value))
        for one, other in zip(trainee.weights, slow.weights, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_score_learns_each_task_from_the_same_start_and_leaves_no_trace():
    tasks = make_tasks(queries=4)
    trainee = make_trainee(validation_inner_steps=30, validation_episodes=3, inner_lr=0.02, inner_batch_size=12)
    trainee.train_step(tasks)
    weights, moments = snapshot(trainee.weights), snapshot(trainee.optimiser.state[trainee.weights[0]].values())
    score = trainee.score(tasks)
    assert score == trainee.score(tasks)
    assert all(torch.equal(a, b) for a, b in zip(weights, trainee.weights, strict=True))
    after = trainee.optimiser.state[trainee.weights[0]].values()
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    trainee.options = trainee.options.model_copy(update={"validation_inner_steps": 0})
    assert score > max(0.8, trainee.score(tasks))


# Whole searches.


@pytest.fixture(scope="module")
def found() -> Found:
    return autometa.find(make_problem(), tiny(), 0, Memory())


def test_search_finds_one_cell_for_both_types(found):
    assert check_genotype(found.genotype) == found.genotype
    assert found.genotype["normal"] == found.genotype["reduce"]
    assert len(found.genotype["normal"]) == 3
    assert found.trace["blocks"].tolist() == [1, 1, 1, 2, 2, 3, 3]
    assert found.trace["predicted"].isna().tolist() == [True] * 3 + [False] * 4
    assert found.facts["candidates"] == [3, 2, 2]
    last = found.trace[found.trace["blocks"] == 3]
    assert json.loads(last["genotype"].loc[last["score"].idxmax()]) == found.genotype["normal"]
    assert found.facts["best_score"] == last["score"].max()
    assert found.costs["training"].evaluations == 7 * 2 * 2 * 2
    assert found.costs["validation"].evaluations == 7 * 2 * 3
    assert found.costs["training"].operations > 0
    assert found.costs["predictor"].evaluations == 4
    assert found.arrays == {}


def test_what_the_paper_leaves_open_is_listed(found):
    assert found.facts["filled"].keys() == {*FILLED, "blocks", "predictor"}
    assert found.facts["filled"] | {"beam": 2, "blocks": 3, "cells": 2, "channels": 4} == found.facts["filled"]
    assert json.loads(json.dumps(found.facts)) == found.facts


def test_killed_search_ends_the_same(found):
    # Within the first candidate; after one; within a later one.
    assert_resumes(autometa, tiny(), found, kills_at=[1, 2, 8])


def test_parameters_are_those_of_the_network_without_its_head(found):
    row = found.trace.iloc[-1]
    nodes = json.loads(row["genotype"])
    genotype = dict.fromkeys(("normal", "reduce"), nodes)
    network = stack(genotype, cells=2, channels=4, classes=9)
    assert row["parameters"] == sum(p.numel() for n, p in network.named_parameters() if "head" not in n)


def test_search_of_the_other_space_at_a_size_of_its_own():
    options = tiny(space="darts", cells=1, channels=2, image_size=8, first_level=2, beam=1, meta_steps=1)
    found = autometa.find(make_problem(), options, 0, Memory())
    assert len(check_genotype(found.genotype)["normal"]) == 4
    assert found.facts["candidates"] == [2, 1, 1, 1]
    assert found.facts["filled"]["channels"] == 2
