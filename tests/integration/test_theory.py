"""The target `theory` at its defaults: a minute on one core."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

FIGURES = ("determinism", "formula", "convergence", "regression", "learners")
TABLES = ("kernels", "convergence", "bounds", "regression", "learners", "verdicts")


@pytest.fixture(scope="module")
def results(default_house):
    run = default_house.snakemake("--cores", 1, "theory")
    assert run.returncode == 0, run.stderr
    return default_house.path / "results"


def test_the_theory_is_all_that_was_made(results):
    assert {path.name for path in results.iterdir()} == {"theory", "logs", "benchmarks"}
    assert {path.name for path in (results / "theory").iterdir()} == {
        *(f"{name}.{suffix}" for name in FIGURES for suffix in ("svg", "png")),
        *(f"{name}.csv" for name in TABLES),
        "theory.md",
        "theory.json",
    }


def test_it_comes_out_as_proved_where_the_proofs_apply(results):
    """Verdicts that no choice of seeds should change; the others are for reading."""
    verdicts = pd.read_csv(results / "theory" / "verdicts.csv")
    by_statement = verdicts.groupby("statement")["verdict"].unique()
    assert list(by_statement["2, as printed"]) == ["does not hold"]
    assert list(by_statement["3, slow rate"]) == ["does not hold"]
    assert list(by_statement["4, outputs as drawn"]) == ["does not hold"]
    for statement in ("1", "2", "3", "4", "6"):
        assert "does not hold" not in by_statement[statement], statement


def test_it_ran_on_the_cpu_in_little_memory(results):
    report = json.loads((results / "theory" / "theory.json").read_text())
    assert report["device"] == "cpu"
    assert report["peak_memory_mb"]["cpu"] < 4096


def test_its_report_holds_verdicts_and_figures(results, default_house):
    run = default_house.snakemake("theory", "--report", default_house.path / "report.html")
    assert run.returncode == 0, run.stderr
    text = (default_house.path / "report.html").read_text()
    for name in ("theory.md", *(f"{name}.svg" for name in FIGURES)):
        assert name in text, name
