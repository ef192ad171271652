"""Kills, full disks, second processes, read-only folders, clocks that jump: the same bytes in the end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import House, copy_house, tiny_configuration

from metantk.options.base import Options
from metantk.options.config import parse_config

pytestmark = pytest.mark.slow

SEARCHED = Path("results/glyphs/3cells-2ch/linear-regions/seed0")
CHAIN = SEARCHED / "rfs"
# What a chain leaves but for the times that it took.
FILES = ("architecture.json", "search.csv", "model.safetensors", "training.csv", "episodes.csv", "evaluation.json")
TABLES = ("table2.csv", "table2.md", "table2.tex", "seeds.csv")
TABLES_TARGET = "results/tables/table2.csv"
KILLS = 20
KILL_AFTER = (0, 4)  # seconds from the start of a run's first job; a job needs about 6


def one_row() -> dict:
    """One chain of all stages up to the tables."""
    row = {"backbone": "3cells-2ch", "search": "linear-regions", "learner": "rfs"}
    return tiny_configuration() | {"rows": [row]}


def row_of_each_kind() -> dict:
    """All searches and all learners, as small as they come."""
    tiny = tiny_configuration()
    task = {"meta_batch_size": 2, "queries": 3}
    rows = [
        ("3cells-2ch", "linear-regions", "rfs"),
        ("3cells-2ch", "metanas", "reptile"),
        ("3cells-2ch", "t-nas", "maml-plus-plus"),
        ("3cells-2ch", "autometa", "anil"),
        ("3cells-2ch", "ntk-bo", "metaoptnet"),
        ("mixed-2", "fixed", "metanas"),
    ]
    return tiny | {
        "rows": [dict(zip(("backbone", "search", "learner"), row, strict=True)) for row in rows],
        "backbones": {"mixed-2": {"kind": "mixed", "cells": 2, "channels": 2, "reductions": [1]}},
        "searches": tiny["searches"]
        | {
            "metanas": {"cells": 2, "channels": 2, "reductions": [1], "image_size": 8, "epochs": 4}
            | {"steps_per_epoch": 1, "warm_up_epochs": 2, "meta_batch_size": 2, "shots": 3, "prune_every_steps": 3},
            "t-nas": {"channels": 2, "epochs": 2, "steps_per_epoch": 2, "meta_batch_size": 2, "queries": 2}
            | {"validation_episodes": 2, "validation_inner_steps": 2},
            "autometa": {"image_size": 8, "first_level": 2, "beam": 2, "ensemble": 2, "predictor_steps": 3}
            | {
                "meta_steps": 3,
                "meta_batch_size": 2,
                "shots": 3,
                "validation_episodes": 2,
                "validation_inner_steps": 2,
            },
            "bayesian-optimisation": {
                "initial_samples": 12,
                "samples_per_round": 4,
                "max_evaluations": 16,
                "random_comparisons": 4,
                "image_size": 8,
            },
        },
        "learners": {
            "rfs": {"epochs": 2},
            "reptile": {"epochs": 2, "steps_per_epoch": 3, "meta_batch_size": 2, "shots": 3, "test_steps": 2},
            "maml-plus-plus": {"epochs": 2, "steps_per_epoch": 2, "multi_step_loss_epochs": 1, **task},
            "anil": {"epochs": 2, "steps_per_epoch": 3, **task},
            "metaoptnet": {"epochs": 2, "steps_per_epoch": 3, "shots": 2, "validation_episodes": 4, **task},
            "metanas": {"epochs": 2, "steps_per_epoch": 2, "warm_up_epochs": 1, "meta_batch_size": 2, "shots": 3}
            | {"adaptation": {"inner_steps": 2}},
        },
    }


def start(house: House, environment: dict, *arguments: object) -> subprocess.Popen:
    """Start Snakemake in a session of its own, so that it can be ended with all that it started."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--max-threads", "1", *map(str, arguments)],
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


def changed(path: Path) -> float:
    """When; never where it is gone: Snakemake removes the log of a job that it runs again."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def wait_for_a_job(house: House, process: subprocess.Popen, began: float) -> None:
    """Until a job's log is made anew, or the workflow ends."""

    def has_started() -> bool:
        return any(changed(log) >= began for log in house.path.glob("results/logs/**/*.log"))

    wait_until(lambda: process.poll() is not None or has_started(), seconds=300)


def left_by(house: House) -> dict[str, bytes]:
    """All that does not tell how long something took."""
    results = house.path / "results"
    paths = [path for name in FILES for path in results.glob(f"glyphs/**/{name}")]
    paths += [results / "tables" / name for name in TABLES]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def test_twenty_kills_change_no_byte(tmp_path, environment):
    """Of a campaign with every search and every learner."""
    houses = [tmp_path / name for name in ("undisturbed", "killed")]
    for path in houses:
        path.mkdir()
        copy_house(path).configure(row_of_each_kind())
    undisturbed, killed = map(House, houses)
    run = undisturbed.snakemake("--cores", 2, "--max-threads", 1, TABLES_TARGET)
    assert run.returncode == 0, run.stderr
    moments = random.Random(0)
    interrupted = 0
    while interrupted < KILLS:
        began = time.time()
        process = start(killed, environment, "--rerun-incomplete", TABLES_TARGET)
        wait_for_a_job(killed, process, began)
        time.sleep(moments.uniform(*KILL_AFTER))
        if process.poll() is not None:  # done between two kills: from the beginning
            process.communicate()
            shutil.rmtree(killed.path / "results")
            continue
        kill(process)
        interrupted += 1
        unlocked = killed.snakemake("--unlock")
        assert unlocked.returncode == 0, unlocked.stderr
    run = killed.snakemake("--cores", 2, "--max-threads", 1, "--rerun-incomplete", TABLES_TARGET)
    assert run.returncode == 0, run.stderr
    expected, found = left_by(undisturbed), left_by(killed)
    assert len(expected) == len(FILES) * len(row_of_each_kind()["rows"]) + len(TABLES)
    assert [name for name in expected | found if expected.get(name) != found.get(name)] == []
    assert killed.planned(TABLES_TARGET) == set()


