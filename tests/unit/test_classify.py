"""Classification of one's own pictures with a trained backbone, as a program."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from metantk.pruning import random_genotype
from PIL import Image
from safetensors.torch import save_file

from metantk.backbones.cells import Network
from metantk.space.genotype import SPACES
from metantk.storage import sha256_of
from metantk.training import initialise

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 20, 30)}


def save_picture(path, colour, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-15, 15, (20, 24, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def backbone(tmp_path):
    """A small network with random weights: enough to tell colours apart."""
    network = Network(random_genotype(SPACES["few-shot"], 0), cells=2, channels=8, classes=3)
    initialise(network, 0)
    folder = tmp_path / "backbone"
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "backbone.safetensors",
    )
    facts = {
        "genotype": random_genotype(SPACES["few-shot"], 0),
        "cells": 2,
        "channels": 8,
        "classes": ["a", "b", "c"],
        "image_size": 16,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "weights_sha256": sha256_of(folder / "backbone.safetensors"),
    }
    (folder / "backbone.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def classify(repository, environment, tmp_path, backbone):
    def run(support, query):
        words = ("--backbone", backbone, "--support", support, "--query", query, "--output", tmp_path / "out.csv")
        command = [sys.executable, repository / "scripts" / "classify_images.py", *words]
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)

    return run


def test_pictures_are_told_apart_by_a_few_examples(classify, tmp_path):
    for number, (name, colour) in enumerate(COLOURS.items()):
        for picture in range(3):
            save_picture(tmp_path / "support" / name / f"{picture}.png", colour, 10 * number + picture)
        save_picture(tmp_path / "query" / f"some_{name}.png", colour, 100 + number)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 0, run.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert table.columns.tolist() == ["file", "class", "probability"]
    assert [file.rsplit("some_")[1] for file in table["file"]] == ["blue.png", "green.png", "red.png"]
    assert table["class"].tolist() == ["blue", "green", "red"]
    assert table["probability"].between(1 / 3, 1).all()


def test_one_class_is_not_enough(classify, tmp_path):
    save_picture(tmp_path / "support" / "red" / "0.png", COLOURS["red"], 0)
    save_picture(tmp_path / "query" / "0.png", COLOURS["red"], 1)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "holds 1 class, but telling apart takes 2 or more" in run.stderr
    assert not (tmp_path / "out.csv").exists()
