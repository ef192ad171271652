"""Classification of one's own images with a trained model, as a program."""

from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import run_program
from PIL import Image

from metantk.backbones import build
from metantk.data.sources import open_source
from metantk.data.store import Source, Split, checksum_of, read_manifest, stream_split, write_dataset
from metantk.deployment.own_images import bits_of_images, calibrate_for, calibration_data, warn_of_white
from metantk.models import save_model
from metantk.options.dataset import DatasetOptions
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.searches.sample import random_genotype
from metantk.space.genotype import SPACES

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 20, 30)}


def save_image(path, colour, seed):
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
def classify(repository, tmp_path, model):
    def run(support, query, *more):
        words = ("--model", model, "--support", support, "--query", query, "--output", tmp_path / "out.csv", *more)
        return run_program("python", repository / "scripts" / "classify_images.py", *words)

    return run


def test_images_are_told_apart_by_a_few_examples(classify, tmp_path):
    for index, (name, colour) in enumerate(COLOURS.items()):
        for image in range(3):
            save_image(tmp_path / "support" / name / f"{image}.png", colour, 10 * index + image)
        save_image(tmp_path / "query" / f"some_{name}.png", colour, 100 + index)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 0, run.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    shares = ["p(blue)", "p(green)", "p(red)"]
    assert table.columns.tolist() == ["file", "class", "probability", "out_of_distribution", *shares]
    assert table["out_of_distribution"].isna().all()  # there is nothing to calibrate with
    assert "Not calibrated" in run.stderr
    assert table[shares].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-3)
    assert table["probability"].tolist() == table[shares].max(axis=1).tolist()
    assert [file.rsplit("some_")[1] for file in table["file"]] == ["blue.png", "green.png", "red.png"]
    assert table["class"].tolist() == ["blue", "green", "red"]
    assert table["probability"].between(1 / 3, 1).all()


def test_strange_names_are_only_text(classify, tmp_path):
    """One support image per class; names that would be markup, or leave the page."""
    names = ['<script>alert("x")<', "a & b", "'quoted'"]
    for index, (name, colour) in enumerate(zip(names, COLOURS.values(), strict=True)):
        save_image(tmp_path / "support" / name / "0.png", colour, index)
        save_image(tmp_path / "query" / f"{name} onerror=.png", colour, 100 + index)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 0, run.stderr
    assert sorted(pd.read_csv(tmp_path / "out.csv")["class"]) == sorted(names)
    page = read_page(tmp_path / "out.html")
    assert page.tags.keys() == {"html", "head", "meta", "title", "style", "body", "h1", "p", "h2", "div"} | {
        "figure",
        "img",
        "figcaption",
    }
    assert page.tags["img"] == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert {f"{name} (1)" for name in names} <= set(page.texts)


