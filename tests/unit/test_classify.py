"""Classification of one's own pictures with a trained model, as a program."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metantk.backbones import build
from metantk.devices import generator
from metantk.models import save_model
from metantk.options.learners.rfs import RfsOptions
from metantk.searches.sample import random_genotype
from metantk.space.genotype import SPACES

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 20, 30)}


def save_picture(path, colour, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-15, 15, (20, 24, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def model(tmp_path):
    """A small network with random weights: enough to tell colours apart."""
    genotype = random_genotype(SPACES["few-shot"], 0)
    architecture = {"kind": "cells", "genotype": genotype, "cells": 2, "channels": 8}
    network = build(architecture, 3)
    network.initialise_(generator("initial weights", 0))
    facts = {
        "architecture": architecture,
        "learner": RfsOptions().model_dump(),
        "outputs": 3,
        "image_size": 16,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", network, None, facts)
    return tmp_path / "model"


@pytest.fixture
def classify(repository, environment, tmp_path, model):
    def run(support, query):
        words = ("--model", model, "--support", support, "--query", query, "--output", tmp_path / "out.csv")
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


def test_a_damaged_model_is_one_line(classify, tmp_path, model):
    save_picture(tmp_path / "support" / "red" / "0.png", COLOURS["red"], 0)
    save_picture(tmp_path / "query" / "0.png", COLOURS["red"], 1)
    (model / "model.json").write_text("[]")
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "model.json: " in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out.csv").exists()
