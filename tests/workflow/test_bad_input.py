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
from conftest import House, copy_house, run_program, tiny_configuration

from metantk.runtime.files import SCRIPTS

SEARCHED = "glyphs/3cells-2ch/random/seed0"
EVALUATION = ("--options", json.dumps({"episodes": 2, "queries": 3, "support_copies": 1}))
CELLS = ("--backbone", "cells", "--cells", 3, "--channels", 2)
SEARCH = (*CELLS, "--search", "sample")
# What may stand before the complaint: nothing, lines of the log, a progress bar.
PRELUDE = re.compile(r"\s*|\s*\d\d:\d\d:\d\d .*|\s*(preparation|search|training|evaluation): \d+/\d+ .*")


def set_key(configuration, path, value):
    *parents, last = path.split(".")
    for parent in parents:
        configuration = configuration.setdefault(parent, {})
    configuration[last] = value


def row(search, backbone="3cells-2ch", learner="rfs") -> dict:
    return {"backbone": backbone, "search": search, "learner": learner}


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def assert_one_line(stderr: str, *named: object) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert "error: " in lines[0]
    assert len(lines[0]) <= 550  # the message has 500 at most; a script's name stands before it
    for name in named:
        assert str(name) in lines[0]


@pytest.fixture(scope="module")
def refusing_house(tmp_path_factory) -> House:
    """One for all configurations that are refused, for nothing runs in it."""
    return copy_house(tmp_path_factory.mktemp("refusing"))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("learners.rfs.epoch", 3, ["learners.rfs: unknown key 'epoch'"]),
        ("learners.rfs.learning_rate", 1.0, ["learners.rfs: unknown key 'learning_rate': it is called 'lr' now"]),
        ("tuna", 3, ["unknown key 'tuna'"]),
        ("learners.rfs.lr", "1e-3", ["learners.rfs", "'lr'", "number", "'1e-3'"]),
        ("seeds", [0, "1"], ["'seeds.1'", "integer", "'1'"]),
        ("learners.rfs.drop_rate", 1.5, ["learners.rfs", "'drop_rate'", "less than 1", "1.5"]),
        (
            "rows",
            [row("nasnet")],
            ["unknown searches name 'nasnet'", "metantk, te-nas, linear-regions, metantk-bo"],
        ),
        ("rows", [row("random", learner="sgd")], ["unknown learners name 'sgd'", "choose from rfs"]),
        ("rows", [row("random", backbone="vgg")], ["unknown backbones name 'vgg'", "conv4, conv4-rfs"]),
        ("rows", [row(["random", "random"])], ["3cells-2ch × random × rfs", "twice"]),
        ("rows", [{"search": "random"}], ["'rows.0.backbone' is missing"]),
        ("rows", [row("fixed")], ["3cells-2ch takes a search"]),
        ("results", "/dev/null", ["'results'", "below /dev/null, which is no folder"]),
        ("results", "Snakefile/results", ["'results'", "below Snakefile, which is no folder"]),
        ("datasets", {"logs": {"source": "glyphs"}}, ["logs is the name of another folder of the results"]),
        ("datasets.glyphs.source", "", ["'datasets.glyphs.source'"]),
        ("seeds", list(range(1001)), ["'seeds'", "1000"]),
        ("rows", [row("random", backbone="conv4-2")], ["conv4-2 has nothing to find"]),
        ("datasets", {}, ["'datasets'", "at least 1"]),
        ("searches", None, ["'searches'"]),
        (
            "searches.mine",
            {"kind": "prune", "criteria": ["nosuch"]},
            ["unknown criterion 'nosuch'", "linear_regions"],
        ),
        ("criteria.nosuch", {"images": 3}, ["criteria: unknown key 'nosuch'"]),
        ("seeds", "9" * 5000, ["'seeds'", "..."]),
        ("learners.unused", {"kind": "rfs", "epochs": -3}, ["learners.unused", "'epochs'", "-3"]),
        ("searches.given", {"genotypes": 3}, ["searches.given", "'genotypes'"]),
        ("backbones.unused", {"kind": "cells", "cells": 3}, ["backbones.unused", "'channels' is missing"]),
        (
            "study",
            {"criteria_options": {"ntk": {}}},
            ["study: options of criteria stand in the section `criteria`"],
        ),
        ("datasets.glyphs.image_size", 8, ["datasets.glyphs: image_size 8", "backbones.conv4-2 needs 16 pixels"]),
        ("datasets.glyphs.rotations", True, ["rotations: does nothing for source 'glyphs'"]),
        ("datasets", {"a": {"source": "cifar-fs", "rotations": True}}, ["rotations: does nothing"]),
        ("rows", [row("random", backbone="03cells-2ch")], ["unknown backbones name '03cells-2ch'"]),
        ("rows", [row("random", learner="metanas")], ["metanas takes a backbone of kind mixed"]),
        ("results", "workflow/results", ["'results'", "mix with the workflow's own files"]),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else "",
)
def test_a_bad_configuration_stops_the_workflow_before_any_job(refusing_house, key, value, named):
    configuration = tiny_configuration()
    set_key(configuration, key, value)
    refusing_house.configure(configuration)
    run = refusing_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "configuration", *named)
    assert not (refusing_house.path / "results").exists()


