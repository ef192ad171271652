"""The table of costs from made-up benchmark files, logs and reports."""

import json

import pytest
from test_tables import write_part

from metantk import costs, tables


def write_benchmark(root, stage, seed, seconds, memory):
    path = root / "benchmarks" / stage / "glyphs/5cells-48ch/metantk" / f"seed{seed}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmean_load\n{seconds}\t0:00:01\t{memory}\t90.0\n")


def write_log(root, stage, seed, node):
    path = root / "logs" / stage / "glyphs/5cells-48ch/metantk" / f"seed{seed}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"12:00:00 going on\n12:00:01 device NVIDIA H200, 1 threads, on {node} SLURM_JOB_ID=7\n12:00:02 end\n"
    )


@pytest.fixture
def parts(tmp_path):
    """Two seeds: of one the GPU memory is known, too."""
    folders = [write_part(tmp_path, "metantk", seed) for seed in (0, 1)]
    report = folders[1] / "search.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"peak_memory_mb": {"cpu": 1.0, "cuda": 512.0}}))
    return {folder: tables.read_part(folder) for folder in folders}


def test_seconds_are_means_memory_is_the_largest_and_all_nodes_are_named(tmp_path, parts):
    for seed, (seconds, memory, node) in enumerate([(10.0, 300.0, "b"), (20.0, "-", "a")]):
        write_benchmark(tmp_path, "search_architecture", seed, seconds, memory)
        write_log(tmp_path, "search_architecture", seed, node)
    table = costs.summarise(parts)
    assert list(table.columns) == costs.COLUMNS
    assert table["stage"].tolist() == list(costs.STAGES)
    search = table.iloc[0]
    assert (search["dataset"], search["run"], search["method"]) == ("glyphs", "5cells-48ch", "metantk")
    assert (search["jobs"], search["seconds"], search["memory_mb"]) == (2, 15.0, 300.0)
    assert (search["gpu_memory_mb"], search["nodes"]) == (512.0, "a b")


def test_what_was_not_measured_is_left_empty(parts):
    table = costs.summarise(parts)
    assert table[["seconds", "memory_mb"]].isna().all(axis=None)
    assert (table["nodes"] == "").all()
