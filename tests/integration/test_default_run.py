"""The rows of the default configuration from end to end, each with less work: what a newcomer's first run makes."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metantk.options.config import merge

CELLS, CONV4 = "3cells-4ch", "conv4-16"
SEARCHES = ("metantk", "te-nas", "linear-regions", "random")
PRUNED = SEARCHES[:3]
# Backbone, search and learner, and the row's name in the tables.
ROWS = {
    (CELLS, "metantk", "rfs"): "MetaNTK-NAS",
    (CELLS, "te-nas", "rfs"): "TE-NAS",
    (CELLS, "linear-regions", "rfs"): "Linear Region",
    (CELLS, "random", "rfs"): "Random Cell",
    (CONV4, "fixed", "rfs-conv4"): "RFS",
    (CONV4, "fixed", "maml-first-order"): "MAML (first order)",
    (CONV4, "fixed", "metaoptnet"): "MetaOptNet",
    (CONV4, "fixed", "none"): "Not trained",
}
SEEDS = (0,)
SUMMARY_COLUMNS = [
    "dataset",
    "backbone",
    "search",
    "learner",
    "model",
    "pretrained",
    "seeds",
    "params",
    "multiply_accumulates",
    "latency_ms",
    "search_seconds",
    "search_operations",
    "device",
    "shots",
    "accuracy_mean",
    "accuracy_std",
    "ci95",
    "notes",
]
TABLES = ("summary", "table1", "table2", "differences", "costs", "published")
SEARCH_FILES = ("architecture.json", "search.csv", "search.json")
CHAIN_FILES = ("model.safetensors", "model.json", "training.csv", "episodes.csv", "evaluation.json")
CORES = 2
# Of `make run`, which takes minutes.
LESS = {
    "datasets": {"glyphs": {"image_size": 16}},
    "searches": {"prune": {"repeats": 1, "image_size": 8}},
    "criteria": {"meta_ntk": {"ways": 3, "tasks": 2}, "ntk": {"images": 12}, "linear_regions": {"images": 300}},
    "learners": {
        "rfs": {"epochs": 4},
        "rfs-conv4": {"epochs": 8},
        "maml": {"epochs": 2, "steps_per_epoch": 50},
        "metaoptnet": {"epochs": 5},
    },
    "evaluation": {"episodes": 120},
}


@pytest.fixture(scope="module")
def house(default_house):
    """The default configuration with less work, run to the end."""
    default_house.configure(merge(default_house.configuration, LESS))
    run = default_house.snakemake("--cores", CORES)
    logs = "\n".join(path.read_text() for path in sorted(default_house.path.glob("results/logs/**/*.log")))
    assert run.returncode == 0, f"{run.stderr}\n{logs}"
    return default_house


@pytest.fixture(scope="module")
def results(house) -> Path:
    return house.path / "results"


@pytest.fixture(scope="module")
def searched(results) -> list[Path]:
    searches = dict.fromkeys((backbone, search) for backbone, search, _ in ROWS)
    return [
        results / "glyphs" / backbone / search / f"seed{seed}" for backbone, search in searches for seed in SEEDS
    ]


@pytest.fixture(scope="module")
def chains(results) -> list[Path]:
    return [
        results / "glyphs" / backbone / search / f"seed{seed}" / learner
        for backbone, search, learner in ROWS
        for seed in SEEDS
    ]


@pytest.fixture(scope="module")
def with_cells(searched) -> list[Path]:
    return [folder for folder in searched if folder.parts[-3] == CELLS]


@pytest.fixture(scope="module")
def summary(results) -> pd.DataFrame:
    return pd.read_csv(results / "tables" / "summary.csv")


def names_of_figures(with_cells: list[Path]) -> list[str]:
    return [f"{what}_{folder.parent.name}_{folder.name}" for what in ("cells", "search") for folder in with_cells]


def test_all_outputs_are_there(results, searched, chains, with_cells):
    data, figures = results / "glyphs" / "data", results / "figures" / "glyphs"
    arrays = [f"{part}/{name}.npy" for part in ("train", "val", "test") for name in ("images", "labels")]
    tables = [f"{name}.{suffix}" for name in (*TABLES, "transfer") for suffix in ("csv", "md", "tex", "html")]
    drawn = [
        *(f"{CELLS}/{name}" for name in names_of_figures(with_cells)),
        "training",
        "accuracies",
        "cost",
        "front",
    ]
    expected = {
        *(data / name for name in (*arrays, "manifest.json")),
        *(folder / name for folder in searched for name in SEARCH_FILES),
        *(folder / name for folder in chains for name in CHAIN_FILES),
        *(results / "tables" / name for name in (*tables, "seeds.csv", "missing.csv", "cover.rst")),
        *(figures / f"{name}.{suffix}" for name in drawn for suffix in ("svg", "png")),
        figures / "contact_sheet.png",
    }
    ignored = {"logs", "benchmarks"}
    written = {path for path in results.rglob("*") if path.is_file()}
    assert {path for path in written if path.relative_to(results).parts[0] not in ignored} == expected
    assert [path for path in expected if path.stat().st_size == 0] == []


def test_the_summary_has_the_columns_and_rows_of_the_design(results, summary):
    with (results / "tables" / "summary.csv").open() as file:
        assert next(csv.reader(file)) == SUMMARY_COLUMNS
    keys = summary[["dataset", "backbone", "search", "learner", "model", "seeds", "shots"]]
    assert list(keys.itertuples(index=False, name=None)) == [
        ("glyphs", backbone, search, learner, model, len(SEEDS), shots)
        for (backbone, search, learner), model in ROWS.items()
        for shots in (1, 5)
    ]
    indices = summary[["params", "search_seconds", "accuracy_mean", "ci95"]]
    assert indices.notna().all(axis=None)
    assert (summary["params"] > 0).all()
    assert (summary.loc[summary["learner"] == "rfs", "latency_ms"] > 0).all()
    assert (summary["ci95"] > 0).all()


@pytest.fixture(scope="module")
def accuracy(summary) -> pd.DataFrame:
    """In percent, by row and number of shots."""
    return summary.set_index(["backbone", "search", "learner", "shots"])["accuracy_mean"].unstack()


def test_accuracies_are_those_of_few_shot_learners(accuracy):
    assert set(accuracy.index) == set(ROWS)
    trained = accuracy.drop(index="none", level="learner")
    assert trained[1].between(25, 90).all(), accuracy  # chance: 20
    assert (trained[5] > trained[1]).all(), accuracy
    assert (trained[5] < 100).all(), accuracy


def test_every_learner_is_above_its_untrained_start(house, results, accuracy, tmp_path):
    architecture = results / "glyphs" / CELLS / "metantk" / "seed0" / "architecture.json"
    where = ("--data", results / "glyphs" / "data", "--output", tmp_path)
    evaluation = json.dumps(house.configuration["evaluation"])
    for script, *more in (
        ("train_network", "--architecture", architecture, "--learner", "none"),
        ("evaluate_episodes", "--model", tmp_path, "--options", evaluation),
    ):
        run = house.run("python", f"scripts/{script}.py", *where, *more)
        assert run.returncode == 0, run.stderr
    cells = json.loads((tmp_path / "evaluation.json").read_text())["shots"]
    for shots in (1, 5):
        learned = accuracy[shots].drop(index="none", level="learner").groupby("backbone").min()
        assert learned[CONV4] > accuracy[shots][CONV4, "fixed", "none"], accuracy
        assert learned[CELLS] > cells[str(shots)]["accuracy_mean"], accuracy


def test_only_what_is_measured_costs_a_search(summary):
    seconds = summary.groupby("search")["search_seconds"].mean()
    assert (seconds[list(PRUNED)] > 1).all()
    assert (seconds.drop(list(PRUNED)) < 1).all()


def test_every_row_sees_the_same_number_of_episodes(house, chains):
    episodes = house.configuration["evaluation"].get("episodes", 1000)
    for folder in chains:
        counts = pd.read_csv(folder / "episodes.csv").groupby("shots")["episode"].nunique().to_dict()
        assert counts == dict.fromkeys((1, 5), episodes)


def genotype(folder: Path) -> dict | None:
    return json.loads((folder / "architecture.json").read_text()).get("genotype")


def test_every_node_has_two_different_inputs(with_cells):
    for folder in with_cells:
        cells = genotype(folder)
        for cell in ("normal", "reduce"):
            assert cells[f"{cell}_concat"] == [2, 3, 4]
            assert len(cells[cell]) == 3
            for index, node in enumerate(cells[cell], start=2):
                sources = [source for _, source in node]
                assert len(sources) == len(set(sources)) == 2
                assert all(0 <= source < index for source in sources)


def test_every_search_finds_an_architecture_of_its_own(searched, with_cells):
    assert len({json.dumps(genotype(folder)) for folder in with_cells}) == len(SEARCHES)
    assert {genotype(folder) for folder in searched if folder not in with_cells} == {None}


def test_memory_stays_below_2_gib(results, searched, chains):
    benchmarks = list((results / "benchmarks").rglob("*.tsv"))
    # Each seed's stages, the data set and its images, the drawings of each search, tables, figures of results.
    assert len(benchmarks) == len(searched) + 2 * len(chains) + 2 + len(SEARCHES) + 2
    peaks = {path: pd.read_csv(path, sep="\t")["max_rss"].max() for path in benchmarks}  # MiB; NaN: too short
    assert max(peak for peak in peaks.values() if peak == peak) < 2048
    reports = [folder / "search.json" for folder in searched] + [folder / "model.json" for folder in chains]
    for path in reports:
        assert 0 < json.loads(path.read_text())["peak_memory_mb"]["cpu"] < 2048


def test_models_say_on_how_many_images_they_were_trained(results, chains):
    images = len(np.load(results / "glyphs" / "data" / "train" / "labels.npy"))
    assert {json.loads((chain / "model.json").read_text())["training_images"] for chain in chains} == {images}


def test_a_second_run_has_nothing_to_do(house):
    assert house.planned() == set()


def test_the_report_holds_tables_and_figures(house, with_cells):
    report = house.path / "report.html"
    run = house.snakemake("--report", report)
    assert run.returncode == 0, run.stderr
    text = report.read_text()
    figures = [f"{name}.svg" for name in (*names_of_figures(with_cells), "training", "accuracies", "cost", "front")]
    for name in (*figures, *(f"{table}.html" for table in TABLES if table != "published")):
        assert name in text, name
    # Of glyphs there are no published results. As an output of its rule the page is named nevertheless.
    assert re.search(r'summary\.html":\s*\{', text)
    assert not re.search(r'published\.html":\s*\{', text)


def test_the_results_are_shown_as_the_papers_tables(house, results, summary):
    run = house.run("python", "scripts/show_results.py", "results")
    assert run.returncode == 0, run.stderr
    places = [run.stdout.index((results / "tables" / f"{name}.md").read_text()) for name in ("table2", "table1")]
    assert places == sorted(places)
    for model in ROWS.values():
        assert model in run.stdout
    assert f"{summary['accuracy_mean'].iloc[0]:.2f}" in run.stdout
    assert "results/figures" in run.stdout