def test_a_key_that_stands_twice(tiny_house):
    path = tiny_house.path / "config" / "config.yaml"
    path.write_text(f"{path.read_text()}\nseeds: [7]\n")
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "config.yaml", "'seeds' stands there twice")


def test_a_study_of_too_few_architectures_is_refused_before_any_job(tiny_house):
    configuration = tiny_house.configuration | {"rows": [row("random")], "seeds": [0, 1, 2]}
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("study", "--dry-run", "--quiet", "all")
    assert run.returncode == 2
    assert_one_line(run.stderr.splitlines()[-1], "study: the rows of 3cells-2ch", "have 3 different architectures")
    tiny_house.configure(configuration | {"seeds": [0, 1, 2, 3]})
    assert tiny_house.snakemake("study", "--dry-run", "--quiet", "all").returncode == 0


def test_an_edited_genotype_is_searched_again(tiny_house):
    genotype = tiny_house.path / "mine.json"
    shutil.copy(tiny_house.path / "config" / "genotypes" / "metanas_v1.json", genotype)
    searches = tiny_house.configuration["searches"] | {"mine": {"kind": "given", "genotypes": ["mine.json"]}}
    tiny_house.configure(tiny_house.configuration | {"rows": [row("mine")], "searches": searches})
    target = "results/glyphs/3cells-2ch/mine/seed0/architecture.json"
    assert tiny_house.snakemake("--cores", 1, target).returncode == 0
    assert tiny_house.planned(target) == set()
    shutil.copy(tiny_house.path / "config" / "genotypes" / "metanas_in_v2.json", genotype)
    assert tiny_house.planned(target) == {"search_architecture glyphs/3cells-2ch/mine/seed0"}


def test_results_among_the_images(tiny_house):
    (tiny_house.path / "mine" / "class").mkdir(parents=True)
    tiny_house.configure(
        tiny_house.configuration | {"datasets": {"mine": {"source": "mine"}}, "results": "mine/out"}
    )
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "mine/out: is or lies in mine")
    assert not (tiny_house.path / "mine" / "out").exists()


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [
        (0, 0, "mine: is empty; expected a folder per class"),
        (14, 20, "mine: has 14 class folders; 15 are needed, 5 ways in each of train, val and test"),
        (15, 0, "mine/class00: is empty; expected the images of a class"),
        (15, 6, "mine: too little data: test has 6 images in its smallest class 'class"),
    ],
)
def test_a_folder_of_images_is_counted_before_any_job(tiny_house, classes, images, message):
    (tiny_house.path / "mine").mkdir()
    for index in range(classes):
        folder = tiny_house.path / "mine" / f"class{index:02d}"
        folder.mkdir()
        for image in range(images):
            (folder / f"{image}.png").touch()
    tiny_house.configure(tiny_house.configuration | {"datasets": {"mine": {"source": "mine", "image_size": 16}}})
    run = tiny_house.snakemake("--dry-run")
    assert run.returncode == 2
    assert_one_line(run.stderr, message)


