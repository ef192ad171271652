"""The default configuration from end to end, as a newcomer runs it. The longest test: minutes on two cores."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

METHODS = ("metantk", "te-nas", "linear-regions", "random")
SEEDS = (0, 1)
SUMMARY_COLUMNS = [
    "dataset",
    "run",
    "method",
    "seeds",
    "params",
    "search_seconds",
    "shots",
    "accuracy_mean",
    "accuracy_std",
    "ci95",
]
TABLES = ("summary", "table1", "table2", "costs")
PART_FILES = (
    "genotype.json",
    "search.csv",
    "search.json",
    "backbone.safetensors",
    "backbone.json",
    "training.csv",
    "episodes.csv",
    "evaluation.json",
)


@pytest.fixture(scope="module")
def house(default_house):
    """The default configuration, run to the end."""
    run = default_house.snakemake("--cores", 2)
    logs = "\n".join(path.read_text() for path in sorted(default_house.path.glob("results/logs/**/*.log")))
    assert run.returncode == 0, f"{run.stderr}\n{logs}"
    return default_house


@pytest.fixture(scope="module")
def results(house) -> Path:
    return house.path / "results"


@pytest.fixture(scope="module")
def shape(house) -> str:
    """The name of the only run."""
    (run,) = house.configuration["runs"]
    return f"{run['cells']}cells-{run['channels']}ch"


@pytest.fixture(scope="module")
def parts(results, shape) -> list[Path]:
    return [results / "glyphs" / shape / method / f"seed{seed}" for method in METHODS for seed in SEEDS]


@pytest.fixture(scope="module")
def summary(results) -> pd.DataFrame:
    return pd.read_csv(results / "tables" / "summary.csv")


def test_all_outputs_are_there(results, shape, parts):
    arrays = [
        f"glyphs/data/{part}/{name}.npy" for part in ("train", "val", "test") for name in ("images", "labels")
    ]
    tables = [f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")]
    names = [f"{what}_{part.parent.name}_{part.name}" for what in ("cells", "search") for part in parts]
    figures = [
        f"{name}.{suffix}" for name in (*names, "training", "accuracies", "cost") for suffix in ("svg", "png")
    ]
    expected = {
        *(results / array for array in arrays),
        results / "glyphs" / "data" / "manifest.json",
        results / "figures" / "glyphs" / "contact_sheet.png",
        *(part / name for part in parts for name in PART_FILES),
        *(results / "tables" / table for table in (*tables, "seeds.csv")),
        *(results / "figures" / "glyphs" / shape / figure for figure in figures),
    }
    ignored = {"logs", "benchmarks"}
    written = {path for path in results.rglob("*") if path.is_file()}
    assert {path for path in written if path.relative_to(results).parts[0] not in ignored} == expected
    assert [path for path in expected if path.stat().st_size == 0] == []


def test_the_summary_has_the_columns_and_rows_of_the_design(results, summary, shape):
    with (results / "tables" / "summary.csv").open() as file:
        assert next(csv.reader(file)) == SUMMARY_COLUMNS
    keys = summary[["dataset", "run", "method", "seeds", "shots"]].itertuples(index=False, name=None)
    assert list(keys) == [("glyphs", shape, method, len(SEEDS), shots) for method in METHODS for shots in (1, 5)]
    numbers = summary[["params", "search_seconds", "accuracy_mean", "accuracy_std", "ci95"]]
    assert numbers.notna().all(axis=None)
    assert (summary["params"] > 0).all()
    assert (summary["ci95"] > 0).all()


def test_accuracies_are_those_of_few_shot_learners(summary):
    accuracy = summary.set_index(["method", "shots"])["accuracy_mean"].unstack()
    assert set(accuracy.index) == set(METHODS)
    assert accuracy[1].between(40, 90).all(), accuracy
    assert (accuracy[5] > accuracy[1]).all(), accuracy
    assert (accuracy[5] < 100).all(), accuracy


def test_only_the_random_draw_costs_no_search(summary):
    seconds = summary.groupby("method")["search_seconds"].mean()
    assert (seconds.drop("random") > 1).all()
    assert seconds["random"] < 1


def test_every_method_sees_the_same_number_of_episodes(house, parts):
    evaluation = house.configuration["evaluation"]
    for part in parts:
        counts = pd.read_csv(part / "episodes.csv").groupby("shots")["episode"].nunique().to_dict()
        assert counts == dict.fromkeys((1, 5), evaluation.get("episodes", 1000))


def test_every_node_has_two_different_inputs(parts):
    for part in parts:
        genotype = json.loads((part / "genotype.json").read_text())
        for cell in ("normal", "reduce"):
            assert genotype[f"{cell}_concat"] == [2, 3, 4]
            assert len(genotype[cell]) == 3
            for number, node in enumerate(genotype[cell], start=2):
                sources = [source for _, source in node]
                assert len(sources) == len(set(sources)) == 2
                assert all(0 <= source < number for source in sources)


def test_seeds_and_methods_find_more_than_one_architecture(parts):
    assert len({(part / "genotype.json").read_text() for part in parts}) > len(METHODS)


def test_memory_stays_below_4_gib(results, parts):
    benchmarks = list((results / "benchmarks").rglob("*.tsv"))
    assert len(benchmarks) == 3 * len(parts) + 4
    peaks = {path: pd.read_csv(path, sep="\t")["max_rss"].max() for path in benchmarks}  # MiB; NaN: too short
    assert max(peak for peak in peaks.values() if peak == peak) < 4096
    for part in parts:
        for name in ("search.json", "backbone.json"):
            assert 0 < json.loads((part / name).read_text())["peak_memory_mb"]["cpu"] < 4096


def test_a_second_run_has_nothing_to_do(house):
    assert house.planned() == set()


def test_the_report_holds_tables_and_figures(house, shape, parts):
    report = house.path / "report.html"
    run = house.snakemake("--report", report)
    assert run.returncode == 0, run.stderr
    text = report.read_text()
    names = [f"{what}_{part.parent.name}_{part.name}.svg" for what in ("cells", "search") for part in parts]
    for name in (
        *names,
        "training.svg",
        "accuracies.svg",
        "cost.svg",
        "summary.csv",
        "table1.csv",
        "table2.csv",
    ):
        assert name in text, name


def test_the_results_are_shown_as_tables(house, results, summary):
    run = house.run("python", "scripts/show_results.py", "results")
    assert run.returncode == 0, run.stderr
    for name in ("summary", "table2"):
        assert (results / "tables" / f"{name}.md").read_text() in run.stdout
    for method in METHODS:
        assert method in run.stdout
    assert f"{summary['accuracy_mean'].iloc[0]:.2f} ± {summary['accuracy_std'].iloc[0]:.2f}" in run.stdout
    assert "results/figures" in run.stdout