class Page(HTMLParser):
    """Tags, texts and sources of images."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.sources = Counter(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        assert not [name for name, _ in attributes if name.startswith("on")]
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def read_page(path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture
def colours(tmp_path):
    """A prepared data set whose classes are colours, so that any network tells them apart."""
    rng = np.random.default_rng(0)
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        base = rng.integers(30, 226, (10, 1, 1, 1, 3))
        images = (base + rng.integers(-15, 15, (10, 12, 16, 16, 3))).clip(0, 255).astype(np.uint8)
        names = [f"{part}{index}{colour}" for colour in range(10)]
        split = Split(images.reshape(-1, 16, 16, 3), np.repeat(np.arange(10), 12), names)
        streams[part] = stream_split(split)
    write_dataset(tmp_path / "data", Source(streams, "CC0", [], [], False), name="colours", source="colours")
    return tmp_path / "data"


def test_images_out_of_distribution_are_named(classify, tmp_path, colours):
    """Calibrated on other colours: most of what is none of the classes is found, most of what is one is kept."""
    known = {"blue": (20, 30, 200), "green": (20, 200, 30)}
    for index, (name, colour) in enumerate(known.items()):
        for image in range(3):
            save_image(tmp_path / "support" / name / f"{image}.png", colour, 10 * index + image)
        for image in range(4):
            save_image(tmp_path / "query" / f"{name}{image}.png", colour, 100 + 10 * index + image)
    for image in range(4):
        save_image(tmp_path / "query" / f"other{image}.png", (230, 60, 60), 200 + image)
    run = classify(tmp_path / "support", tmp_path / "query", "--data", colours)
    assert run.returncode == 0, run.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    is_other = table["file"].str.contains("other")
    assert (table.loc[is_other, "out_of_distribution"] == "yes").all()
    assert (table.loc[~is_other, "out_of_distribution"] == "no").sum() >= 7
    assert (table.loc[~is_other, "probability"] > 0.9).all()  # the temperature makes them what they are worth
    assert "On tasks of 2 validation classes with 3 examples each" in run.stderr
    assert "Out of distribution (" in (tmp_path / "out.html").read_text()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_results_do_not_go_into_the_model(classify, tmp_path, model, name):
    save_image(tmp_path / "query" / "0.png", COLOURS["red"], 0)
    before = (model / name).read_bytes()
    for words in (("--output", model / name), ("--page", model / name)):
        run = classify(tmp_path / "query", tmp_path / "query", *words)
        assert run.returncode == 2
        assert "which is read; name another place" in run.stderr
    assert (model / name).read_bytes() == before


def test_the_table_and_its_page_are_two_files(classify, tmp_path):
    for folder in ("a", "support", "query"):
        (tmp_path / folder).mkdir()
    run = classify(tmp_path / "support", tmp_path / "query", "--page", tmp_path / "a" / ".." / "out.csv")
    assert run.returncode == 2
    assert "out.csv: name a file that ends in .html" in run.stderr


@pytest.mark.parametrize("place", ["support/red", "query"])
def test_results_do_not_go_among_the_images(classify, tmp_path, place):
    for index, colour in enumerate(("red", "blue")):
        save_image(tmp_path / "support" / colour / "0.png", COLOURS[colour], index)
        save_image(tmp_path / "query" / f"{index}.png", COLOURS[colour], index)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/**/*.png")}
    run = classify(tmp_path / "support", tmp_path / "query", "--output", tmp_path / place / "0.png")
    assert run.returncode == 2
    assert "which is read; name another place" in run.stderr
    assert {path: path.read_bytes() for path in tmp_path.glob("*/**/*.png")} == before
    assert list(tmp_path.glob("**/*.html")) == []


def test_a_page_that_is_a_folder_is_named(classify, tmp_path):
    save_image(tmp_path / "support" / "a" / "0.png", COLOURS["red"], 0)
    run = classify(tmp_path / "support", tmp_path / "support" / "a", "--page", tmp_path / "model")
    assert run.returncode == 2
    assert (
        run.stderr.splitlines()[-1]
        == f"classify_images.py: error: {tmp_path / 'model'}: is a folder; name a file in it"
    )


def test_a_image_is_no_example_of_two_classes(classify, tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / "support" / name / "0.png", COLOURS["red"], 0)
    save_image(tmp_path / "query" / "0.png", COLOURS["red"], 1)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "classes a and b have an image in common" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out.csv").exists()


def test_one_class_is_not_enough(classify, tmp_path):
    save_image(tmp_path / "support" / "red" / "0.png", COLOURS["red"], 0)
    save_image(tmp_path / "query" / "0.png", COLOURS["red"], 1)
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "holds 1 class, but telling apart takes 2 or more" in run.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_model_is_one_line(classify, tmp_path, model):
    save_image(tmp_path / "support" / "red" / "0.png", COLOURS["red"], 0)
    save_image(tmp_path / "query" / "0.png", COLOURS["red"], 1)
    (model / "model.json").write_text("[]")
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "model.json: " in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out.csv").exists()


def model_on(data, **facts):
    return SimpleNamespace(facts={"data": str(data)} | facts)


def test_another_data_set_at_the_path_of_the_training_calibrates_nothing(colours, caplog):
    """Prepared again with another seed, its validation classes may be those of the training."""
    right = model_on(colours, data_sha256=checksum_of(read_manifest(colours)))
    assert calibration_data(None, right) == colours
    other = model_on(colours, data_sha256="0" * 64)
    assert calibration_data(None, other) is None
    assert calibration_data(colours, other) == colours  # as asked for
    support = Split(np.zeros((2, 16, 16, 3), np.uint8), np.arange(2), ["a", "b"])
    assert calibrate_for(other, None, support) is None
    assert "data: is not the data set of the training: not used; see --data" in caplog.text
    assert calibration_data(None, model_on(colours.parent / "nowhere")) is None


def test_validation_classes_that_were_trained_on_are_named(colours, caplog):
    trained = model_on(colours, classes=["val13", "train01"], image_size=99)
    support = Split(np.zeros((2, 16, 16, 3), np.uint8), np.arange(2), ["a", "b"])
    with pytest.raises(InputError, match="images of 16 pixels, but the model takes 99"):
        calibrate_for(trained, colours, support)
    assert "validation classes that the model was trained on (val13): it looks surer than it is" in caplog.text


def test_a_page_of_something_else_is_not_replaced(classify, tmp_path):
    save_image(tmp_path / "support" / "a" / "0.png", COLOURS["red"], 0)
    save_image(tmp_path / "support" / "b" / "0.png", COLOURS["blue"], 1)
    save_image(tmp_path / "query" / "0.png", COLOURS["red"], 2)
    (tmp_path / "out.html").write_text("<html>my classifier</html>")
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 2
    assert "out.html: is there and is no page of thumbnails; name another one with --page" in run.stderr
    assert (tmp_path / "out.html").read_text() == "<html>my classifier</html>"
    for word, name in (("--output", "out.onnx"), ("--page", "page.txt")):
        run = classify(tmp_path / "support", tmp_path / "query", word, tmp_path / name)
        assert run.returncode == 2
        assert f"{name}: name a file that ends in ." in run.stderr
    for _ in range(2):  # its own page is replaced
        run = classify(tmp_path / "support", tmp_path / "query", "--output", tmp_path / "again.csv")
        assert run.returncode == 0, run.stderr


def save_deep(path, level, seed):
    """An image of 16 bits of which 12 are used: `level` of 4095 is its brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 95, (20, 24))
    Image.fromarray((level + noise).astype(np.uint16)).save(path)