def test_all_mistakes_of_a_configuration_are_told_at_once(tiny_house):
    configuration = tiny_house.configuration
    set_key(configuration, "theory.epoch", 3)
    set_key(configuration, "evaluation.episodes", 0)
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    assert_one_line(run.stderr, "'theory.epoch'", "'evaluation.episodes'")


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
def searched(finished_run, tmp_path) -> Path:
    """A finished search with its training and evaluation, which a test may damage."""
    return Path(shutil.copytree(finished_run.path / "results" / SEARCHED, tmp_path / SEARCHED))


@pytest.fixture
def chain(searched) -> Path:
    return searched / "rfs"


PRUNE = {"kind": "prune", "criteria": ["linear_regions"]}


@pytest.mark.parametrize(
    ("search", "named"),
    [
        ('{"kind": "prune", "criteria": ["linear_regions"], "tuna": 1}', ["search prune", "unknown key 'tuna'"]),
        ('{"kind": "prune"', ["--search", "is not JSON"]),
        ("missing.json", ["missing.json", "cannot be read"]),
        ('{"criteria": []}', ["--search", "'kind' is missing"]),
        ("snip", ["unknown kind 'snip'", "prune, sample"]),
        ("fit", ["unknown kind 'fit'", "it is called 'bayesian-optimisation' now"]),
        ("snip.py", ["snip.py", "no such file"]),
        (json.dumps(PRUNE | {"criteria": []}), ["'criteria'", "at least 1"]),
        (json.dumps(PRUNE | {"image_size": 3}), ["'image_size'", "greater than or equal to 8"]),
        (json.dumps(PRUNE | {"precision": "x" * 5000}), ["'precision'", "..."]),
        ('{"kind": "given", "genotypes": []}', ["'genotypes'", "at least 1"]),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_options(refuse, tmp_path, search, named):
    arguments = ("--data", tmp_path, *CELLS, "--search", search)
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


@pytest.mark.parametrize(
    ("criterion", "criteria_options", "named"),
    [
        ("nosuch", {}, ["criteria: unknown kind 'nosuch'", "linear_regions, logsynflow, meta_ntk_condition"]),
        ("inputs", {}, ["criteria: unknown kind 'inputs'"]),
        ("linear_regions", {"linear_regions": {"tuna": 20}}, ["criteria.linear_regions", "unknown key 'tuna'"]),
        ("linear_regions", {"linear_regions": {"crop_size": 20}}, ["crop_size"]),
        ("linear_regions", {"linear_regions": {"images": 3, "batches": 5}}, ["batches"]),
        ("ntk_condition", {"ntk": {"images": 100_000}}, ["images"]),
        ("meta_ntk_condition", {"meta_ntk": {"ways": 65}}, ["64 classes", "65-way"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_search_that_asks_for_more_than_there_is(refuse, tmp_path, data, criterion, criteria_options, named):
    search = {
        "kind": "prune",
        "criteria": [criterion],
        "image_size": 8,
        "repeats": 1,
        "criteria_options": criteria_options,
    }
    arguments = ("--data", data, *CELLS, "--search", json.dumps(search))
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


def test_a_genotype_that_there_is_not(refuse, tmp_path, data):
    arguments = ("--data", data, *CELLS, "--search", "given", "--genotypes", '["nasnet"]')
    named = ["nasnet", "neither a file nor the name of a published genotype", "metanas_in_v2"]
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


@pytest.mark.parametrize("search", [{"kind": "prune", "criteria": ["zen"]}, {"kind": "t-nas"}, {"kind": "sample"}])
def test_a_search_where_there_is_nothing_to_find(refuse, tmp_path, data, search):
    arguments = ("--data", data, "--backbone", "conv4", "--search", json.dumps(search))
    refuse("search_architecture.py", *arguments, named=["conv4 has nothing to find"], output=tmp_path / "output")


def test_reductions_beyond_the_cells(refuse, tmp_path, data):
    arguments = ("--data", data, "--backbone", '{"kind": "mixed", "cells": 2}', "--search", "fixed")
    refuse("search_architecture.py", *arguments, named=["reductions [1, 3]"], output=tmp_path / "output")


def test_cells_without_a_search(refuse, tmp_path, data):
    arguments = ("--data", data, *CELLS, "--search", "fixed")
    refuse("search_architecture.py", *arguments, named=["cells", "genotype"], output=tmp_path / "output")


def test_images_that_are_too_small_for_a_backbone(refuse, tmp_path):
    small = tmp_path / "small"
    command = ("--name", "small", "--source", "glyphs", "--image-size", 8, "--images-per-class", 2)
    run = run_program("python", SCRIPTS / "prepare_dataset.py", *command, "--output", small)
    assert run.returncode == 0, run.stderr
    arguments = ("--data", small, "--backbone", "conv4", "--search", "fixed")
    named = ["backbone conv4", "'image_size'", "greater than or equal to 16"]
    refuse("search_architecture.py", *arguments, named=named, output=tmp_path / "output")


def test_a_seed_too_large_for_a_generator(refuse, tmp_path, data):
    arguments = ("--data", data, *SEARCH, "--seed", 2**70)
    refuse("search_architecture.py", *arguments, named=["seed"], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("learner", "named"),
    [
        ("sgd", ["unknown kind 'sgd'", "rfs"]),
        ('{"kind": "rfs", "epoch": 3}', ["learner rfs", "unknown key 'epoch'"]),
        ('{"kind": "maml", "learning_rate": 1.0}', ["learner maml", "'learning_rate': it is called 'meta_lr' now"]),
        ('{"kind": "rfs", "epochs": 5, "milestones": [5]}', ["learner rfs", "milestones", "is not below epochs"]),
    ],
)
def test_bad_options_of_a_learner(refuse, tmp_path, data, searched, learner, named):
    arguments = ("--data", data, "--architecture", searched / "architecture.json", "--learner", learner)
    refuse("train_network.py", *arguments, named=named, output=tmp_path / "output")


def test_a_learner_on_a_backbone_that_it_cannot_train(refuse, tmp_path, data, searched):
    frozen, mixed = tmp_path / "architecture.json", tmp_path / "mixed.json"
    frozen.write_text(json.dumps({"kind": "pixels", "image_size": 12}))
    mixed.write_text(json.dumps({"kind": "mixed", "cells": 2, "channels": 2, "reductions": [1]}))
    for architecture, learner, named in (
        (frozen, "rfs", "pixels is frozen: its learner is none"),
        (mixed, "rfs", "backbone mixed takes a learner of kind metanas"),
        (searched / "architecture.json", "metanas", "takes a backbone of kind mixed"),
    ):
        arguments = ("--data", data, "--architecture", architecture, "--learner", learner)
        refuse("train_network.py", *arguments, named=[named], output=tmp_path / "output")


def test_too_few_images_for_the_validation_are_said_before_the_first_epoch(
    refuse, tmp_path, data, searched, monkeypatch
):
    monkeypatch.delattr("metantk.training.Trainer.train_epoch")
    arguments = ("--data", data, "--architecture", searched / "architecture.json", "--learner", "metaoptnet")
    options = ("--ways", 2, "--shots", 1, "--queries", 1, "--validation-queries", 1000)
    refuse("train_network.py", *arguments, *options, named=["validation split"], output=tmp_path / "output")


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a\nb", "_a", "a" * 201])
def test_names_that_are_none(refuse, tmp_path, data, searched, name):
    output, training = tmp_path / "output", ("--architecture", searched / "architecture.json")
    refuse("prepare_dataset.py", "--source", "glyphs", "--name", name, named=["--name"], output=output)
    refuse(
        "search_architecture.py", "--data", data, *SEARCH, "--search-name", name, named=["--search"], output=output
    )
    refuse(
        "train_network.py", "--data", data, *training, "--learner-name", name, named=["--learner"], output=output
    )


def test_an_output_among_the_images(refuse, tmp_path):
    arguments = ("--name", "mine", "--source", tmp_path)
    refuse("prepare_dataset.py", *arguments, named=["lies in"], output=tmp_path / "output")


@pytest.mark.parametrize("text", ["{}", "3", "[", '[{"of": "me"}]'])
def test_needs_that_are_none(refuse, tmp_path, text):
    arguments = ("--name", "a", "--source", "glyphs", "--needs", text)
    refuse("prepare_dataset.py", *arguments, named=["--needs: is no"], output=tmp_path / "output")


def test_the_same_number_of_shots_twice(refuse, tmp_path, data, chain):
    arguments = ("--data", data, "--model", chain, *EVALUATION, "--shots", "[1, 1]")
    refuse("evaluate_episodes.py", *arguments, named=["shots"], output=tmp_path / "output")


def drop_a_node(architecture: dict) -> str:
    del architecture["genotype"]["reduce"][1]
    return json.dumps(architecture)


def rename_an_operation(architecture: dict) -> str:
    architecture["genotype"]["normal"][2][1][0] = "conv_9x9"
    return json.dumps(architecture)


def cut_in_half(architecture: dict) -> str:
    text = json.dumps(architecture)
    return text[: len(text) // 2]


def leave_out_the_kind(architecture: dict) -> str:
    return json.dumps({key: value for key, value in architecture.items() if key != "kind"})


def change_the_kind(architecture: dict) -> str:
    return json.dumps(architecture | {"kind": "vgg"})


def shrink_it(architecture: dict) -> str:
    return json.dumps(architecture | {"cells": 1})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop_a_node, ["reduce cell", "node"]),
        (rename_an_operation, ["normal cell, node 4", "unknown operation 'conv_9x9'"]),
        (cut_in_half, ["is not JSON"]),
        (leave_out_the_kind, ["'kind'"]),
        (change_the_kind, ["unknown kind 'vgg'"]),
        (shrink_it, ["'cells'", "greater than or equal to 2"]),
    ],
)
def test_a_bad_architecture(refuse, tmp_path, data, searched, damage, named):
    architecture = searched / "architecture.json"
    architecture.write_text(damage(json.loads(architecture.read_text())))
    where = [] if damage is change_the_kind else [architecture]
    arguments = ("--data", data, "--architecture", architecture)
    refuse("train_network.py", *arguments, named=[*where, *named], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ways": 21}, ["20 classes", "21-way"]),
        ({"queries": 100}, ["25 images", "100 to query"]),
    ],
)
def test_too_little_data_for_the_episodes(refuse, tmp_path, data, chain, options, named):
    arguments = ("--data", data, "--model", chain, "--options", json.dumps(options))
    refuse("evaluate_episodes.py", *arguments, named=[data, *named], output=tmp_path / "output")


@pytest.mark.parametrize("array", ["images.npy", "labels.npy"])
def test_a_truncated_array(refuse, tmp_path, data, searched, array):
    path = data / "train" / array
    os.truncate(path, path.stat().st_size // 2)
    arguments = ("--data", data, "--architecture", searched / "architecture.json")
    refuse("train_network.py", *arguments, named=[path, "cannot be read"], output=tmp_path / "output")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"splits": {}}'])
def test_a_damaged_manifest(refuse, tmp_path, data, searched, text):
    (data / "manifest.json").write_text(text)
    named = [data / "manifest.json"]
    arguments = ("--data", data, "--model", searched / "rfs", *EVALUATION)
    refuse("evaluate_episodes.py", *arguments, named=named, output=tmp_path / "output")
    architecture = ("--architecture", searched / "architecture.json")
    refuse("train_network.py", "--data", data, *architecture, named=named, output=tmp_path / "output")
    refuse("search_architecture.py", "--data", data, *SEARCH, named=named, output=tmp_path / "output")


def test_a_missing_data_folder(refuse, tmp_path, searched):
    missing = tmp_path / "nowhere"
    named, output = [missing, "prepare_dataset.py"], tmp_path / "output"
    architecture = ("--architecture", searched / "architecture.json")
    model = ("--model", searched / "rfs")
    refuse("search_architecture.py", "--data", missing, *SEARCH, named=named, output=output)
    refuse("train_network.py", "--data", missing, *architecture, named=named, output=output)
    refuse("evaluate_episodes.py", "--data", missing, *model, *EVALUATION, named=named, output=output)


def test_a_missing_source_folder(refuse, tmp_path):
    missing = tmp_path / "nowhere"
    arguments = ("--name", "mine", "--source", missing)
    refuse("prepare_dataset.py", *arguments, named=[missing], output=tmp_path / "output")


def test_damaged_weights(refuse, tmp_path, data, chain):
    weights = chain / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    arguments = ("--data", data, "--model", chain, *EVALUATION)
    named = [weights, "is not the file that", "train again"]
    refuse("evaluate_episodes.py", *arguments, named=named, output=tmp_path / "output")


def test_missing_weights(refuse, tmp_path, data, chain):
    (chain / "model.safetensors").unlink()
    arguments = ("--data", data, "--model", chain, *EVALUATION)
    named = [chain / "model.safetensors", "is missing"]
    refuse("evaluate_episodes.py", *arguments, named=named, output=tmp_path / "output")


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_a_damaged_description_of_a_model(refuse, tmp_path, data, chain, text):
    description = chain / "model.json"
    description.write_text(text)
    arguments = ("--data", data, "--model", chain, *EVALUATION)
    refuse("evaluate_episodes.py", *arguments, named=[description], output=tmp_path / "output")


# What tables read of a chain.
TABULATED = ["../search.json", "model.json", "evaluation.json", "episodes.csv"]


@pytest.mark.parametrize("name", TABULATED)
@pytest.mark.parametrize("text", [None, "", "{}"], ids=["missing", "empty", "without content"])
def test_a_table_of_an_unfinished_or_damaged_chain(refuse, tmp_path, chain, name, text):
    (chain / name).unlink() if text is None else (chain / name).write_text(text)
    named = [os.path.normpath(chain / name)]
    refuse("aggregate_tables.py", chain, named=named, output=tmp_path / "output")


@pytest.mark.parametrize("name", ["architecture.json", "search.json", "search.csv"])
@pytest.mark.parametrize("text", [None, "", "{}"], ids=["missing", "empty", "without content"])
def test_figures_of_an_unfinished_search(refuse, finished_run, tmp_path, name, text):
    pruned = "glyphs/3cells-2ch/linear-regions/seed0"
    searched = Path(shutil.copytree(finished_run.path / "results" / pruned, tmp_path / pruned))
    (searched / name).unlink() if text is None else (searched / name).write_text(text)
    refuse("draw_searches.py", searched, named=[searched / name], output=tmp_path / "output")


@pytest.mark.parametrize("name", ["model.json", "training.csv", "evaluation.json"])
@pytest.mark.parametrize("text", [None, "", "{}"], ids=["missing", "empty", "without content"])
def test_figures_of_an_unfinished_chain(refuse, finished_run, tmp_path, chain, name, text):
    (chain / name).unlink() if text is None else (chain / name).write_text(text)
    arguments = (chain, "--tables", finished_run.path / "results" / "tables")
    refuse("draw_results.py", *arguments, named=[chain / name], output=tmp_path / "output")


@pytest.mark.parametrize(
    "titles", ["", "[]", '{"searches": 3}', '{"searches": {"a": 3}}', '{"searches": {"a": "b\\n"}}']
)
def test_titles_that_are_none(refuse, tmp_path, chain, titles):
    refuse("aggregate_tables.py", chain, "--titles", titles, named=["--titles"], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("name", "key", "value", "stage"),
    [
        ("evaluation.json", "weights_sha256", "another", "evaluate_episodes"),
        ("evaluation.json", "data_sha256", "another", "evaluate_episodes"),
        ("evaluation.json", "split", "val", "evaluate_episodes"),
        ("model.json", "parameters", 7, "evaluate_episodes"),
        ("model.json", "architecture", {"kind": "conv4", "image_size": 16}, "train_network"),
        ("../search.json", "seed", 7, "search_architecture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pieces_of_different_runs(refuse, tmp_path, chain, name, key, value, stage):
    values = json.loads((chain / name).read_text())
    if key == "architecture":
        value |= {"origin": values[key]["origin"]}
    (chain / name).write_text(json.dumps(values | {key: value}))
    refuse("aggregate_tables.py", chain, named=[chain.parent, stage], output=tmp_path / "output")


def test_a_training_on_other_data_than_the_search(refuse, tmp_path, data, searched):
    path = data / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "other"}))
    arguments = ("--data", data, "--architecture", searched / "architecture.json", "--learner", "none")
    refuse("train_network.py", *arguments, named=["found on glyphs", "is other"], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("name", "edit", "named"),
    [
        ("evaluation.json", lambda values: values["shots"]["1"].update(ci95=0.001), ["its 1-shot interval"]),
        ("evaluation.json", lambda values: values.update(options={}), ["evaluation.json", "options say"]),
        ("evaluation.json", lambda values: values["options"].update(queries="x"), ["'options.queries'"]),
        ("model.json", lambda values: values.update(parameters=10**400), ["model.json", "'parameters'"]),
        ("../search.json", lambda values: values["options"].update(kind=[1]), ["'options.kind'"]),
        ("../search.json", lambda values: values.update(floating_point_operations=10**400), ["search.json"]),
    ],
    ids=["interval", "no options", "queries", "parameters", "kind", "operations"],
)
def test_chains_that_contradict_themselves(refuse, tmp_path, chain, name, edit, named):
    values = json.loads((chain / name).read_text())
    edit(values)
    (chain / name).write_text(json.dumps(values))
    refuse("aggregate_tables.py", chain, named=named, output=tmp_path / "output")


def test_a_model_that_contradicts_itself(refuse, tmp_path, data, chain):
    path = chain / "model.json"
    values = json.loads(path.read_text())
    arguments = ("evaluate_episodes.py", "--data", data, "--model", chain, *EVALUATION)
    for edit, named in (
        ({"parameters": 7}, "says 7 parameters"),
        ({"architecture": values["architecture"] | {"origin": "x"}}, "'origin'"),
    ):
        path.write_text(json.dumps(values | edit))
        refuse(*arguments, named=[path, named], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda manifest: manifest.update(mean=[0.0, 0.0, 0.0]), "mean and std"),
        (lambda manifest: manifest["splits"]["val"].update(smallest_class=1), "its smallest class has"),
        (
            lambda manifest: manifest["splits"]["test"].update(classes=manifest["splits"]["train"]["classes"][:20]),
            "a class stands in two",
        ),
    ],
    ids=["mean", "smallest class", "shared classes"],
)
def test_a_manifest_that_is_not_its_images(refuse, tmp_path, data, edit, named):
    path = data / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    refuse("inspect_dataset.py", data, named=[named], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda lines: lines[:30], "lacks some of its rounds"),
        (lambda lines: [*lines, *lines[1:]], "has a line twice"),
        (lambda lines: [line for line in lines if ",normal," not in line], "lacks some of its rounds"),
        (lambda lines: [line.replace(",False,", ",True,") for line in lines], "which architecture.json has"),
    ],
    ids=["cut", "doubled", "one cell", "all removed"],
)
def test_a_trace_that_is_not_the_searchs(refuse, finished_run, tmp_path, edit, named):
    searched = tmp_path / "searched"
    shutil.copytree(finished_run.path / "results" / "glyphs" / "3cells-2ch" / "metantk" / "seed0", searched)
    path = searched / "search.csv"
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    refuse("draw_searches.py", searched, named=["search.csv", named], output=tmp_path / "output")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"cells": None}, "'cells'"),
        ({"channels": "x"}, "'channels'"),
        ({"genotype": None}, "'genotype'"),
        ({"kind": "conv4"}, "has no cells"),
    ],
    ids=["cells", "channels", "genotype", "kind"],
)
def test_an_architecture_that_no_criterion_can_score(refuse, tmp_path, data, searched, edit, named):
    path = searched / "architecture.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    asked = ("--criteria", '["parameters"]', "--repeats", 1, "--short-training-epochs", "[]")
    arguments = ("--data", data, "--architecture", path, *asked)
    refuse("score_architecture.py", *arguments, named=[named], output=tmp_path / "output.json")


