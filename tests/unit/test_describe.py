"""describe_architecture.py as a program, on the published architectures."""

import json
from pathlib import Path

import pytest
from conftest import run_program

from metantk.runtime.files import SCRIPTS

PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures" / "published_genotypes.json").read_text())[
    "architectures"
]


def describe(entry, folder, *flags):
    path = folder / "genotype.json"
    path.write_text(json.dumps(entry["genotype"]))
    size = ("--cells", entry["cells"], "--channels", 48, "--classes", 64)
    return run(path, *size, *flags).stdout


def run(*words, check=True):
    done = run_program("python", SCRIPTS / "describe_architecture.py", *words)
    assert not (check and done.returncode), done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("entry", [PUBLISHED[0], PUBLISHED[3]], ids=lambda entry: entry["name"])
def test_json_holds_the_published_sizes(entry, tmp_path):
    facts = json.loads(describe(entry, tmp_path, "--json"))
    assert set(facts) == {"parameters", "backbone_parameters", "macs", "feature_dim"}
    expected = entry["parameters"]
    assert (facts["parameters"], facts["backbone_parameters"]) == (expected["total"], expected["backbone"])
    assert facts["feature_dim"] == 48 * 4 * 3
    assert facts["macs"] > facts["parameters"]


def test_text_names_every_operation(tmp_path):
    text = describe(PUBLISHED[0], tmp_path)
    for node in PUBLISHED[0]["genotype"]["normal"]:
        for operation, source in node:
            assert f"{operation}({source})" in text
    assert "1,760,800" in text


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ("resnet12 --classes 64", 12_465_344),
        ("resnet12 --classes 448", 12_711_488),
        ("conv4 --classes 5", 32_901),
        ("conv4 --classes 5 --image-size 32", 29_541),
        ("conv4 --classes 5 --channels 64", 121_093),
        ("metanas_in_v2 --cells 5 --channels 48 --classes 64", 2_005_216),
        ("metanas_in_v2 --cells 8", 3_530_896),
    ],
)
def test_backbones_and_published_cells_are_known_by_name(words, parameters):
    assert json.loads(run(*words.split(), "--json").stdout)["parameters"] == parameters


def test_the_latency_is_measured_where_it_is_asked_for():
    words = ["conv4", "--classes", "5", "--image-size", "20", "--json", "--latency"]
    facts = json.loads(run(*words).stdout)
    assert facts["parameters"] == json.loads(run(*words[:-1]).stdout)["parameters"]
    assert min(facts["latency_ms"], facts["batch_latency_ms"]) > 0
    assert (facts["batch"], facts["latency_threads"], facts["latency_device"]) == (64, 1, "cpu, onnxruntime")


@pytest.mark.slow
def test_an_architecture_file_says_its_sizes_itself(tmp_path):
    path = tmp_path / "architecture.json"
    genotype = json.loads((SCRIPTS.parent / "config" / "genotypes" / "metanas_in_v2.json").read_text())
    sizes = {"kind": "cells", "genotype": genotype, "cells": 8, "channels": 48, "origin": {"search": "metanas"}}
    path.write_text(json.dumps(sizes))
    assert json.loads(run(path, "--json").stdout)["parameters"] == 3_530_896
    assert json.loads(run(path, "--cells", 5, "--json").stdout)["parameters"] == 2_005_216
    path.write_text(json.dumps({"kind": "conv4", "channels": 32, "image_size": 32}))
    assert json.loads(run(path, "--classes", 5, "--json").stdout)["parameters"] == 29_541
    text = run(path, "--classes", 5, "--image-size", 84).stdout
    assert "conv4" in text
    assert "32,901" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("resnet13", "is neither a file nor the name of a published genotype"),
        ("conv4 --cells 5", "options: unknown key 'cells'"),
        ("metanas_v1 --cells 1", "'cells'"),
        ("metanas_v1 --image-size 0", "image-size must be 1 to 1024"),
        ("resnet12 --image-size 12", "'image_size'"),
        ("conv4 --classes 0", "classes must be 1 to"),
        ("no_such.py", "no such file"),
    ],
)
def test_what_cannot_be_described_is_one_line(words, message):
    ended = run(*words.split(), check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