def test_ctrl_c_ends_the_workflow_and_all_its_processes(tiny_house, environment):
    process = start(tiny_house, environment, TABLES_TARGET)
    try:
        wait_until(lambda: list(tiny_house.path.glob("results/glyphs/.data.unfinished")))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) != 0
        wait_until(lambda: not session_members(process.pid))
    finally:
        if session_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert not list(tiny_house.path.glob(".snakemake/locks/*"))
    assert not list(tiny_house.path.glob("results/glyphs/data/*"))
    assert tiny_house.jobs("--cores", 2, "results/glyphs/data/manifest.json") == {"prepare_dataset glyphs/data"}


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_second_workflow_process_refuses(tiny_house, environment):
    first = start(tiny_house, environment, TABLES_TARGET)
    try:
        wait_until(lambda: list(tiny_house.path.glob(".snakemake/locks/*")))
        second = tiny_house.snakemake("--cores", 1, TABLES_TARGET)
        assert first.poll() is None
    finally:
        kill(first)
    assert second.returncode == 1
    assert "LockException" in second.stderr
    assert "--unlock" in second.stderr


def test_a_clock_that_jumps_reruns_nothing(finished):
    """As after a reboot with a dead battery: all times a day ahead, or years back."""
    files = [path for path in finished.path.glob("results/**/*") if path.is_file()]
    for context in (time.time() + 86400, 1_000_000_000):
        for index, path in enumerate(random.Random(0).sample(files, len(files))):
            os.utime(path, (context + index, context + index))
        assert finished.planned() == set()


@pytest.fixture
def mounted(tmp_path):
    """Mount a small file system of its own; a function that says how."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting needs root on Linux")
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode and "permission denied" in done.stderr:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True, check=False)


# What each stage reads is there already; options and `--output` are added.
DATA = ("--data", "results/glyphs/data")
ARGUMENTS = {
    "prepare_dataset": ("--name", "glyphs"),
    "inspect_dataset": ("results/glyphs/data",),
    "search_architecture": DATA,
    "train_network": (*DATA, "--architecture", SEARCHED / "architecture.json"),
    "evaluate_episodes": (*DATA, "--model", CHAIN),
    "aggregate_tables": (CHAIN,),
    "draw_searches": (SEARCHED,),
    "draw_results": (CHAIN, "--tables", "results/tables"),
    "verify_theory": (),
}
# The file that each writes last, by which others know that it is done.
LAST_FILE = {
    "prepare_dataset": "manifest.json",
    "inspect_dataset": "contact_sheet.png",
    "search_architecture": "architecture.json",
    "train_network": "model.json",
    "evaluate_episodes": "evaluation.json",
    "aggregate_tables": "missing.csv",
    "draw_searches": "search_linear-regions_seed0.png",
    "draw_results": "cost.png",
    "verify_theory": "theory.json",
}


def options_of(stage: str) -> dict[str, Options]:
    """By flag, as the workflow hands them over."""
    configuration = parse_config(one_row())
    (chain,) = configuration.chains
    return {
        "prepare_dataset": {"--options": configuration.datasets["glyphs"]},
        "search_architecture": {
            "--backbone": configuration.backbone(chain.backbone),
            "--search": configuration.search(chain.search),
        },
        "train_network": {"--learner": configuration.learner(chain.learner)},
        "evaluate_episodes": {"--options": configuration.evaluation.episodes_alone},
        "verify_theory": {"--options": configuration.theory},
    }.get(stage, {})


def command_of(stage: str, output: Path) -> list[object]:
    given = [word for flag, options in options_of(stage).items() for word in (flag, options.model_dump_json())]
    return ["python", f"scripts/{stage}.py", *ARGUMENTS[stage], *given, "--output", output]


@pytest.mark.parametrize("stage", ARGUMENTS)
def test_a_full_disk_is_told_in_one_line_and_the_stage_goes_on_when_there_is_space(finished_run, mounted, stage):
    disk = mounted("size=64M")
    filler, output = disk / "filler", disk / "folder" / "output"
    output.mkdir(parents=True)
    room = 4096  # bytes: the smallest files fit, not all of any stage
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * 4096 - room)
    command = command_of(stage, output)
    full = finished_run.run(*command)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"{stage}.py: error: ")
    assert full.stderr.endswith("cannot be written (No space left on device); free some space and start again\n")
    assert not list(output.rglob(LAST_FILE[stage]))
    assert not [path for path in output.rglob("*") if path.is_file() and path.stat().st_size == 0]
    filler.unlink()
    again = finished_run.run(*command)
    assert again.returncode == 0, again.stderr
    assert list(output.rglob(LAST_FILE[stage]))
    assert not list(disk.rglob(".*"))


def test_a_results_folder_that_is_read_only(tiny_house, mounted):
    disk = mounted("size=1M,ro")
    words = ("--name", "a", "--source", "glyphs", "--output", disk / "a")
    run = tiny_house.run("python", "scripts/prepare_dataset.py", *words)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("cannot be written (Read-only file system)")
    (tiny_house.path / "results").symlink_to(disk)
    workflow = tiny_house.snakemake("--cores", 1)
    assert workflow.returncode == 1
    assert "Read-only file system" in workflow.stderr
