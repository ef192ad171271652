"""Trained backbones for others: ONNX files of every kind, and features in Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from conftest import run_program
from safetensors.torch import save_file
from small_graph import means_graph
from torch.nn import functional

import export_backbone
import metantk
from metantk import backbones
from metantk.data.glyphs import make_glyphs
from metantk.data.store import Source, checksum_of, read_manifest, stream_split, write_dataset
from metantk.deployment import exported
from metantk.deployment.out_of_distribution import TooFewError
from metantk.models import load_model, save_model
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.runtime.onnx_files import read_onnx
from metantk.space.genotype import read_named

SIZE = 16
NAME = "test_resnet.r160_in1k"
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
CELLS = {"kind": "cells", "genotype": read_named("metanas_in_v2"), "cells": 3, "channels": 4, "layout": "few-shot"}
ARCHITECTURES = {
    "cells": CELLS,
    "conv4": {"kind": "conv4", "channels": 4, "image_size": SIZE},
    "resnet12": {"kind": "resnet12", "widths": [4, 4, 8, 8], "image_size": SIZE},
    "timm": {"kind": "timm", "name": NAME, "weights": "w.safetensors", "input_size": 32, "image_size": SIZE},
    "pixels": {"kind": "pixels", "image_size": SIZE},
}


def save(folder, architecture, **facts):
    """A model as a training leaves it, with moved statistics of its normalisation."""
    network = backbones.build(architecture, 5)
    network.initialise_(generator("weights", 0))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator("mean"))
            module.running_var.uniform_(0.5, 1.5, generator=generator("variance"))
    origin = {"dataset": "glyphs", "backbone": "mine", "search": "fixed", "seed": 3, "backbone_title": "Mine"}
    about = {
        "architecture": architecture | {"origin": origin},
        "learner": RfsOptions().model_dump(),
        "learner_name": "rfs",
        "outputs": 5,
        "classes": ["a", "b", "c", "d", "e"],
        "image_size": SIZE,
        "licence": "CC0",
        **getattr(network, "statistics", {"mean": MEAN, "std": STD}),
    }
    folder.mkdir()
    save_model(folder, network, None, about | facts)
    return folder


def make_images(count, size=SIZE):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_files_features_are_pytorchs(tmp_path, monkeypatch, kind):
    """Of other numbers of images than it was traced with, too."""
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model(NAME).state_dict(), "w.safetensors")
    folder = save(tmp_path / "model", ARCHITECTURES[kind])
    model = load_model(folder, torch.device("cpu"))
    facts = {"image_size": SIZE, "classes": ["é", "<b>"]}
    exported.to_onnx(model, tmp_path / "model.onnx", facts)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    opened = exported.OnnxModel(tmp_path / "model.onnx")
    assert opened.facts == facts
    assert opened.graph.batch is None
    for count in (1, 2, 7):
        images = torch.from_numpy(make_images(count))
        found = opened.features(opened.prepare(images))
        floats = images.permute(0, 3, 1, 2) / 255
        normal = (floats - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
        with torch.no_grad():
            expected = functional.normalize(model.network.features(normal), dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert found.std(0).max() > 1e-3 or count == 1  # not one answer for all images


def test_what_has_no_features_of_a_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed = save(tmp_path / "mixed", {"kind": "mixed", "cells": 4, "channels": 4})
    means_graph(tmp_path / "means.onnx")
    options = backbones.plugins.options_class("backbones", "onnx")
    graph = save(tmp_path / "graph", options(file="means.onnx").architecture(SIZE))
    for folder, message in ((mixed, "mixed: normalises by the images"), (graph, "means.onnx: is an ONNX file")):
        with pytest.raises(InputError, match=message):
            exported.to_onnx(load_model(folder, torch.device("cpu")), tmp_path / "out.onnx", {})
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_features_in_python(tmp_path):
    folder = save(tmp_path / "model", ARCHITECTURES["conv4"])
    model = metantk.load(folder)
    features = model.features(make_images(3))
    assert features.shape == (3, model.feature_dim)
    assert model.image_size == SIZE
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    direct = load_model(folder, torch.device("cpu"))
    expected = direct.features(direct.prepare(torch.from_numpy(make_images(3))))
    np.testing.assert_allclose(features, functional.normalize(expected, dim=1).numpy(), rtol=1e-5)
    exported.to_onnx(direct, tmp_path / "model.onnx", {"image_size": SIZE})
    np.testing.assert_allclose(metantk.load(tmp_path / "model.onnx").features(make_images(3)), features, atol=1e-4)
    assert model.features(make_images(2, size=50)).shape == (2, model.feature_dim)
    assert model.features(make_images(3)[:0]).shape == (0, model.feature_dim)
    with pytest.raises(InputError, match="images are float64"):
        model.features(make_images(3) / 255)


@pytest.mark.slow
def test_the_two_documented_lines(tmp_path, repository):
    """As the docstring of the library has them."""
    folder = save(tmp_path / "model", ARCHITECTURES["conv4"])
    np.save(tmp_path / "images.npy", make_images(2))
    lines = [line.strip() for line in metantk.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 2
    program = "\n".join(
        ["import numpy, metantk", "images = numpy.load('images.npy')", *lines, "print(features.shape)"]
    )
    program = program.replace("results/birds/5cells-8ch/metantk/seed0/rfs", str(folder))
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "(2, 4)\n", run.stderr


@pytest.mark.slow
def test_calibrations_of_the_former_form_are_refused(tmp_path):
    model = load_model(save(tmp_path / "model", ARCHITECTURES["conv4"]), torch.device("cpu"))
    former = {"ways": 2, "shots": 1, "temperature": 1.0, "threshold": 0.5, "accuracy": 60.0}
    former |= {"kept": 95.0, "refused": 50.0, "separation": 80.0}
    exported.to_onnx(model, tmp_path / "model.onnx", {"image_size": SIZE, "calibrations": [former]})
    with pytest.raises(InputError, match=r"model\.onnx: metadata: .*false_positive_rate.*; export again$"):
        exported.OnnxModel(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    means_graph(path) if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.onnx: is no (file of export_backbone|ONNX file)"):
        metantk.load(path)


def test_metadata_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    means_graph(path)
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {exported.FACTS: "marker"})
    path.write_bytes(graph.SerializeToString().replace(b"marker", b"mark\xff\xfe"))
    with pytest.raises(InputError, match=r"net\.onnx: is damaged: its metadata are no text"):
        exported.OnnxModel(path)


@pytest.mark.parametrize("threads", ["", "2,1", "two", "0"])
def test_threads_as_openmp_reads_them(tmp_path, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    means_graph(tmp_path / "net.onnx")
    assert read_onnx(tmp_path / "net.onnx", image_size=SIZE).graph.feature_dim


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    splits = make_glyphs(image_size=SIZE, images_per_class=8, seed=0)
    streams = {part: stream_split(split) for part, split in splits.items()}
    folder = tmp_path_factory.mktemp("glyphs") / "data"
    write_dataset(folder, Source(streams, "CC0", [], [], False), name="glyphs", source="glyphs")
    return folder


def test_a_file_without_enough_validation_classes_is_written_uncalibrated(monkeypatch, caplog):
    def too_few(*_, **__):
        raise TooFewError("calibration takes 4 validation classes of 2 images or more")

    monkeypatch.setattr(export_backbone, "calibrate_model", too_few)
    assert export_backbone._calibrations(None, Path("data")) == []
    assert "data: calibration takes 4 validation classes" in caplog.text


@pytest.mark.slow
def test_the_program(tmp_path, repository, data):
    checksum = checksum_of(read_manifest(data))
    folder = save(tmp_path / "model", ARCHITECTURES["conv4"], data=str(data), data_sha256=checksum)

    def run(path):
        return run_program("python", repository / "scripts" / "export_backbone.py", folder, "--output", path)

    finished = run(tmp_path / "model.onnx")
    assert finished.returncode == 0, finished.stderr
    assert "features equal PyTorch's to" in finished.stderr
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert metadata["image_size"] == str(SIZE)
    assert json.loads(metadata["classes"]) == ["a", "b", "c", "d", "e"]
    assert metadata["licence"] == "CC0"
    row = {"dataset": "glyphs", "backbone": "mine", "search": "fixed", "seed": 3, "learner": "rfs"}
    assert json.loads(metadata["row"]) == row
    description = json.loads((folder / "model.json").read_text())
    assert metadata["weights_sha256"] == description["weights_sha256"]
    calibrations = json.loads(metadata["calibrations"])
    asked = [(entry["ways"], entry["shots"]) for entry in calibrations]
    assert asked == [(2, 1), (2, 5), (5, 1), (5, 5), (8, 1), (8, 5)]  # glyphs has 16 validation classes
    refused = run(tmp_path / "model.bin")
    assert refused.returncode == 2
    assert "name a file that ends in .onnx" in refused.stderr
    assert not (tmp_path / "model.bin").exists()
