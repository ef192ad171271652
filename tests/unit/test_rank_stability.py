"""Rank stability: made-up criteria of known noise, the cost of both styles, and the program itself."""

import json
import sys
import zlib

import numpy as np
import pandas as pd
import pytest
from small_search import make_plan, two_operations_per_edge

import measure_rank_stability as program
from metantk.criteria.base import Criterion, Measured
from metantk.data.store import Source, Split, stream_split, write_dataset
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.results.figures.rank_stability import draw_rank_stability
from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError
from metantk.searches import prune
from metantk.searches.plan import Plan
from metantk.searches.rank_stability import (
    COLUMNS,
    common_draws,
    measure_effect_stability,
    measure_rank_stability,
    total_networks,
)
from metantk.space.genotype import CELL_TYPES


def noisy_plan(*, shared: float, private: float) -> tuple[Plan, list[int]]:
    """A criterion with a true worth per operation, noise of a draw that all networks share, and noise of each."""
    worth = {kind: np.random.default_rng(index).uniform(1, 2, (9, 7)) for index, kind in enumerate(CELL_TYPES)}

    def measure(context, options, draws, masks):
        count = len(masks["normal"])
        context.advance(count)
        true = 1000 - sum((masks[kind].numpy() * worth[kind]).sum((1, 2)) for kind in CELL_TYPES)
        noise = shared * numpy_generator("shared", *draws.weights).normal()
        places = np.concatenate([masks[kind].numpy().reshape(count, -1) for kind in CELL_TYPES], axis=1)
        keys = [zlib.crc32(place.tobytes()) for place in places]
        own = [numpy_generator("private", *draws.weights, *draws.images, key).normal() for key in keys]
        return Measured(true + noise + private * np.array(own), 0)

    networks = []
    plan = make_plan(criteria=["ntk_condition", {"linear_regions": 0.5}])
    made_up = Criterion(measure, larger_is_better=False, title="made up")
    context = plan.context._replace(advance=networks.append)
    return plan._replace(criteria=dict.fromkeys(plan.criteria, made_up), context=context), networks


def test_without_noise_all_repetitions_agree():
    plan, networks = noisy_plan(shared=0, private=0)
    table = measure_rank_stability(plan, seed=0, draws=2)
    assert list(table.columns) == COLUMNS
    assert set(table["criterion"]) == {"ntk_condition", "linear_regions", "rank_sum"}
    np.testing.assert_allclose(table["kendall_tau"], 1)
    assert sum(networks) == total_networks(plan, 2)


@pytest.mark.slow
def test_noise_of_each_network_leaves_no_order():
    plan, _ = noisy_plan(shared=0, private=50)
    table = measure_rank_stability(plan, seed=0, draws=6)
    assert table.loc[table["repeat"] == 1, "kendall_tau"].abs().max() < 0.15


def test_ranks_that_are_a_bodys_own_repeat_with_that_body_alone():
    """A criterion of the body's weights alone: with one body its ranks repeat, and mean nothing."""

    def measure(context, options, draws, masks):
        own = numpy_generator("body", *draws.weights).normal(size=(2, 9, 7))
        missing = [(~masks[kind].numpy() * own[index]).sum((1, 2)) for index, kind in enumerate(CELL_TYPES)]
        return Measured(100 + sum(missing), 0)

    plan, _ = noisy_plan(shared=0, private=0)
    criterion = Criterion(measure, larger_is_better=False, title="body", change="difference")
    table = measure_rank_stability(plan._replace(criteria={"ntk_condition": criterion}), seed=0, draws=3)
    taus = table[table["repeat"] == 1].set_index("draws")["kendall_tau"]
    assert taus["published, one body"] > 0.99
    assert abs(taus["published"]) < 0.15


