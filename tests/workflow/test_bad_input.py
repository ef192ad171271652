"""Bad input: one clear line that names the culprit, exit code 2, and nothing half written."""

import json
import logging
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

PART = "glyphs/3cells-2ch/random/seed0"
SEARCH = json.dumps({"criteria": []})
EVALUATION = ("--options", json.dumps({"episodes": 2, "queries": 3, "copies": 1}))
NETWORK = ("--cells", 3, "--channels", 2)
# What may stand before the complaint: nothing, lines of the log, a progress bar.
PRELUDE = re.compile(r"\s*|\s*\d\d:\d\d:\d\d .*|\s*(preparation|search|training|evaluation): \d+/\d+ .*")


def set_key(configuration, path, value):
    *parents, last = path.split(".")
    for parent in parents:
        configuration = configuration.setdefault(parent, {})
    configuration[last] = value


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def assert_one_line(stderr: str, *named: object) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert "error: " in lines[0]
    for name in named:
        assert str(name) in lines[0]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("training.epoch", 3, ["unknown key 'training.epoch'"]),
        ("tuna", 3, ["unknown key 'tuna'"]),
        ("training.learning_rate", "1e-3", ["'training.learning_rate'", "number", "'1e-3'"]),
        ("seeds", [0, "1"], ["'seeds.1'", "integer", "'1'"]),
        ("training.drop_path", 1.5, ["'training.drop_path'", "less than 1", "1.5"]),
        ("methods", ["metantk", "nasnet"], ["unknown method 'nasnet'", "metantk, te-nas, linear-regions, random"]),
        ("methods", ["random", "random"], ["methods", "twice"]),
        ("datasets", {}, ["'datasets'", "at least 1"]),
        ("runs", [{"cells": 3}], ["'runs.0.channels' is missing"]),
        ("search", None, ["'search'"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_configuration_stops_the_workflow_before_any_job(tiny_house, key, value, named):
    configuration = tiny_house.configuration
    set_key(configuration, key, value)
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "configuration", *named)
    assert not (tiny_house.path / "results").exists()


def test_all_mistakes_of_a_configuration_are_told_at_once(tiny_house):
    configuration = tiny_house.configuration
    set_key(configuration, "training.epoch", 3)
    set_key(configuration, "evaluation.episodes", 0)
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "'training.epoch'", "'evaluation.episodes'")


@pytest.fixture
def _loggers():
    """Leave the loggers as they were, whatever a script sets up."""
    own = logging.getLogger("metantk")
    level, propagate = own.level, own.propagate
    yield
    own.setLevel(level)
    own.propagate = propagate
    for logger in (logging.getLogger(), own):
        # pytest's own handlers are of other classes.
        logger.handlers = [handler for handler in logger.handlers if type(handler) is not logging.StreamHandler]


@pytest.fixture
def refuse(repository, monkeypatch, capsys, _loggers):
    """Run a script in this process and assert that it refuses, in one line that names everything in `named`."""

    def run(script: str, *arguments: object, named: list, output: Path) -> None:
        monkeypatch.setenv("METANTK_DEVICE", "cpu")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        command = [str(part) for part in (repository / "scripts" / script, *arguments, "--output", output)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(command[0], run_name="__main__")
        assert stop.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not PRELUDE.fullmatch(line)]
        assert_one_line("\n".join(lines), f"{script}: error: ", *named)
        assert files_in(output) == []

    return run


@pytest.fixture
def data(finished_run, tmp_path) -> Path:
    """A prepared data set that a test may damage."""
    return Path(shutil.copytree(finished_run.path / "results" / "glyphs" / "data", tmp_path / "data"))


@pytest.fixture
def part(finished_run, tmp_path) -> Path:
    """A finished part that a test may damage."""
    return Path(shutil.copytree(finished_run.path / "results" / PART, tmp_path / PART))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ('{"criteria": [], "tuna": 1}', ["unknown key 'tuna'"]),
        ('{"criteria": []', ["--options", "is not JSON"]),
        ("missing.json", ["missing.json", "cannot be read"]),
        ('{"criteria": ["snip"]}', ["'criteria.0.name'", "'snip'"]),
        ('{"criteria": [], "image_size": 3}', ["'image_size'", "greater than or equal to 8"]),
        ("{}", ["'criteria' is missing"]),
    ],
)
def test_bad_options(refuse, tmp_path, options, named):
    arguments = ("--data", tmp_path, *NETWORK, "--options", options)
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


