"""Determinism: the same seed gives the same bytes, in one go or killed on the way and started again."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SEARCH = {
    "kind": "prune",
    "criteria": ["meta_ntk_condition", "linear_regions"],
    "repeats": 1,
    "image_size": 8,
    "criteria_options": {
        "meta_ntk": {"ways": 2, "tasks": 2},
        "linear_regions": {"images": 60, "batches": 1},
    },
}
BACKBONE = {"kind": "cells", "cells": 2, "channels": 2}
LEARNER = {"kind": "rfs", "epochs": 4, "milestones": [2, 3]}
EVALUATION = {"episodes": 70, "queries": 3, "support_copies": 2}
DATA = "results/glyphs/data"
SEARCHED = Path("results/glyphs/3cells-2ch/random/seed0")
FOUND = ("architecture.json", "search.csv")
LEARNED = ("model.safetensors", "training.csv")
ANSWERED = ("episodes.csv", "evaluation.json")


def command(script: str, output: Path, *more: object) -> list[str]:
    parts = ("python", f"scripts/{script}", "--data", DATA, "--output", output, *more)
    return [json.dumps(part) if isinstance(part, dict) else str(part) for part in parts]


def search_command(output: Path, seed: int = 0) -> list[str]:
    return command("search_architecture.py", output, "--backbone", BACKBONE, "--search", SEARCH, "--seed", seed)


def train_command(output: Path, seed: int = 0) -> list[str]:
    more = ("--architecture", SEARCHED / "architecture.json", "--learner", LEARNER, "--seed", seed)
    return command("train_network.py", output, *more)


def evaluate_command(output: Path, seed: int = 0) -> list[str]:
    return command(
        "evaluate_episodes.py", output, "--model", SEARCHED / "rfs", "--options", EVALUATION | {"seed": seed}
    )


def run(house, words: list[str]) -> str:
    """Run a program to its end; what it logged."""
    finished = house.run(*words)
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


def end_after_checkpoint(house, environment: dict, words: list[str], output: Path, index: int) -> str:
    """Send a signal to a program as soon as it has a checkpoint; what it logged."""
    process = subprocess.Popen(
        [sys.executable, *words[1:]], cwd=house.path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        # Temporary files of atomic writes begin with a dot.
        while not list(output.glob(".checkpoints/[!.]*")):
            assert process.poll() is None, "it ended without a checkpoint"
            time.sleep(0.002)
        process.send_signal(index)
        log = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == (-index if index == signal.SIGKILL else 128 + index), log
    return log


def contents(output: Path, *names: str) -> list[bytes]:
    return [(output / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def house(finished_run):
    """The finished tiny run: its data and genotypes are read, all outputs go elsewhere."""
    return finished_run


@pytest.fixture(scope="module")
def searched(house, tmp_path_factory) -> Path:
    """An uninterrupted search with seed 0."""
    output = tmp_path_factory.mktemp("searched")
    run(house, search_command(output))
    return output


def test_a_killed_search_goes_on_and_finds_the_same(house, searched, environment, tmp_path):
    end_after_checkpoint(house, environment, search_command(tmp_path), tmp_path, signal.SIGKILL)
    assert not (tmp_path / "architecture.json").exists()
    assert re.search(r"going on after \d+\.\d s of an earlier run", run(house, search_command(tmp_path)))
    assert contents(tmp_path, *FOUND) == contents(searched, *FOUND)
    assert not (tmp_path / ".checkpoints").exists()


@pytest.fixture(scope="module")
def trained(house, tmp_path_factory) -> Path:
    """An uninterrupted training."""
    output = tmp_path_factory.mktemp("trained")
    run(house, train_command(output))
    assert len((output / "training.csv").read_text().splitlines()) == 1 + LEARNER["epochs"]
    return output


@pytest.mark.parametrize("index", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_training_goes_on_and_ends_with_the_same_weights(house, trained, environment, tmp_path, index):
    log = end_after_checkpoint(house, environment, train_command(tmp_path), tmp_path, index)
    assert "Traceback" not in log
    assert not (tmp_path / "model.json").exists()
    assert re.search(r"going on after epoch [1-3] and \d+ steps", run(house, train_command(tmp_path)))
    assert contents(tmp_path, *LEARNED) == contents(trained, *LEARNED)
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.parametrize("index", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_asked_to_end_leaves_its_checkpoint_and_goes_on(
    house, searched, environment, tmp_path, index
):
    log = end_after_checkpoint(house, environment, search_command(tmp_path), tmp_path, index)
    assert f"ended by {index.name}" in log.splitlines()[-1]
    assert "Traceback" not in log
    (checkpoint,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert checkpoint.name.startswith("search-")
    assert "going on after" in run(house, search_command(tmp_path))
    assert contents(tmp_path, *FOUND) == contents(searched, *FOUND)


@pytest.fixture(scope="module")
def evaluated(house, tmp_path_factory) -> Path:
    """An uninterrupted evaluation."""
    output = tmp_path_factory.mktemp("evaluated")
    run(house, evaluate_command(output))
    return output


# The program itself, which keeps at every episode and, at one of the second chunk, is sent a signal.
ENDED_AT_AN_EPISODE = """
import os, sys
sys.path.insert(0, "scripts")
import evaluate_episodes
from metantk.runtime.command_line import run
original = evaluate_episodes.evaluate
number, keep_seconds = map(int, sys.argv[1:3])
del sys.argv[1:3]
evaluate_episodes.KEEP_SECONDS = keep_seconds
def evaluate(*given, **named):
    for episode, accuracies in enumerate(original(*given, **named)):
        if episode == 60:
            os.kill(os.getpid(), number)
        yield accuracies
evaluate_episodes.evaluate = evaluate
run(evaluate_episodes.main)
"""


@pytest.mark.parametrize(
    ("index", "keep_seconds"),
    # One that is killed has what it kept; one that is asked to end keeps what it has, whenever it last did.
    [(signal.SIGKILL, -1), (signal.SIGTERM, 1000), (signal.SIGINT, 1000)],
)
def test_an_ended_evaluation_goes_on_and_has_the_same_episodes(house, evaluated, tmp_path, index, keep_seconds):
    words = evaluate_command(tmp_path)
    ended = house.run("python", "-c", ENDED_AT_AN_EPISODE, int(index), keep_seconds, *words[2:])
    assert ended.returncode == (-index if index == signal.SIGKILL else 128 + index), ended.stderr
    assert "Traceback" not in ended.stderr
    (checkpoint,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert checkpoint.name.startswith("evaluation-")
    assert "going on after 60 episodes" in run(house, evaluate_command(tmp_path))
    assert contents(tmp_path, *ANSWERED) == contents(evaluated, *ANSWERED)
    assert not (tmp_path / ".checkpoints").exists()


# That an equal seed gives equal bytes is what those that were ended and went on have shown.


def test_another_seed_finds_another_architecture(house, searched, tmp_path):
    run(house, search_command(tmp_path, seed=1))
    assert genotype(tmp_path) != genotype(searched)


def genotype(output: Path) -> dict:
    return json.loads((output / "architecture.json").read_text())["genotype"]


def test_another_seed_trains_other_weights(house, trained, tmp_path):
    run(house, train_command(tmp_path, seed=1))
    assert contents(tmp_path, LEARNED[0]) != contents(trained, LEARNED[0])


def test_another_seed_has_other_episodes(house, evaluated, tmp_path):
    run(house, evaluate_command(tmp_path, seed=1))
    assert contents(tmp_path, "episodes.csv") != contents(evaluated, "episodes.csv")