def test_an_architecture_of_another_space_than_the_criteria(refuse, tmp_path, data, searched):
    path = searched / "architecture.json"
    asked = ("--criteria", '["parameters"]', "--space", "darts", "--repeats", 1)
    arguments = ("--data", data, "--architecture", path, *asked)
    refuse("score_architecture.py", *arguments, named=[path, "of space darts"], output=tmp_path / "output.json")


def test_a_folder_of_results_that_is_none(refuse, tmp_path, chain):
    arguments = (chain, "--results", tmp_path / "nowhere")
    refuse("aggregate_tables.py", *arguments, named=["nowhere: is no folder"], output=tmp_path / "output")


def test_a_folder_that_is_no_chain(refuse, tmp_path):
    named = [tmp_path / "evaluation.json"]
    refuse("aggregate_tables.py", tmp_path, named=named, output=tmp_path / "output")
    named = ["none of 1 chains is finished"]
    refuse("aggregate_tables.py", tmp_path, "--partial", named=named, output=tmp_path / "output")


def test_an_output_that_cannot_be_written(refuse, finished_run, tmp_path, data, searched):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "output"
    named, chain = [output, "cannot be written"], searched / "rfs"
    tables = finished_run.path / "results" / "tables"
    training = ("--architecture", searched / "architecture.json", "--learner", "rfs", "--epochs", 1)
    refuse("prepare_dataset.py", "--name", "glyphs", "--source", "glyphs", named=named, output=output)
    refuse("search_architecture.py", "--data", data, *SEARCH, named=named, output=output)
    refuse("train_network.py", "--data", data, *training, named=named, output=output)
    refuse("evaluate_episodes.py", "--data", data, "--model", chain, *EVALUATION, named=named, output=output)
    refuse("aggregate_tables.py", chain, named=named, output=output)
    refuse("draw_searches.py", searched, named=named, output=output)
    refuse("draw_results.py", chain, "--tables", tables, named=named, output=output)