@pytest.mark.parametrize(
    ("criterion", "settings", "named"),
    [
        ("linear_regions", {"linear_regions": {"crop_size": 20}}, ["crop_size"]),
        ("linear_regions", {"linear_regions": {"pictures": 3, "batches": 5}}, ["batches"]),
        ("ntk_condition", {"ntk": {"pictures": 100_000}}, ["pictures"]),
        ("meta_ntk_condition", {"meta_ntk": {"ways": 65}}, ["64 classes", "65-way"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_search_that_asks_for_more_than_there_is(refuse, tmp_path, data, criterion, settings, named):
    options = json.dumps({"criteria": [criterion], "image_size": 8, "repeat": 1, **settings})
    arguments = ("--data", data, *NETWORK, "--options", options)
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


def test_a_seed_too_large_for_a_generator(refuse, tmp_path, data):
    arguments = ("--data", data, *NETWORK, "--options", SEARCH, "--seed", 2**70)
    refuse("search_architecture.py", *arguments, named=["seed"], output=tmp_path / "output")


def test_the_same_number_of_shots_twice(refuse, tmp_path, data, part):
    arguments = ("--data", data, "--backbone", part, *EVALUATION, "--shots", "[1, 1]")
    refuse("evaluate_episodes.py", *arguments, named=["shots"], output=tmp_path / "output")


def drop_a_node(genotype: dict) -> str:
    del genotype["reduce"][1]
    return json.dumps(genotype)


def rename_an_operation(genotype: dict) -> str:
    genotype["normal"][2][1][0] = "conv_9x9"
    return json.dumps(genotype)


def cut_in_half(genotype: dict) -> str:
    text = json.dumps(genotype)
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop_a_node, ["reduce cell", "node"]),
        (rename_an_operation, ["normal cell, node 4", "unknown operation 'conv_9x9'"]),
        (cut_in_half, ["is neither JSON nor a Genotype(...) text"]),
    ],
)
def test_a_bad_genotype(refuse, tmp_path, data, part, damage, named):
    genotype = part / "genotype.json"
    genotype.write_text(damage(json.loads(genotype.read_text())))
    arguments = ("--data", data, "--genotype", genotype, *NETWORK)
    refuse("train_genotype.py", *arguments, named=[genotype, *named], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ways": 21}, ["20 classes", "21-way"]),
        ({"queries": 100}, ["25 pictures", "100 to query"]),
    ],
)
def test_too_little_data_for_the_episodes(refuse, tmp_path, data, part, options, named):
    arguments = ("--data", data, "--backbone", part, "--options", json.dumps(options))
    refuse("evaluate_episodes.py", *arguments, named=[data, *named], output=tmp_path / "output")


@pytest.mark.parametrize("array", ["images.npy", "labels.npy"])
def test_a_truncated_array(refuse, tmp_path, data, part, array):
    path = data / "train" / array
    os.truncate(path, path.stat().st_size // 2)
    arguments = ("--data", data, "--genotype", part / "genotype.json", *NETWORK)
    refuse("train_genotype.py", *arguments, named=[path, "cannot be read"], output=tmp_path / "output")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"splits": {}}'])
def test_a_damaged_manifest(refuse, tmp_path, data, part, text):
    (data / "manifest.json").write_text(text)
    arguments = ("--data", data, "--backbone", part, *EVALUATION)
    refuse("evaluate_episodes.py", *arguments, named=[data / "manifest.json"], output=tmp_path / "output")


def test_a_missing_data_folder(refuse, tmp_path, part):
    missing = tmp_path / "nowhere"
    named, output = [missing, "prepare_dataset.py"], tmp_path / "output"
    genotype = part / "genotype.json"
    refuse("search_architecture.py", "--data", missing, *NETWORK, "--options", SEARCH, named=named, output=output)
    refuse("train_genotype.py", "--data", missing, "--genotype", genotype, *NETWORK, named=named, output=output)
    refuse("evaluate_episodes.py", "--data", missing, "--backbone", part, *EVALUATION, named=named, output=output)


