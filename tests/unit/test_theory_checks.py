"""Statements and verdicts: rules on tables made by hand, and the theorems on tiny networks."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_theory
from scipy import stats

import verify_theory
from metantk.options.base import parse
from metantk.options.theory import TheoryNetworkOptions, TheoryOptions
from metantk.runtime import devices, leases
from metantk.runtime.command_line import run
from metantk.runtime.files import InputError
from metantk.theory import measurements
from metantk.theory.judgements import judge_bounds, judge_kernels, judge_learners, judge_regression
from metantk.theory.kernel_checks import measure_kernels
from metantk.theory.learner import FINITE, INFINITE, SUPPORTS_ONLY, TRAINED_CENTRED
from metantk.theory.report import STATEMENTS, write_report
from metantk.theory.tasks import draw_tasks
from metantk.theory.training_checks import (
    RIGHT,
    SLOW_RATE,
    WRONG,
    measure_convergence,
    measure_regression,
    summarise_bounds,
)
from metantk.theory.verdicts import (
    FAILS,
    FEWEST_WIDTHS,
    HOLDS,
    UNDECIDED,
    Verdict,
    combine,
    fit_slope,
    judge_slope,
    judge_widths,
)

WIDE = TheoryNetworkOptions(activation="erf", depth=1, widths=[8, 32, 128], trained_widths=[4, 32, 256])
SMALL = TheoryOptions(networks=[WIDE], sources=["gaussian"], shots=1, seeds=4, meta_steps=20, times=[1, 3])


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
    assert slope.single_half_width == slope.half_width
    several = fit_slope(table["width"], table["error"], cases=10, choices=3)
    assert several.half_width == pytest.approx(stats.t.ppf(1 - 0.025 / 30, 14) * spread)
    assert several.single_half_width == pytest.approx(stats.t.ppf(1 - 0.025 / 10, 14) * spread)


@pytest.mark.parametrize(
    ("exponent", "noise", "as_expected", "verdict"),
    [
        (-0.5, 0.05, True, HOLDS),
        (-0.5, 0.05, False, HOLDS),
        (-1.0, 0.05, True, HOLDS),
        (-0.2, 0.05, True, FAILS),
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


DRAWS = 20_000
WIDTHS, SEEDS = (8, 16, 32, 64, 128, 256), 6


def simulate(exponent, noise):
    """Logarithms of errors `(DRAWS, points)`, width^exponent with Gaussian scatter, and those of the widths."""
    logs = np.repeat(np.log(WIDTHS), SEEDS)
    return exponent * logs + noise * np.random.default_rng(0).normal(size=(DRAWS, len(logs))), logs


def holding(errors, logs, *, cases, choices, as_expected):
    """The rule of `judge_slope` for many data sets at once, `(data sets,)` bool; `choices=1`: uncorrected."""
    held = np.zeros(len(errors), bool)
    for width in WIDTHS[: len(WIDTHS) - FEWEST_WIDTHS + 1]:
        state = logs >= np.log(width)
        x, y = logs[state] - logs[state].mean(), errors[:, state]
        slope = y @ x / (x @ x)
        residual = y - y.mean(1, keepdims=True) - slope[:, None] * x
        spread = np.sqrt((residual**2).sum(1) / (len(x) - 2) / (x @ x))
        wide, narrow = (spread * stats.t.ppf(1 - 0.025 / n, len(x) - 2) for n in (cases * choices, cases))
        near = slope - narrow <= -0.5
        held |= (slope + wide < 0) & (near if as_expected else True)
    return held


RULES = [{"cases": cases, "as_expected": as_expected} for cases in (1, 4) for as_expected in (False, True)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("exponent", "noise"), [(0.0, 0.8), (-0.25, 0.8), (-0.5, 0.5), (-1.0, 0.8)])
def test_many_slopes_at_once_are_judged_as_one_by_one(exponent, noise, rule):
    errors, logs = simulate(exponent, noise)
    expected = holding(errors[:25], logs, choices=4, **rule)
    for index, held in enumerate(expected):
        table = pd.DataFrame({"width": np.repeat(WIDTHS, SEEDS), "error": np.exp(errors[index])})
        assert judge_slope("1", "case", table, "error", **rule).verdict.startswith(HOLDS) == held


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_flat_data_hold_in_2_5_percent_at_most(rule):
    """In any of the cases of a statement, whichever of the smallest widths are left out."""
    errors, logs = simulate(0.0, noise=0.8)
    rates = {
        choices: holding(errors, logs, choices=choices, **rule).reshape(-1, rule["cases"]).any(1).mean()
        for choices in (1, 4)
    }
    spread = 3 * (0.025 * 0.975 * rule["cases"] / DRAWS) ** 0.5  # three standard errors of the simulation
    assert rates[4] <= 0.025 + spread
    assert rates[1] > 0.04 + spread  # what is corrected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_true_slope_is_found_in_spite_of_the_correction(rule):
    errors, logs = simulate(-0.5, noise=0.5)
    assert holding(errors, logs, choices=4, **rule).mean() > 0.97


@pytest.mark.parametrize("exponent", [0.0, -0.25])
def test_the_correction_makes_no_other_slope_pass_for_the_expected_one(exponent):
    errors, logs = simulate(exponent, noise=0.5)
    corrected, naive = (holding(errors, logs, cases=1, choices=n, as_expected=True) for n in (4, 1))
    assert not (corrected & ~naive).any()


def test_a_diverged_run_makes_a_slope_undecided_not_steep():
    table = power_law(-0.5, widths=(8, 16, 32))
    table.loc[0, "error"] = np.inf
    for as_expected in (False, True):
        assert judge_slope("4", "case", table, "error", cases=1, as_expected=as_expected).verdict == UNDECIDED


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
    verdicts = judge_kernels(measure_kernels("gaussian", WIDE, SMALL))
    assert {v.statement for v in verdicts} == {"1", "2", "2, as printed", "6"}
    for verdict in verdicts:
        assert verdict.verdict == (FAILS if verdict.statement == "2, as printed" else HOLDS), verdict


def test_theorem_1_holds_for_a_wide_network_and_not_for_a_narrow_one():
    curves = measure_convergence("gaussian", WIDE, SMALL)
    bounds = summarise_bounds(curves)
    usual = bounds[bounds["rate"] == SMALL.meta_lr]
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


def against_wrong(table):
    return {v.verdict for v in judge_regression(table) if v.statement == "4, against wrong predictions"}


def test_theorem_2_errors_fall_with_width_unless_initial_outputs_are_left_out():
    widths = [measure_regression("gaussian", WIDE, width, SMALL) for width in WIDE.trained_widths]
    table = pd.concat(widths, ignore_index=True)
    for verdict in judge_regression(table):
        failing = verdict.statement == "4, outputs as drawn"
        assert (verdict.verdict == FAILS) == failing, verdict
        if verdict.statement in ("4", "4, finite rates"):
            assert verdict.verdict.startswith(HOLDS), verdict
    assert against_wrong(table) == {HOLDS}
    # Were Eq. 12 one of the wrong ones, it would be seen.
    for wrong in WRONG:
        swapped = table.assign(prediction=table["prediction"].replace({wrong: RIGHT, RIGHT: wrong}))
        assert FAILS in against_wrong(swapped)
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


@pytest.mark.parametrize(("gain", "verdict"), [(10, FAILS), (0, UNDECIDED), (-10, HOLDS)])
def test_learners_are_compared_task_by_task(gain, verdict):
    judged = {v.case: v.verdict for v in judge_learners(learner_table(gain), ways=3)}
    assert judged[f"{INFINITE}: better than chance"] == HOLDS
    assert judged[f"{INFINITE}: better than {SUPPORTS_ONLY}"] == verdict


@pytest.mark.parametrize(("accuracy", "verdict"), [(20, FAILS), (100 / 3, UNDECIDED), (40, HOLDS)])
def test_chance_is_told_from_what_is_worse_and_from_noise(accuracy, verdict):
    table = learner_table(0)
    table["accuracy"] += accuracy - table["accuracy"][table["learner"] == INFINITE].mean()
    judged = {v.case: v.verdict for v in judge_learners(table, ways=3)}
    assert judged[f"{INFINITE}: better than chance"] == verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": [{"widths": [8, 4, 16]}]}, "widths must ascend"),
        ({"networks": [{"widths": [4, 8]}]}, "at least three widths"),
        ({"networks": [{"trained_widths": []}]}, "none has trained_widths"),
        ({"sources": ["glyphs", "glyphs"]}, "sources.*glyphs is listed twice"),
        ({"times": [1, 4, 1]}, "times.*1 is listed twice"),
        ({"networks": [{}, {"widths": [4, 8, 16]}]}, "networks.*fully connected, relu, depth 2 is listed twice"),
        ({"lr": 1.0}, "'lr'"),
        ({"inner_time": 2.0}, "'inner_time'"),
    ],
)
def test_theory_options_that_make_no_sense_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        parse(TheoryOptions, changes, where="options")


def call(monkeypatch, script, *arguments):
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    monkeypatch.setattr("sys.argv", [script.__file__, *map(str, arguments)])
    run(script.main)


@pytest.mark.slow
def test_the_program_from_end_to_end(tmp_path, monkeypatch):
    call(monkeypatch, verify_theory, "--options", json.dumps(tiny_theory()), "--output", tmp_path)
    text = (tmp_path / "theory.md").read_text()
    for statement, _ in STATEMENTS.values():
        assert statement in text
    assert json.loads((tmp_path / "theory.json").read_text())["options"]["seeds"] == 2
    for name in ("determinism", "formula", "convergence", "regression", "learners"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / f"{name}.svg").read_text().count("</svg>") == 1
    tables = {path.stem for path in tmp_path.glob("*.csv")}
    assert tables == {"kernels", "convergence", "bounds", "regression", "learners", "verdicts"}
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_part_and_ends_as_one_that_was_not(tmp_path, monkeypatch):
    options = ("--options", json.dumps(tiny_theory()))
    call(monkeypatch, verify_theory, *options, "--output", tmp_path / "whole")
    measured = []

    def list_parts(options, stop_at=None):
        def measure(index, part):
            if index == stop_at:
                raise KeyboardInterrupt
            measured.append(part.name)
            return part.measure()

        return [part._replace(measure=partial(measure, index, part)) for index, part in enumerate(parts)]

    parts = measurements.list_parts(parse(TheoryOptions, tiny_theory(), where="options"))
    monkeypatch.setattr(measurements, "list_parts", partial(list_parts, stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, verify_theory, *options, "--output", tmp_path / "killed")
    assert not (tmp_path / "killed" / "theory.md").exists()
    monkeypatch.setattr(measurements, "list_parts", list_parts)
    call(monkeypatch, verify_theory, *options, "--output", tmp_path / "killed")
    assert measured == [part.name for part in parts]  # none of them twice
    for path in (tmp_path / "whole").glob("*.csv"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_no_gpu_is_leased_for_work_of_the_cpu(tmp_path, monkeypatch):
    """On a machine with two GPUs, as far as `pick_device` can tell."""
    leased = []
    monkeypatch.delenv("METANTK_DEVICE", raising=False)
    monkeypatch.setattr(devices, "visible_devices", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(leases, "is_needed", lambda count: True)
    monkeypatch.setattr(leases, "take", lambda uuids: leased.append(uuids) or 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(devices, "check_kernels", lambda device: None)
    assert devices.pick_device() == torch.device("cuda", 1)
    assert leased.pop() == ["GPU-a", "GPU-b"]
    monkeypatch.setattr(
        "sys.argv", ["verify_theory.py", "--options", json.dumps(tiny_theory()), "--output", str(tmp_path)]
    )
    run(verify_theory.main)
    assert leased == []
    assert (tmp_path / "theory.md").exists()
