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
    "criteria": ["meta_ntk_condition", "linear_regions"],
    "repeat": 1,
    "image_size": 8,
    "meta_ntk": {"ways": 2, "tasks": 2},
    "linear_regions": {"pictures": 60, "batches": 1},
}
TRAINING = {"epochs": 8, "milestones": [4, 6]}
DATA = "results/glyphs/data"
PART = Path("results/glyphs/3cells-2ch/random/seed0")
EVALUATION = {"episodes": 5, "queries": 3, "copies": 2}


def command(script: str, options: dict, output: Path, *more: object) -> list[str]:
    parts = (sys.executable, f"scripts/{script}", "--options", json.dumps(options), "--output", output, *more)
    return [str(part) for part in parts]


def search_command(output: Path, seed: int = 0) -> list[str]:
    network = ("--cells", 3, "--channels", 2)
    return command(
        "search_architecture.py", SEARCH, output, "--data", "results/glyphs/data", *network, "--seed", seed
    )


def train_command(output: Path) -> list[str]:
    more = ("--data", DATA, "--cells", 3, "--channels", 2, "--genotype", PART / "genotype.json")
    return command("train_genotype.py", TRAINING, output, *more)


def evaluate_command(output: Path, seed: int = 0) -> list[str]:
    options = EVALUATION | {"seed": seed}
    return command("evaluate_episodes.py", options, output, "--data", DATA, "--backbone", PART)


def run(house, words: list[str]) -> str:
    """Run a program to its end; what it logged."""
    finished = house.run(*words)
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


def end_after_checkpoint(house, environment: dict, words: list[str], output: Path, number: int) -> str:
    """Send a signal to a program as soon as it has a checkpoint; what it logged."""
    process = subprocess.Popen(words, cwd=house.path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        # Temporary files of atomic writes begin with a dot.
        while not list(output.glob(".checkpoints/[!.]*")):
            assert process.poll() is None, "it ended without a checkpoint"
            time.sleep(0.002)
        process.send_signal(number)
        log = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), log
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
    assert not (tmp_path / "genotype.json").exists()
    assert re.search(r"going on after \d+ rounds and \d+ draws", run(house, search_command(tmp_path)))
    names = ("genotype.json", "search.csv")
    assert contents(tmp_path, *names) == contents(searched, *names)
    assert not (tmp_path / ".checkpoints").exists()


@pytest.fixture(scope="module")
def trained(house, tmp_path_factory) -> Path:
    """An uninterrupted training."""
    output = tmp_path_factory.mktemp("trained")
    run(house, train_command(output))
    assert len((output / "training.csv").read_text().splitlines()) == 1 + TRAINING["epochs"]
    return output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_training_goes_on_and_ends_with_the_same_weights(house, trained, environment, tmp_path, number):
    log = end_after_checkpoint(house, environment, train_command(tmp_path), tmp_path, number)
    assert "Traceback" not in log
    assert not (tmp_path / "backbone.json").exists()
    assert re.search(r"going on after epoch [1-7] and \d+ steps", run(house, train_command(tmp_path)))
    names = ("backbone.safetensors", "training.csv")
    assert contents(tmp_path, *names) == contents(trained, *names)
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_asked_to_end_leaves_its_checkpoint_and_goes_on(
    house, searched, environment, tmp_path, number
):
    log = end_after_checkpoint(house, environment, search_command(tmp_path), tmp_path, number)
    assert f"ended by {number.name}" in log.splitlines()[-1]
    assert "Traceback" not in log
    (checkpoint,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert checkpoint.name.startswith("search-")
    assert "going on after" in run(house, search_command(tmp_path))
    names = ("genotype.json", "search.csv")
    assert contents(tmp_path, *names) == contents(searched, *names)


def test_the_seed_decides_the_search(house, searched, tmp_path):
    run(house, search_command(tmp_path / "same"))
    run(house, search_command(tmp_path / "other", seed=1))
    names = ("genotype.json", "search.csv")
    assert contents(tmp_path / "same", *names) == contents(searched, *names)
    assert contents(tmp_path / "other", "genotype.json") != contents(searched, "genotype.json")


def test_the_seed_decides_the_evaluation(house, tmp_path):
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        run(house, evaluate_command(tmp_path / name, seed))
    names = ("evaluation.json", "episodes.csv")
    assert contents(tmp_path / "first", *names) == contents(tmp_path / "same", *names)
    assert contents(tmp_path / "first", "episodes.csv") != contents(tmp_path / "other", "episodes.csv")