def test_a_missing_source_folder(refuse, tmp_path):
    missing = tmp_path / "nowhere"
    arguments = ("--name", "mine", "--source", missing)
    refuse("prepare_dataset.py", *arguments, named=[missing], output=tmp_path / "output")


def test_a_damaged_backbone(refuse, tmp_path, data, part):
    weights = part / "backbone.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    arguments = ("--data", data, "--backbone", part, *EVALUATION)
    refuse("evaluate_episodes.py", *arguments, named=[weights, "damaged"], output=tmp_path / "output")


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_a_damaged_description_of_a_backbone(refuse, tmp_path, data, part, text):
    description = part / "backbone.json"
    description.write_text(text)
    arguments = ("--data", data, "--backbone", part, *EVALUATION)
    refuse("evaluate_episodes.py", *arguments, named=[description], output=tmp_path / "output")


@pytest.mark.parametrize("name", ["search.json", "backbone.json", "episodes.csv"])
def test_a_table_of_an_unfinished_part(refuse, tmp_path, part, name):
    (part / name).unlink()
    refuse("aggregate_tables.py", part, named=[part / name, "cannot be"], output=tmp_path / "output")


@pytest.mark.parametrize("name", ["search.json", "backbone.json", "episodes.csv"])
@pytest.mark.parametrize("text", ["", "{}"])
def test_a_table_of_a_damaged_part(refuse, tmp_path, part, name, text):
    (part / name).write_text(text)
    refuse("aggregate_tables.py", part, named=[part / name], output=tmp_path / "output")


@pytest.mark.parametrize("name", ["genotype.json", "search.csv", "training.csv", "evaluation.json"])
@pytest.mark.parametrize("text", [None, "", "{}"])
def test_figures_of_an_unfinished_part(refuse, finished_run, tmp_path, part, name, text):
    (part / name).unlink() if text is None else (part / name).write_text(text)
    arguments = (part, "--tables", finished_run.path / "results" / "tables")
    refuse("draw_figures.py", *arguments, named=[part / name], output=tmp_path / "output")


def test_a_folder_that_is_no_part(refuse, tmp_path):
    refuse("aggregate_tables.py", tmp_path, named=[tmp_path, "seed<k>"], output=tmp_path / "output")


def test_an_output_that_cannot_be_written(refuse, finished_run, tmp_path, data, part):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "output"
    named = [output, "cannot be written"]
    tables = finished_run.path / "results" / "tables"
    training = ("--genotype", part / "genotype.json", *NETWORK, "--epochs", 1)
    refuse("prepare_dataset.py", "--name", "glyphs", "--source", "glyphs", named=named, output=output)
    refuse("search_architecture.py", "--data", data, *NETWORK, "--options", SEARCH, named=named, output=output)
    refuse("train_genotype.py", "--data", data, *training, named=named, output=output)
    refuse("evaluate_episodes.py", "--data", data, "--backbone", part, *EVALUATION, named=named, output=output)
    refuse("aggregate_tables.py", part, named=named, output=output)
    refuse("draw_figures.py", part, "--tables", tables, named=named, output=output)


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("show_results.py", ["nowhere"], ["nowhere", "run the workflow first"]),
        ("prepare_dataset.py", ["--name", "a", "--source", "nowhere", "--output", "output"], ["nowhere"]),
        ("train_genotype.py", ["--data", "a", "--genotype", "b", *NETWORK, "--output", "output"], ["b"]),
    ],
)
def test_a_refusal_as_a_program(copy_of_house, script, arguments, named):
    run = copy_of_house.run("python", f"scripts/{script}", *arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert_one_line(run.stderr, f"{script}: error: ", *named)
    assert not (copy_of_house.path / "output").exists()


def test_a_refusal_within_the_workflow_is_in_the_log(tiny_house):
    """The job fails, its log holds the line, and the run leaves no output of it."""
    configuration = tiny_house.configuration
    configuration["datasets"] = {"mine": {"source": "nowhere"}}
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 1
    log = "results/logs/prepare_dataset/mine.log"
    assert log in run.stdout + run.stderr
    assert_one_line((tiny_house.path / log).read_text(), "prepare_dataset.py: error: ", "nowhere")
    assert files_in(tiny_house.path / "results" / "mine") == []