def test_images_of_12_bits_in_folders_are_scaled_alike(classify, tmp_path):
    levels = {"dark": 20, "bright": 4000}
    for index, (name, level) in enumerate(levels.items()):
        for image in range(3):
            save_deep(tmp_path / "support" / name / f"{image}.png", level, 10 * index + image)
        save_deep(tmp_path / "query" / "some" / name / "0.png", level, 100 + index)
    (tmp_path / "query" / "notes.txt").write_text("beside images")
    run = classify(tmp_path / "support", tmp_path / "query")
    assert run.returncode == 0, run.stderr
    assert "16-bit images are scaled by the 12 bits that they use" in run.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert [file.split("/")[-2] for file in table["file"]] == table["class"].tolist() == sorted(levels)


def test_images_of_16_bits_are_scaled_as_those_of_the_training_were(tmp_path, caplog):
    for split, level in {"train": 500, "val": 1500, "test": 2500}.items():
        for image in range(2):
            save_deep(tmp_path / "source" / split / split / f"{image}.png", level, image)
    opened = open_source(DatasetOptions(source=str(tmp_path / "source"), image_size=8, ways=1))
    write_dataset(tmp_path / "data", opened, name="n", source=str(tmp_path / "source"))
    save_deep(tmp_path / "dim.png", 100, 0)
    save_deep(tmp_path / "bright.png", 5000, 0)
    assert bits_of_images([tmp_path / "dim.png"], None) == 8
    assert bits_of_images([tmp_path / "dim.png"], tmp_path / "data") == 12
    caplog.clear()
    assert bits_of_images([tmp_path / "bright.png"], tmp_path / "data") == 12
    assert "16-bit images use 13 bits" in caplog.text
    caplog.clear()
    warn_of_white(13, 12, "the classifier's supports")
    assert "use 13 bits, those of the classifier's supports use 12: brighter ones are white" in caplog.text
    caplog.clear()
    for found, known in ((12, 12), (None, 12), (13, None)):
        warn_of_white(found, known, "others")
    assert not caplog.text
    save_image(tmp_path / "plain.png", (10, 20, 30), 0)
    assert bits_of_images([tmp_path / "plain.png"], tmp_path / "data") is None