def test_effects_of_whole_architectures_agree_as_far_as_noise_lets_them():
    taus = {}
    for private in (0.0, 100.0):
        plan, networks = noisy_plan(shared=1.0, private=private)
        options = BayesianOptimisationOptions(criteria=["ntk_condition"], initial_samples=120)
        plan = plan._replace(options=options, criteria={"ntk_condition": plan.criteria["ntk_condition"]})
        table = measure_effect_stability(plan, seed=0)
        assert list(table.columns) == COLUMNS
        assert table["evaluations"].tolist() == [40, 120]
        taus[private] = table["kendall_tau"].tolist()
        assert sum(networks) >= 240
    assert taus[0.0][1] > 0.8 > taus[0.0][0] > 0.2
    assert max(map(abs, taus[100.0])) < 0.3


def test_a_single_round_of_architectures_has_nothing_to_compare():
    plan, _ = noisy_plan(shared=1.0, private=0.0)
    plan = plan._replace(options=BayesianOptimisationOptions(criteria=["ntk_condition"], initial_samples=10))
    with pytest.raises(InputError, match="initial_samples 10 has nothing to compare; give 40 or more"):
        measure_effect_stability(plan, seed=0)


@pytest.mark.slow
def test_averaging_over_draws_helps():
    plan, _ = noisy_plan(shared=0, private=0.5)
    table = measure_rank_stability(plan, seed=0, draws=8)
    common = table[(table["draws"] == "common") & (table["criterion"] == "ntk_condition")].set_index("repeat")
    assert common.loc[5, "kendall_tau"] > common.loc[1, "kendall_tau"] + 0.1


def test_both_styles_cost_the_same():
    for draws in (2, 5, 9):
        assert 0 <= draws * 2 * 126 - common_draws(draws, 126) * 127 < 127


def test_figure_shows_a_panel_per_criterion():
    plan, _ = noisy_plan(shared=0, private=1)
    table = measure_rank_stability(plan, seed=0, draws=3)
    figure = draw_rank_stability(table, "title", {"ntk_condition": "condition\nof the NTK"})
    assert [axes.get_title("left") for axes in figure.axes] == [
        "condition of the NTK",
        "linear regions",
        "sum of ranks",
    ]
    assert len(figure.axes) == 3
    assert all(len(axes.lines) == 5 for axes in figure.axes)  # four styles and the zero line


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The program on 12×12 images."""
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        images = np.random.default_rng(index).integers(256, size=(24, 12, 12, 3), dtype=np.uint8)
        names = [f"{part} {letter}" for letter in "abcd"]
        streams[part] = stream_split(Split(images, np.repeat(np.arange(4), 6), names))
    write_dataset(tmp_path / "data", Source(streams, "free", [], [], False), name="n", source="s")

    def run(*flags):
        words = [
            "program",
            "--data",
            tmp_path / "data",
            "--cells",
            3,
            "--channels",
            2,
            "--output",
            tmp_path / "out",
        ]
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*words, *flags)])
        monkeypatch.setenv("METANTK_DEVICE", "cpu")
        program.main()

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--criteria", '["linear_regions"]', "--independent-draws", 1], "has nothing to compare; give 2 or more"),
        (["--search", "sample"], "a search of kind sample has no ranks"),
        (["--criteria", "[]"], "'criteria'"),
        (["--criteria", '[{"parameters": 1e308}]'], "less than or equal to 1000000"),
        (
            ["--criteria", '["parameters"]', "--backbone", "mixed", "--reductions", "[1]"],
            "mixed: has no cells that criteria could rank",
        ),
        (["--criteria", '["no_such"]'], "unknown kind 'no_such'"),
    ],
)
def test_program_refuses_what_cannot_be_compared(run, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(*flags)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_program_writes_the_table_and_the_figure(run, tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "first_state", two_operations_per_edge)
    criteria_options = {"linear_regions": {"images": 20, "batches": 1}}
    run(
        "--criteria", '["linear_regions"]', "--criteria-options", json.dumps(criteria_options), "--image-size", 8,
        "--independent-draws", 2,
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "rank_stability.csv")
    assert set(table["draws"]) == {"common", "independent", "published", "published, one body"}
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".svg", ".png"}
