"""Statements and verdicts: rules on tables made by hand, and the theorems on tiny networks."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_theory
from metantk.pruning import random_genotype
from scipy import stats

import measure_trainability
import verify_theory
from metantk.command_line import run
from metantk.config import (
    TheoryNetworkOptions,
    TheoryOptions,
    TrainabilityOptions,
    parse,
)
from metantk.criteria import CRITERIA
from metantk.datasets.glyphs import make_glyphs
from metantk.space.genotype import SPACES
from metantk.storage import InputError
from metantk.theory import correlation, trainability
from metantk.theory.kernel_checks import judge_kernels, measure_kernels
from metantk.theory.learner import FINITE, INFINITE, SUPPORTS_ONLY, TRAINED_CENTRED, judge_learners
from metantk.theory.report import STATEMENTS, write_report
from metantk.theory.tasks import draw_tasks
from metantk.theory.training_checks import (
    SLOW_RATE,
    judge_bounds,
    judge_regression,
    measure_convergence,
    measure_regression,
    summarise_bounds,
)
from metantk.theory.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Verdict,
    combine,
    fit_slope,
    judge_slope,
    judge_widths,
)

WIDE = TheoryNetworkOptions(activation="erf", depth=1, widths=[8, 32, 128], trained_widths=[4, 32, 256])
SMALL = TheoryOptions(networks=[WIDE], sources=["gaussian"], shots=1, seeds=4, steps=20, times=[1, 3])


def nothing():
    pass


def power_law(exponent, noise=0.0, widths=(8, 16, 32, 64), seeds=4):
    """Errors width^exponent, multiplied and divided by e^noise in turn: the fitted slope is the exponent."""
    rows = [(width, np.exp(noise * (-1) ** seed) * width**exponent) for width in widths for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["width", "error"])


def test_a_slope_and_its_interval_agree_with_least_squares():
    table = power_law(-0.5, noise=0.1)
    slope = fit_slope(table["width"], table["error"])
    design = np.stack([np.log(table["width"]), np.ones(len(table))], 1)
    found, residual = np.linalg.lstsq(design, np.log(table["error"]), rcond=None)[:2]
    spread = np.sqrt(residual[0] / 14 * np.linalg.inv(design.T @ design)[0, 0])
    assert slope.value == pytest.approx(found[0])
    assert slope.half_width == pytest.approx(stats.t.ppf(0.975, 14) * spread)
    assert fit_slope(table["width"], table["error"], cases=10).half_width > slope.half_width


@pytest.mark.parametrize(
    ("exponent", "noise", "as_expected", "verdict"),
    [
        (-0.5, 0.05, True, HOLDS),
        (-0.5, 0.05, False, HOLDS),
        (-1.0, 0.05, True, FAILS),
        (-1.0, 0.05, False, HOLDS),
        (0.0, 0.05, False, FAILS),
        (0.3, 0.05, True, FAILS),
        (-0.3, 2.0, False, UNDECIDED),
    ],
)
def test_slopes_are_judged_by_their_intervals(exponent, noise, as_expected, verdict):
    table = power_law(exponent, noise)
    assert judge_slope("2", "case", table, "error", cases=1, as_expected=as_expected).verdict == verdict


def test_small_widths_may_be_left_out_but_three_remain():
    table = power_law(-0.5, noise=0.02, widths=(4, 8, 16, 32, 64))
    table.loc[table["width"] == 4, "error"] = 0.01
    judged = judge_slope("1", "case", table, "error", cases=1, as_expected=True)
    assert judged.verdict == "holds from width 8"
    few = table[table["width"] <= 16]
    assert judge_slope("1", "case", few, "error", cases=1, as_expected=True).verdict != HOLDS


def test_a_diverged_run_makes_a_slope_undecided_not_steep():
    table = power_law(-0.5, widths=(8, 16, 32))
    table.loc[0, "error"] = np.inf
    assert judge_slope("4", "case", table, "error", cases=1).verdict != HOLDS


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ({4: True, 8: True}, HOLDS),
        ({4: False, 8: True}, "holds from width 8"),
        ({4: True, 8: False, 16: True}, "holds from width 16"),
        ({4: True, 8: False}, FAILS),
    ],
)
def test_a_bound_holds_from_the_width_after_the_last_failure(held, verdict):
    assert judge_widths("3", "case", pd.Series(held), "").verdict == verdict


@pytest.mark.parametrize(
    ("verdicts", "combined"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, "holds from width 8", "holds from width 32"], "holds from width 32"),
        ([FAILS, FAILS], FAILS),
        (
            [FAILS, HOLDS, UNDECIDED],
            "does not hold in 1 of 3 cases, undecided in 1 of 3 cases, holds in the others",
        ),
        ([UNDECIDED, HOLDS], "undecided in 1 of 2 cases, holds in the others"),
        ([FAILS, UNDECIDED], "does not hold in 1 of 2 cases, undecided in 1 of 2 cases"),
    ],
)
def test_a_statement_is_as_true_as_its_cases(verdicts, combined):
    assert combine([Verdict("1", "case", verdict, "") for verdict in verdicts]) == combined


def test_the_report_names_every_statement_once_and_every_case():
    verdicts = [Verdict(name, f"case of {name}", HOLDS, "numbers") for name in STATEMENTS]
    text = write_report(verdicts)
    for name, (statement, _) in STATEMENTS.items():
        assert text.count(f"| {statement} ") == 1
        assert f"case of {name}" in text


@pytest.mark.parametrize("source", ["glyphs", "gaussian"])
def test_tasks_are_normalised_seeded_and_of_their_part(source):
    shape = {"ways": 3, "shots": 2, "queries": 1, "side": 4}
    tasks = draw_tasks(source, 2, **shape, key=("train", 0))
    assert tasks.support.shape == (2, 6, 16)
    assert tasks.query.shape == (2, 3, 16)
    torch.testing.assert_close(tasks.support.mean(-1), torch.zeros(2, 6).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(tasks.support.square().mean(-1), torch.ones(2, 6).double())
    assert tasks.support_targets[0].argmax(-1).tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(tasks, draw_tasks(source, 2, **shape, key=("train", 0)))
    assert not torch.equal(tasks.query, draw_tasks(source, 2, **shape, key=("test", 0)).query)


def test_kernels_fluctuate_and_approach_their_formulas_as_the_theory_says():
    verdicts = judge_kernels(measure_kernels("gaussian", WIDE, SMALL, nothing))
    assert {v.statement for v in verdicts} == {"1", "2", "2, as printed", "6"}
    for verdict in verdicts:
        assert verdict.verdict == (FAILS if verdict.statement == "2, as printed" else HOLDS), verdict


def test_theorem_1_holds_for_a_wide_network_and_not_for_a_narrow_one():
    curves = measure_convergence("gaussian", WIDE, SMALL, nothing)
    bounds = summarise_bounds(curves)
    usual = bounds[bounds["rate"] == SMALL.rate]
    assert usual[usual["width"] == 256]["held"].all()
    assert (usual[usual["width"] == 256]["smallest_r"] == 1).all()
    assert not usual[usual["width"] == 4]["held"].all()
    # Far below η₀ the loss cannot fall as fast as the bound, which does not know the rate.
    slow = bounds[bounds["rate"] == SLOW_RATE]
    assert set(slow["width"]) == {256}
    assert not slow["held"].any()
    judged = {verdict.statement: verdict.verdict for verdict in judge_bounds(bounds, SMALL)}
    assert judged["3"] in ("holds from width 32", "holds from width 256")
    assert judged["3, slow rate"] == FAILS


def test_a_loss_above_the_bound_at_a_single_step_refutes_it():
    curves = pd.DataFrame({"step": range(3), "loss": [4.0, 3.1, 0.1], "bound": [4.0, 3.0, 2.0]})
    curves = curves.assign(source="s", network="n", width=8, seed=0, rate=0.9, eta0=1.0, smallest=0.5)
    (run_of_it,) = summarise_bounds(curves).itertuples()
    assert not run_of_it.held
    assert run_of_it.smallest_r == pytest.approx(3.1 / 3)


def test_theorem_2_errors_fall_with_width_unless_initial_outputs_are_left_out():
    table = measure_regression("gaussian", WIDE, SMALL, nothing)
    for verdict in judge_regression(table):
        failing = verdict.statement == "4, outputs as drawn"
        assert (verdict.verdict == FAILS) == failing, verdict
        if verdict.statement in ("4", "4, finite rates"):
            assert verdict.verdict.startswith(HOLDS), verdict
    finite = table[(table["rates"] == "finite") & (table["time"] == 1) & (table["width"] == 256)]
    by_decay = finite[finite["prediction"] == "Eq. 8"].groupby("decay")["error"].mean()
    assert by_decay["(I − ηΦ)^t"] < by_decay["exp(−ηtΦ)"]


def learner_table(gain):
    draws = np.random.default_rng(0)
    base = 60 + 5 * draws.normal(size=50)
    accuracies = {SUPPORTS_ONLY: base + gain, INFINITE: base, FINITE: base + 1, TRAINED_CENTRED: base}
    return pd.concat(
        pd.DataFrame({"learner": name, "task": range(50), "accuracy": values + draws.normal(size=50)})
        for name, values in accuracies.items()
    )


@pytest.mark.parametrize(("gain", "verdict"), [(10, FAILS), (-10, HOLDS)])
def test_learners_are_compared_task_by_task(gain, verdict):
    judged = {v.case: v.verdict for v in judge_learners(learner_table(gain), ways=3)}
    assert judged[f"{INFINITE}: better than chance"] == HOLDS
    assert judged[f"{INFINITE}: no worse than {SUPPORTS_ONLY}"] == verdict
    assert {
        v.verdict for v in judge_learners(learner_table(0).assign(accuracy=33.0), ways=3) if "chance" in v.case
    } == {FAILS}


def test_correlations_have_the_sign_of_a_good_criterion():
    draws = np.random.default_rng(0)
    quality = np.arange(30.0)
    table = pd.DataFrame(
        {
            "meta_ntk_condition": np.exp(-quality),
            "ntk_condition": np.exp(quality),
            "ntk_spectral_entropy": quality,
            "linear_regions": draws.normal(size=30),
            "maml_loss": 1 / (1 + quality),
            "rfs_accuracy": quality,
        }
    )
    table.loc[0, "meta_ntk_condition"] = np.inf
    judged = {v.case: v.verdict for v in correlation.judge_correlations(correlation.correlate(table), 30)}
    for outcome in ("maml loss", "rfs accuracy"):
        assert judged[f"meta ntk condition and {outcome}"] == HOLDS
        assert judged[f"ntk condition and {outcome}"] == FAILS
        assert judged[f"ntk spectral entropy and {outcome}"] == HOLDS
        assert judged[f"linear regions and {outcome}"] == UNDECIDED


def test_correlations_know_every_criterion_of_the_search_and_its_sign():
    assert {
        name: 1 if criterion.larger_is_better else -1 for name, criterion in CRITERIA.items()
    } == correlation.CRITERIA


def test_masks_of_architectures_keep_their_operations_alone():
    genotypes = [random_genotype(SPACES["few-shot"], number) for number in range(3)]
    for kind, mask in trainability.to_masks(genotypes).items():
        for number, genotype in enumerate(genotypes):
            found = {
                (space_edge.input, space_edge.node, SPACES["few-shot"].operations[operation])
                for edge, operation in mask[number].nonzero().tolist()
                for space_edge in [SPACES["few-shot"].edges[edge]]
            }
            expected = {
                (source, node, operation)
                for node, pairs in enumerate(genotype[kind], start=2)
                for operation, source in pairs
            }
            assert found == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [{"widths": [8, 4, 16]}]}, "widths must ascend"),
        ({"networks": [{"widths": [4, 8]}]}, "at least three widths"),
        ({"networks": [{"trained_widths": []}]}, "none has trained_widths"),
        ({"rate": 1.0}, "'rate'"),
        ({"inner_time": 2.0}, "'inner_time'"),
    ],
)
def test_theory_options_that_make_no_sense_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        parse(TheoryOptions, changes, where="options")


def test_three_architectures_are_too_few_to_rank():
    with pytest.raises(InputError, match="at least 4"):
        parse(TrainabilityOptions, {"architectures": 3}, where="options")


TINY_TRAINABILITY = {
    "architectures": 4,
    "cells": 2,
    "channels": 2,
    "image_size": 8,
    "images_per_class": 16,
    "repeat": 1,
    "maml_tasks": 1,
    "maml_steps": 2,
    "epochs": 1,
    "episodes": 4,
}


def call(monkeypatch, script, *arguments):
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    monkeypatch.setattr("sys.argv", [script.__file__, *map(str, arguments)])
    run(script.main)


def test_both_programs_from_end_to_end(tmp_path, monkeypatch):
    """Statement 7 in small: architectures are trained, and the report judges all seven statements."""
    call(monkeypatch, measure_trainability, "--options", json.dumps(TINY_TRAINABILITY), "--output", tmp_path)
    table = pd.read_csv(tmp_path / "trainability.csv")
    assert len(table) == 4
    assert np.isfinite(table[["linear_regions", "maml_loss", "rfs_accuracy"]]).all().all()
    assert table["rfs_accuracy"].between(0, 100).all()
    verify, done = verify_theory.verify, []

    def count(options, advance):
        return verify(options, lambda: done.append(advance()))

    monkeypatch.setattr(verify_theory, "verify", count)
    seventh = ("--trainability", tmp_path / "trainability.csv")
    call(monkeypatch, verify_theory, "--options", json.dumps(tiny_theory()), *seventh, "--output", tmp_path)
    assert len(done) == verify_theory.count_units(parse(TheoryOptions, tiny_theory(), where="options"))
    text = (tmp_path / "theory.md").read_text()
    for statement, _ in STATEMENTS.values():
        assert statement in text
    assert json.loads((tmp_path / "theory.json").read_text())["options"]["seeds"] == 2
    for name in ("determinism", "formula", "convergence", "regression", "learners", "correlations"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / f"{name}.svg").read_text().count("</svg>") == 1
    tables = {path.stem for path in tmp_path.glob("*.csv")}
    assert {"kernels", "convergence", "bounds", "regression", "learners", "verdicts", "correlations"} <= tables


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("architecture,maml_loss\n0,1\n", "lacks the columns")]
)
def test_a_table_that_is_no_trainability_is_refused(tmp_path, monkeypatch, capsys, text, message):
    path = tmp_path / "trainability.csv"
    if text:
        path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, verify_theory, "--trainability", path, "--output", tmp_path / "out")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_architectures_are_nothing_to_measure(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, measure_trainability, "--output", tmp_path / "out")
    assert stopped.value.code == 2
    assert "architectures is 0" in capsys.readouterr().err


def test_maml_learns_more_than_the_mean_of_the_targets():
    """A norm that leaves nothing to the pool would end at the best constant, 0.4 per query (statement 7)."""
    options = parse(TrainabilityOptions, TINY_TRAINABILITY | {"channels": 4, "maml_steps": 30}, where="options")
    train = make_glyphs(image_size=8, images_per_class=16, seed=0)["train"]
    cpu = torch.device("cpu")
    tasks = trainability._draw_tasks(train, options, cpu)
    genotype = random_genotype(SPACES["few-shot"], 0)
    constant = 0.4 * trainability.WAYS * trainability.QUERIES
    assert trainability._meta_train(genotype, tasks, options, 0, cpu) < 0.9 * constant
