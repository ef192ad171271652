"""Kills, full disks, second processes, read-only folders, clocks that jump: the workflow ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import House, tiny_configuration

PART = Path("results/glyphs/3cells-2ch/linear-regions/seed0")
PART_FILES = (
    "genotype.json",
    "search.csv",
    "backbone.safetensors",
    "training.csv",
    "episodes.csv",
    "evaluation.json",
)
TABLES = ("table2.csv", "table2.md", "table2.tex", "seeds.csv")
TARGETS = [f"results/tables/{name}" for name in TABLES]
KILLS = 20
# Seconds until a kill: a run needs about 3 until its first job starts, and a job needs about 6.
KILL_AFTER = (3, 10)


def one_method() -> dict:
    """One chain of all stages up to the tables."""
    return tiny_configuration() | {"methods": ["linear-regions"]}


def start(house: House, environment: dict, *arguments: object) -> subprocess.Popen:
    """Start Snakemake in a session of its own, so that it can be ended with all that it started."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)],
        cwd=house.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def session_members(session: int) -> list[int]:
    """The processes that are left of a session."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess="], capture_output=True, text=True, check=True)
    return [int(pid) for pid, owner in map(str.split, listed.stdout.splitlines()) if int(owner) == session]


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for Snakemake and every process below it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def tables_of_one_method(finished_run, tmp_path) -> dict[str, bytes]:
    """The tables of the undisturbed run with this method alone."""
    run = finished_run.run("python", "scripts/aggregate_tables.py", PART, "--output", tmp_path / "tables")
    assert run.returncode == 0, run.stderr
    return {name: (tmp_path / "tables" / name).read_bytes() for name in TABLES}


def test_twenty_kills_change_no_byte(tiny_house, finished_run, tables_of_one_method, environment):
    tiny_house.configure(one_method())
    moments = random.Random(0)
    interrupted = 0
    for _ in range(KILLS):
        process = start(tiny_house, environment, "--rerun-incomplete", *TARGETS)
        time.sleep(moments.uniform(*KILL_AFTER))
        interrupted += process.poll() is None
        kill(process)
        unlocked = tiny_house.snakemake("--unlock")
        assert unlocked.returncode == 0, unlocked.stderr
    assert interrupted >= KILLS // 2
    run = tiny_house.snakemake("--cores", 2, "--rerun-incomplete", *TARGETS)
    assert run.returncode == 0, run.stderr
    for name in PART_FILES:
        assert (tiny_house.path / PART / name).read_bytes() == (finished_run.path / PART / name).read_bytes(), name
    found = {name: (tiny_house.path / "results/tables" / name).read_bytes() for name in TABLES}
    assert found == tables_of_one_method
    assert tiny_house.planned(*TARGETS) == set()