@pytest.mark.parametrize(
    ("script", "arguments", "named"),
    [
        ("show_results.py", ["nowhere"], ["nowhere", "run the workflow first"]),
        ("prepare_dataset.py", ["--name", "a", "--source", "nowhere", "--output", "output"], ["nowhere"]),
        ("train_network.py", ["--data", "a", "--architecture", "b", "--output", "output"], ["b"]),
        ("search_architecture.py", ["--data", "a", "--search", "b", "--output", "output"], ["unknown kind 'b'"]),
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
    configuration["datasets"] = {"mine": {"source": "no/where"}}
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 1
    log = "results/logs/prepare_dataset/mine.log"
    assert log in run.stdout + run.stderr
    assert_one_line((tiny_house.path / log).read_text(), "prepare_dataset.py: error: ", "no/where")
    assert files_in(tiny_house.path / "results" / "mine") == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tuna", 3], ["unrecognized arguments: --tuna"]),
        (["--seed", "one"], ["--seed", "one"]),
        (["--repeat", 3], ["unrecognized arguments: --repeat"]),  # an option of another kind of search
    ],
    ids=lambda value: str(value[0]),
)
def test_flags_that_there_are_not(refuse, tmp_path, arguments, named):
    refuse("search_architecture.py", "--data", "a", *SEARCH, *arguments, named=named, output=tmp_path / "output")
