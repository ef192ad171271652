"""The table of costs from made-up benchmark files, logs and reports."""

import os

import pytest
from small_chain import change, write_chain

from metantk.results import costs, tables
from metantk.runtime.files import InputError


def place(stage, seed):
    """A search's job lies where its outputs do, and so do those of its trainings and evaluations."""
    return f"glyphs/5cells-48ch/metantk/seed{seed}" + ("" if stage == "search_architecture" else "/rfs")


def write_benchmark(root, stage, seed, seconds, memory):
    path = root / "benchmarks" / stage / f"{place(stage, seed)}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{seconds}\t0:00:01\t{memory}\t90.0\n")


def write_log(root, stage, seed, node):
    path = root / "logs" / stage / f"{place(stage, seed)}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"12:00:00 going on\n12:00:01 device NVIDIA H200, 1 threads, on {node} SLURM_JOB_ID=7\n12:00:02 end\n"
    )


@pytest.fixture
def groups(tmp_path):
    """Two seeds: of one the GPU memory is known, too."""
    folders = [write_chain(tmp_path, "metantk", seed) for seed in (0, 1)]
    change(folders[1].parent / "search.json", peak_memory_mb={"cpu": 1.0, "cuda": 512.0})
    change(folders[0] / "model.json", peak_memory_mb={"cpu": 1.0, "cuda": 64.0})
    return tables.group_chains(map(tables.read_chain, folders))


@pytest.mark.parametrize("without", ["-", "NA"])  # Snakemake writes either
@pytest.mark.parametrize(("index", "stage", "gpu"), [(0, "search_architecture", 512.0), (1, "train_network", 64.0)])
def test_seconds_are_means_memory_is_the_largest_and_all_nodes_are_named(
    tmp_path, groups, index, stage, gpu, without
):
    for seed, (seconds, memory, node) in enumerate([(10.0, 300.0, "b"), (20.0, without, "a")]):
        write_benchmark(tmp_path, stage, seed, seconds, memory)
        write_log(tmp_path, stage, seed, node)
    table = costs.summarise(groups, tmp_path)
    assert list(table.columns) == costs.COLUMNS
    assert table["stage"].tolist() == costs.STAGES
    row = table.iloc[index]
    assert row[tables.KEY].tolist() == ["glyphs", "5cells-48ch", "metantk", "rfs"]
    assert (row["jobs"], row["seconds"], row["memory_mb"]) == (2, 15.0, 300.0)
    assert (row["gpu_memory_mb"], row["nodes"]) == (gpu, "a b")
    # The other stages left nothing.
    assert table.drop(index=index)["seconds"].isna().all()


@pytest.mark.parametrize("known", [True, False])
def test_what_was_not_measured_is_left_empty(tmp_path, groups, known):
    """Nothing beside the chains, no folder of a workflow at all, or another workflow's."""
    (tmp_path / "other").mkdir()
    for results in (tmp_path, tmp_path / "other") if known else (None,):
        table = costs.summarise(groups, results)
        assert table[["seconds", "memory_mb"]].isna().all(axis=None)
        assert (table["nodes"] == "").all()
        assert table["gpu_memory_mb"].dropna().tolist() == [512.0, 64.0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"s\tmax_rss\n",
        b"garbage\n",
        b"s\tmax_rss\n5\n",
        b"s\tmax_rss\nabc\t5\n",
        b"s\tmax_rss\n5\tinf\n",
        b"s\tmax_rss\n-1\t5\n",
        b"s\tmax_rss\nnan\t5\n",
        b"\xff\x00",
    ],
)
def test_damaged_benchmarks_are_named(tmp_path, groups, content):
    write_benchmark(tmp_path, "train_network", 0, 1.0, 1.0)
    path = tmp_path / "benchmarks" / "train_network" / f"{place('train_network', 0)}.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: holds no seconds and memory"):
        costs.summarise(groups, tmp_path)


@pytest.mark.parametrize("kind", ["benchmarks", "logs"])
def test_nobody_waits_for_a_pipe(tmp_path, groups, kind):
    suffix = {"benchmarks": "tsv", "logs": "log"}[kind]
    path = tmp_path / kind / "train_network" / f"{place('train_network', 0)}.{suffix}"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="it is no file"):
        costs.summarise(groups, tmp_path)
