"""The study of criteria: its statistics against slow ones, and what it says of criteria whose worth is known."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run_program
from small_chain import ASKED, GENOTYPE, change, write_chain
from small_meta_search import make_problem

from metantk import benchmark
from metantk.criteria import short_training
from metantk.criteria.base import RandomKeys
from metantk.options.criteria.short_training import ShortTrainingOptions
from metantk.options.study import StudyOptions
from metantk.results import study
from metantk.results.figures.frontier import draw_frontier
from metantk.runtime.files import InputError
from metantk.searches.plan import plan_of
from metantk.searches.sample import random_genotype
from metantk.space import paths
from metantk.space.genotype import SPACES, check_space

SCRIPTS = Path(study.__file__).parents[2]


def literal_tau(one, other) -> float:
    """τ-b, pair by pair."""
    pairs = itertools.combinations(range(len(one)), 2)
    signs = [(np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i, j in pairs]
    both = sum(a * b for a, b in signs)
    return both / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))


def made_scores(criteria: dict[str, float], architectures: int = 40, again: int = 0) -> pd.DataFrame:
    """Criteria that agree with the truth up to a noise of the given size; accuracies with theirs."""
    draws = np.random.default_rng(5)
    truth = draws.normal(size=architectures)
    scores = {name: truth + size * draws.normal(size=architectures) for name, size in criteria.items()}
    rows = []
    for seed in range(architectures + again):
        index = seed % architectures
        accuracy = 50 + truth[index] + 0.5 * draws.normal()
        for name in criteria:
            value = scores[name][index]
            rows.append(
                {
                    "dataset": "d",
                    "backbone": "b",
                    "learner": "rfs",
                    "shots": 1,
                    "seed": seed,
                    "architecture": str(index),
                    "accuracy": accuracy,
                    "criterion": name,
                    "score": -value if name == "upside_down" else value,
                    "draws": [value, value + 0.01],
                    "operations": 3.0,
                    "seconds": 1.0,
                    "larger_is_better": name != "upside_down",
                }
            )
    return pd.DataFrame(rows)


def test_tau_and_partial_tau_are_the_literal_ones():
    draws = np.random.default_rng(0)
    one, other, third = draws.integers(6, size=(3, 30))
    assert study.tau(one, other) == pytest.approx(literal_tau(one, other))
    xy, xz, yz = literal_tau(one, other), literal_tau(one, third), literal_tau(other, third)
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert study.partial_tau(one, other, third) == pytest.approx(expected)
    assert study.tau(np.ones(5), np.arange(5)) == 0
    assert study.partial_tau(one, other, one) == 0


def test_regret_is_what_the_picked_quarter_lacks():
    accuracies = np.arange(8.0)
    assert study.regret(accuracies, accuracies) == 0
    assert study.regret(-accuracies, accuracies) == 6  # picks 0 and 1 instead of 6 and 7
    assert study.regret(np.zeros(8), accuracies) == pytest.approx(6.5 - 3.5)
    assert study.regret(np.array([0, 0, 0, 0, 0, 1, 1, 1]), accuracies) == pytest.approx(6.5 - 6)


@pytest.mark.slow
def test_it_finds_which_criteria_are_worth_more_than_parameters():
    noise = {"good": 0.2, "parameters": 2.0, "noise": 100.0, "upside_down": 0.2}
    table = study.correlate(made_scores(noise, again=8))
    by_name = table.set_index("criterion")
    assert by_name.loc["good", "above_baseline_low"] > 0
    assert by_name.loc["upside_down", "tau"] == pytest.approx(by_name.loc["good", "tau"], abs=0.15)
    assert abs(by_name.loc["noise", "tau"]) < 0.3
    assert by_name.loc["noise", "above_baseline_low"] < 0
    assert by_name.loc["good", "regret"] < by_name.loc["noise", "regret"]
    assert by_name.loc["good", "partial_tau"] > 0.3
    for name, row in by_name.iterrows():
        assert row["tau_low"] <= row["tau"] <= row["tau_high"], name
    assert by_name.loc[study.AGAIN, "architectures"] == 8
    assert by_name.loc["good", "architectures"] == 40
    assert np.isnan(by_name.loc["parameters", "above_baseline"])
    assert study.verdict(table).startswith("d, b by rfs, 1-shot: good, upside_down predicts")
    assert (
        list(table["tau"][:-1]) == sorted(table["tau"][:-1], reverse=True) or table["tau"].is_monotonic_decreasing
    )


def test_it_says_when_nothing_beats_parameters():
    table = study.correlate(made_scores({"parameters": 0.1, "other": 2.0}))
    assert "no criterion predicts the accuracy better than the number of parameters" in study.verdict(table)
    assert study.AGAIN not in set(table["criterion"])


def test_what_does_not_predict_beats_no_parameters_that_order_the_wrong_way_round():
    scores = made_scores({"parameters": 0.1, "noise": 100.0})
    scores.loc[scores["criterion"] == "parameters", "score"] *= -1
    table = study.correlate(scores)
    assert table.set_index("criterion").loc["noise", "above_baseline_low"] > 0
    assert "no criterion predicts the accuracy better than the number of parameters" in study.verdict(table)


def test_without_parameters_it_does_not_speak_of_them():
    table = study.correlate(made_scores({"other": 1.0}))
    assert "no criterion was compared with the number of parameters" in study.verdict(table)


def test_the_figure_has_the_noise_of_training_as_a_line_where_it_is_known():
    criteria = {"good": 0.2, "parameters": 2.0}
    for again in (8, 0):
        table = study.correlate(made_scores(criteria, again=again))
        costs = draw_frontier(table, "title").axes[2]
        known = table.set_index("criterion")["tau"].get(study.AGAIN)
        dashed = [line.get_ydata()[0] for line in costs.lines if line.get_linestyle() == "--"]
        assert dashed == ([known] if again else [])
        assert "good" in [text.get_text() for text in costs.texts]


def test_repeatability_tells_noise_from_signal():
    draws = np.random.default_rng(0)
    assert study._repeatability(pd.Series(draws.normal(size=(50, 3)).tolist())) == pytest.approx(0, abs=0.15)
    assert study._repeatability(pd.Series([[v, v] for v in range(9)])) == 1


def test_short_training_learns_and_longer_training_goes_on_from_the_shorter_one():
    problem = make_problem()
    options = StudyOptions(criteria=["parameters"], image_size=12)
    context = plan_of(problem, options).context._replace(advance=lambda networks: None)
    row = paths.balanced_sample(context.operations, 1, np.random.default_rng(0))[0]
    mask = {kind: masks[0] for kind, masks in paths.masks_of(context.operations, row).items()}
    episodes = {"ways": 3, "shots": 2, "queries": 4, "episodes": 50}
    own = ShortTrainingOptions(**episodes, batch_size=12, lr=0.05, padding=1)
    both = short_training.train_and_test(context, own, RandomKeys.of((0,)), mask, [0.25, 8])
    (long,) = short_training.train_and_test(context, own, RandomKeys.of((0,)), mask, [8])
    assert both[1] == long
    assert long[0] > 100 / 3 + 15
    assert both[0][1] < both[1][1]
    measured = short_training.measure(
        context, own.model_copy(update={"epochs": 8}), RandomKeys.of((0,)), as_masks(mask)
    )
    assert measured.values.tolist() == [long[0]]
    assert measured.operations == long[1]


def as_masks(mask: dict) -> dict:
    return {kind: each[None] for kind, each in mask.items()}


def test_scores_of_an_architecture_hold_every_criterion_and_training():
    options = StudyOptions(
        criteria=["parameters", "ntk_condition", "ntk_trace"],
        repeats=2,
        image_size=8,
        short_training_epochs=[0.5, 1],
        criteria_options={
            "ntk": {"images": 6},
            "short_training": {"ways": 2, "shots": 1, "queries": 2, "episodes": 5},
        },
    )
    problem = make_problem()
    plan = plan_of(problem, options)
    plan = plan._replace(context=plan.context._replace(advance=lambda networks: None))
    done = []
    scores = study.score(plan, options, random_genotype(plan.space, 0), lambda: done.append(1))
    assert list(scores) == ["parameters", "ntk_condition", "ntk_trace", "trained 0.5 epochs", "trained 1 epochs"]
    assert len(done) == 3
    assert len(scores["ntk_condition"].values) == 2
    assert scores["ntk_condition"].operations > 0 == scores["parameters"].operations
    assert not scores["ntk_condition"].larger_is_better
    again = study.score(plan, options, random_genotype(plan.space, 0), lambda: None)
    assert [each.values for each in again.values()] == [each.values for each in scores.values()]


def test_scores_have_draws_that_no_search_selects_by(monkeypatch):
    """Else the architecture that `best-of` found by a draw would look better than it is, on the same draw."""
    keys = []
    monkeypatch.setattr(study, "measure_all", lambda *arguments: keys.append(arguments[3].weights) or {})
    options = StudyOptions(criteria=["ntk_condition"], repeats=3, short_training_epochs=[])
    plan = plan_of(make_problem(), options)
    with pytest.raises(KeyError):  # no values
        study.score(plan, options, random_genotype(plan.space, 0), lambda: None)
    assert len(set(keys)) == 3
    assert all(key[0] < 0 for key in keys)  # a search's begin with its seed


@pytest.mark.parametrize("section", ["linear_region", "meta_ntk", "Short_Training"])
def test_options_of_a_criterion_that_is_not_measured_are_refused(section):
    options = StudyOptions(criteria=["parameters", "linear_regions"], criteria_options={section: {"images": 4}})
    message = rf"no criterion has a section '{section}' \(there is linear_regions, short_training\)"
    with pytest.raises(InputError, match=message):
        plan_of(make_problem(), options)


def test_epochs_of_short_training_must_ascend():
    with pytest.raises(ValueError, match="must ascend"):
        StudyOptions(criteria=["parameters"], short_training_epochs=[1, 0.5])


SCORE = {"values": [1.0], "operations": 0, "seconds": 0, "larger_is_better": True}


def compare(tmp_path, *others: dict):
    """Run the program on a chain whose scores are whole, and on one for each change of them."""
    folders = []
    for seed, changed in enumerate([{}, *others]):
        folder = write_chain(tmp_path, "random", seed)
        whole = {"genotype": GENOTYPE, "scores": {"parameters": SCORE}}
        (folder.parent / "scores.json").write_text(json.dumps(whole | changed))
        folders.append(str(folder))
    return run_program("python", SCRIPTS / "compare_criteria.py", *folders, "--output", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "glyphs, 5cells-48ch by rfs, 1-shot: has fewer than 4 different architectures"),
        ({"options": {"image_size": 12}}, "was made with other options than the first"),
        ({"scores": {"seed": SCORE}}, "'seed' is the name of another row or column"),
        ({"scores": {"accuracy_10shot": SCORE}}, "'accuracy_10shot' is the name of another row or column"),
        ({"genotype": GENOTYPE | {"normal_concat": [2]}}, "is of another architecture"),
        ({"scores": {"layers": SCORE}}, "has other criteria or draws than the first"),
        ({"scores": {"parameters": SCORE | {"values": [1.0, 2.0]}}}, "has other criteria or draws than the first"),
        ({"scores": {"parameters": SCORE | {"larger_is_better": False}}}, "has other criteria or draws"),
        ({"scores": {"trained again": SCORE}}, "'trained again' is the name of another row"),
        ({"scores": {"parameters": SCORE | {"operations": 1e308}}}, "'scores.parameters.operations'"),
    ],
)
def test_scores_that_cannot_be_compared_are_one_line(tmp_path, change, message):
    done = compare(tmp_path, change)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("compare_criteria.py: error: ")
    assert message in last
    assert not (tmp_path / "out").exists()


def test_a_hopeless_architecture_is_worst(tmp_path):
    sys.path.insert(0, str(SCRIPTS))
    from compare_criteria import ScoreRecord, finite

    score = {"values": [1.0, None], "operations": 0, "seconds": 0}
    assert finite(ScoreRecord(**score, larger_is_better=True))[1] < -1e200
    assert finite(ScoreRecord(**score, larger_is_better=False))[1] > 1e200


def write_study(tmp_path, genotypes: list[dict]) -> list[Path]:
    """Chains with scores, a seed for each genotype."""
    folders = []
    for seed, genotype in enumerate(genotypes):
        folder = write_chain(tmp_path, "random", seed)
        for file in (folder.parent / "architecture.json", folder / "model.json"):
            whole = json.loads(file.read_text())
            architecture = whole.get("architecture", whole)
            architecture["genotype"] = genotype
            change(file, **whole)
        change(folder / "model.json", seconds=10.0 + seed)
        scores = {"layers": SCORE | {"values": [1.0, 4.0]}, "parameters": SCORE | {"values": [7.0, 7.0]}}
        report = {"genotype": genotype, "scores": scores, "options": {"space": "few-shot", "repeats": 2}}
        (folder.parent / "scores.json").write_text(json.dumps(report))
        folders.append(folder)
    return folders


def compared(tmp_path, folders: list[Path]):
    return run_program("python", SCRIPTS / "compare_criteria.py", *folders, "--output", tmp_path / "out")


def test_a_study_leaves_a_tabular_benchmark(tmp_path):
    genotypes = [random_genotype(SPACES["few-shot"], index) for index in (0, 1, 2, 3, 1)]
    # The same architecture, whatever the order of its edges.
    genotypes[4] = genotypes[4] | {"normal": [node[::-1] for node in genotypes[4]["normal"]]}
    folders = write_study(tmp_path, genotypes)
    done = compared(tmp_path, folders[::-1])
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "out" / "correlations.csv")["architectures"].tolist() == [4] * 4
    table = benchmark.load(tmp_path / "out" / "benchmark_glyphs_5cells-48ch_rfs.csv")
    assert table.settings["larger_is_better"] == dict.fromkeys(table.criteria, True)
    assert table.settings["backbone"] == {"kind": "cells", "cells": 5, "channels": 48}
    assert table.settings["criteria"] == {"space": "few-shot", "repeats": 2}
    assert table.criteria == ["layers", "parameters", "multiply_accumulates"]
    found = table.query(genotypes[1])
    assert found["seed"].tolist() == [1, 4]
    assert found["architecture"].tolist() == [1, 1]
    assert found["layers"].tolist() == [2.5, 2.5]
    assert found["parameters"].tolist() == [1_000_001, 1_000_004]  # without the head
    assert found["training_seconds"].tolist() == [11.0, 14.0]
    evaluation = json.loads((folders[4] / "evaluation.json").read_text())["shots"]["5"]
    assert found[["accuracy_5shot", "ci95_5shot"]].iloc[1].tolist() == [
        evaluation["accuracy_mean"],
        evaluation["ci95"],
    ]


def test_a_score_that_there_is_not_leaves_a_gap(tmp_path):
    folders = write_study(tmp_path, [random_genotype(SPACES["few-shot"], index) for index in range(4)])
    file = folders[2].parent / "scores.json"
    scores = json.loads(file.read_text())["scores"]
    change(file, scores=scores | {"layers": SCORE | {"values": [1.0, None]}})
    assert compared(tmp_path, folders).returncode == 0
    table = benchmark.load(tmp_path / "out" / "benchmark_glyphs_5cells-48ch_rfs.csv")
    assert table.trainings["layers"].isna().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model.json", {"learner": {"kind": "rfs", "epochs": 1}}, "learner.epochs is"),
        ("evaluation.json", {"data_sha256": "another"}, "is not of its data set's test split"),
        ("evaluation.json", {"options": ASKED | {"seed": 7}}, "were not evaluated on the same episodes"),
        (None, {}, "its row has a seed twice"),
    ],
)
def test_what_was_not_made_alike_is_not_compared(tmp_path, file, values, message):
    folders = write_study(tmp_path, [random_genotype(SPACES["few-shot"], index) for index in range(5)])
    if file:
        change(folders[4] / file, **values)
    else:
        folders.append(folders[0])
    done = compared(tmp_path, folders)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_operation_twice_on_an_edge_has_no_scores():
    node = [["conv_3x3", 0], ["conv_3x3", 0]]
    genotype = random_genotype(SPACES["few-shot"], 0)
    twice = genotype | {"reduce": [node, *genotype["reduce"][1:]]}
    with pytest.raises(InputError, match=r"x: .* its reduce cell has conv_3x3 twice on edge 0→2"):
        check_space(twice, "few-shot", where="x")
    with pytest.raises(InputError, match="its reduce cell has conv_3x3 twice on edge 0→2"):
        paths.row_of(SPACES["few-shot"], twice)
    check_space(genotype, "few-shot", where="x")
