"""Classifiers to ship: each learner's answer as a function of one image, the file, the documented example."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, run_program
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_graph import means_graph

from metantk import backbones
from metantk.data.store import Source, Split, checksum_of, read_manifest, stream_split, write_dataset
from metantk.deployment import joined
from metantk.deployment.classifier import ClassifierFile, check_classifier, write_classifier
from metantk.deployment.own_images import make_task
from metantk.learners import maml, metaoptnet, none, reptile, rfs
from metantk.models import Model, save_model
from metantk.options.backbones.onnx import OnnxOptions
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError

SIZE = 16
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
ARCHITECTURE = {"kind": "conv4", "channels": 4, "image_size": SIZE}
COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 20, 30)}
MAML_PLUS_PLUS = {"learn_inner_lr": True, "per_step_batch_norm": True, "inner_steps": 3, "test_steps": 3}
LEARNERS = {
    "rfs": (rfs, {}),
    "none": (none, {}),
    "svm": (metaoptnet, {"head": "svm"}),
    "ridge": (metaoptnet, {"head": "ridge"}),
    "maml": (maml, {"test_steps": 3}),
    "maml, running averages": (maml, {"test_steps": 3, "transductive": False}),
    "maml without steps": (maml, {"test_steps": 0}),
    "maml++": (maml, MAML_PLUS_PLUS),
    "maml++, running averages": (maml, MAML_PLUS_PLUS | {"transductive": False}),
    "anil": (maml, {"adapt": "head", "test_steps": 3}),
    "anil, joint": (maml, {"adapt": "head", "test_steps": 3, "joint_statistics": True}),
    "nil": (maml, {"test_classifier": "nil"}),
    "nil, running averages": (maml, {"test_classifier": "nil", "transductive": False}),
    "reptile": (reptile, {"test_steps": 3}),
    "reptile, running averages": (reptile, {"test_steps": 3, "transductive": False}),
}


def make_model(name: str) -> Model:
    """A network with moved statistics and head, and what the learner has learned beside it."""
    module, given = LEARNERS[name]
    only_ways = {"ways": 3} if "ways" in module.Options.model_fields else {}
    options = module.Options(**given, **only_ways)
    network = backbones.build(ARCHITECTURE, 3)
    network.initialise_(generator("weights", 0))
    extra = {"scale": torch.tensor(2.5)} if module is metaoptnet else {}
    if module is maml:
        extra = {key: value.detach() for key, value in maml.Networks(network, options).state_dict().items()}
    for key, value in [*network.state_dict().items(), *extra.items()]:
        if value.is_floating_point() and ("running" in key or "averages" in key):
            value.add_(0.05 * torch.rand(value.shape, generator=generator("statistics", len(key))))
    facts = {"architecture": ARCHITECTURE, "image_size": SIZE}
    return Model(network.eval(), options, module, extra, MEAN, STD, facts)


def make_supports(counts=(3, 1, 2)) -> Split:
    rng = np.random.default_rng(0)
    colours = np.repeat(np.array(list(COLOURS.values())), counts, axis=0)[:, None, None]
    images = (colours + rng.integers(-60, 60, (sum(counts), SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
    return Split(images, np.repeat(np.arange(len(counts)), counts), list(COLOURS))


def make_queries(count: int) -> torch.Tensor:
    """Of colours of their own, so that features differ."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 200, (count, 1, 1, 3)) + rng.integers(0, 56, (count, SIZE, SIZE, 3))
    return torch.from_numpy(images.astype(np.uint8))


@pytest.mark.parametrize("counts", [(3, 1, 2), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learners_classifier_gives_its_scores(name, counts):
    model, supports, queries = make_model(name), make_supports(counts), make_queries(5)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    labels = torch.from_numpy(supports.labels)
    task = make_task(model, torch.from_numpy(supports.images), labels, queries, ways=3)
    classifier = model.module.classifier(model, task)
    assert not any(module.training for module in classifier.modules())
    with torch.no_grad():
        together = classifier(model.prepare(queries))
        alone = torch.cat([classifier(model.prepare(query[None])) for query in queries])
    expected = model.scores(task)[0].float()
    differ = expected.std(0).min().item()
    assert differ > 1e-6  # not one answer for all images
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=0.01 * differ)
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=0.01 * differ)
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ridge", "maml++"])
def test_a_files_probabilities_are_the_models(tmp_path, name):
    """The program's test has a linear classifier."""
    model, path = make_model(name), tmp_path / "model.onnx"
    assert write_classifier(model, make_supports(), None, path, {"image_size": SIZE}) < 1e-5
    onnx.checker.check_model(str(path), full_check=True)
    found, close = ClassifierFile(path).run(make_queries(7))
    assert found.shape == (7, 3)
    assert close.shape == (7,)


def test_a_learner_that_has_no_classifier_is_refused():
    model = make_model("rfs")
    with pytest.raises(InputError, match="learner rfs: its module has no `classifier`"):
        check_classifier(model._replace(module=backbones))


def onnx_model(folder: Path, change=None, **graph) -> Model:
    """Frozen features of an ONNX file, which `change` may edit, without a learner."""
    path = means_graph(folder / "net.onnx", **graph)
    if change is not None:
        edited = onnx.load(path)
        change(edited)
        onnx.save(edited, path)
    architecture = OnnxOptions(file=str(path), mean=MEAN, std=STD)
    architecture = architecture.architecture(SIZE)
    network = backbones.build(architecture, 3)
    network.initialise_(generator("weights", 0))
    facts = {"architecture": architecture, "image_size": SIZE}
    return Model(network.eval(), none.Options(), none, {}, MEAN, STD, facts)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "version"), [("height", 18), (20, 11), (8, 22)])
def test_a_classifier_around_an_onnx_file(tmp_path, size, version):
    """Of any size, and of another set of operations than PyTorch's exporter writes."""
    model, path = onnx_model(tmp_path, size=size, version=version), tmp_path / "model.onnx"
    assert write_classifier(model, make_supports(), None, path, {"image_size": SIZE}) < 1e-5
    onnx.checker.check_model(str(path), full_check=True)
    found, close = ClassifierFile(path).run(make_queries(7))
    assert found.shape == (7, 3)
    assert close.shape == (7,)
    assert found.std(0).min() > 1e-3


def ends_with(change) -> Callable[[onnx.ModelProto], None]:
    """`change` makes nodes that turn the value `end` into `y`, of a graph whose last node gave `y` before."""

    def apply(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "end"
        model.graph.node.extend(change(model))

    return apply


def in_double(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return [helper.make_node("Cast", ["end"], ["y"], to=TensorProto.DOUBLE)]


def by_a_function(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    double = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Double", ["a"], ["b"], double, list(model.opset_import)))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return [helper.make_node("Double", ["end"], ["y"], domain="own")]


def in_a_branch(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Which reads a constant of the graph around it."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["end", "two"], [kind])],
            kind,
            [],
            [helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)],
        )
        for kind in ("Mul", "Add")
    ]
    return [helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])]


def with_our_names(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    model.graph.output[0].name = "probabilities"
    return [helper.make_node("Identity", ["end"], ["probabilities"])]


@pytest.mark.slow
@pytest.mark.parametrize("change", [in_double, by_a_function, in_a_branch, with_our_names])
def test_a_classifier_around_a_graph_of_any_form(tmp_path, change):
    model, path = onnx_model(tmp_path, change=ends_with(change)), tmp_path / "model.onnx"
    assert write_classifier(model, make_supports(), None, path, {"image_size": SIZE}) < 1e-5
    found, _ = ClassifierFile(path).run(make_queries(7))
    assert found.std(0).min() > 1e-3


@pytest.mark.slow
def test_a_classifier_that_cannot_be_run_is_named_by_its_network(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "_as_float", lambda body: body.graph.output[0].name)
    model, path = onnx_model(tmp_path, change=ends_with(in_double)), tmp_path / "model.onnx"
    with pytest.raises(InputError, match="backbone onnx: what was written is no ONNX file that can be run"):
        write_classifier(model, make_supports(), None, path, {"image_size": SIZE})


@pytest.mark.parametrize("versions", [[], [18, 18]])
def test_a_graph_without_one_version_is_refused(versions):
    model = helper.make_model(
        helper.make_graph([], "nothing", [], []), opset_imports=[helper.make_opsetid("", each) for each in versions]
    )
    with pytest.raises(ValueError, match=f"it names {len(versions)} versions"):
        joined._version(model)


@pytest.mark.slow
def test_a_graph_that_cannot_be_converted_is_refused(tmp_path, monkeypatch):
    def refuse(model, version):
        raise onnx.version_converter.ConvertError(f"no adapter to {version}")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    model, path = onnx_model(tmp_path, version=11), tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"net\.onnx: cannot be joined with its classifier \(no adapter to \d+\)"):
        write_classifier(model, make_supports(), None, path, {"image_size": SIZE})


def test_a_graph_of_one_image_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"net\.onnx: takes 1 images at once, a classifier any number"):
        check_classifier(onnx_model(tmp_path, batch=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model as a training leaves it, with its data set: classes are colours, so that any network knows them."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        base = rng.integers(30, 226, (10, 1, 1, 1, 3))
        images = (base + rng.integers(-15, 15, (10, 12, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
        names = [f"{part}{index}{colour}" for colour in range(10)]
        streams[part] = stream_split(Split(images.reshape(-1, SIZE, SIZE, 3), np.repeat(np.arange(10), 12), names))
    write_dataset(folder / "data", Source(streams, "CC0", [], [], False), name="colours", source="colours")
    network = backbones.build(ARCHITECTURE, 10)
    network.initialise_(generator("weights", 0))
    facts = {"architecture": ARCHITECTURE, "learner": rfs.Options().model_dump(), "outputs": 10}
    facts |= {"image_size": SIZE, "mean": MEAN, "std": STD, "data": str(folder / "data")}
    facts["data_sha256"] = checksum_of(read_manifest(folder / "data"))
    (folder / "model").mkdir()
    save_model(folder / "model", network, None, facts)
    return folder / "model"


def save_image(path, colour, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-15, 15, (20, 24, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Supports of three colours, and queries of them and of another, two of which have one name."""
    folder = tmp_path_factory.mktemp("images")
    for index, (name, colour) in enumerate(COLOURS.items()):
        for image in range(3 - index):
            save_image(folder / "support" / name / f"{image}.png", colour, 10 * index + image)
        save_image(folder / "query" / name / "0.png", colour, 100 + index)
    save_image(folder / "query" / "another" / "0.png", np.array(COLOURS["red"]) + 25, 104)
    save_image(folder / "query" / "grey.png", (128, 128, 128), 105)
    return folder


@pytest.fixture(scope="module")
def exported(trained, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "colours.onnx"
    words = (trained, "--support", images / "support", "--output", path)
    run = run_program("python", REPOSITORY / "scripts" / "export_classifier.py", *words)
    assert run.returncode == 0, run.stderr
    assert "3 classes, probabilities equal the model's to" in run.stderr
    return path


def classify(folder, *words):
    program = REPOSITORY / "scripts" / "classify_images.py"
    return run_program("python", program, "--output", folder / "out.csv", *words)


@pytest.mark.slow
def test_a_classifier_answers_without_supports_as_the_model_with_them(tmp_path, trained, images, exported):
    (tmp_path / "file").mkdir()
    words = ("--query", images / "query")
    run = classify(tmp_path, "--model", trained, "--support", images / "support", *words)
    assert run.returncode == 0, run.stderr
    run = classify(tmp_path / "file", "--model", exported, *words, "--sort-into", tmp_path / "sorted")
    assert run.returncode == 0, run.stderr
    assert "On tasks of 3 validation classes with 2 examples each" in run.stderr
    expected, found = (pd.read_csv(folder / "out.csv") for folder in (tmp_path, tmp_path / "file"))
    assert found[["file", "class", "out_of_distribution"]].equals(
        expected[["file", "class", "out_of_distribution"]]
    )
    shares = [f"p({name})" for name in COLOURS]
    np.testing.assert_allclose(found[shares], expected[shares], rtol=0, atol=1.01e-4)  # they have four digits
    assert (found["probability"] > 0.9).sum() >= 3
    assert {"yes", "no"} == set(found["out_of_distribution"])
    check_sorted(tmp_path / "sorted", found)


def check_sorted(folder, table):
    """Each query is where the table says, and whole; nothing else is there."""
    places = table["class"].where(table["out_of_distribution"] == "no", "out of distribution")
    expected = sorted(zip(places, (Path(file).read_bytes() for file in table["file"]), strict=True))
    found = sorted((file.parent.name, file.read_bytes()) for file in folder.glob("*/*"))
    assert found == expected
    assert {place.name for place in folder.iterdir()} == {*COLOURS, *places}
    assert len(list(folder.parent.glob(".sorted*"))) == 0


@pytest.mark.slow
def test_the_metadata_say_how_the_file_is_used(exported, trained):
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert json.loads(metadata["class_names"]) == list(COLOURS)
    assert json.loads(metadata["supports"]) == [3, 2, 1]
    assert metadata["image_size"] == str(SIZE)
    assert f"float32 (images, 3, {SIZE}, {SIZE}), red, green, blue in 0..1" in metadata["input"]
    assert "bicubic" in metadata["preparation"]
    calibration = json.loads(metadata["calibration"])
    assert float(metadata["threshold"]) == calibration["threshold"]
    assert (calibration["ways"], calibration["shots"]) == (3, 2)
    assert metadata["weights_sha256"] == json.loads((trained / "model.json").read_text())["weights_sha256"]


@pytest.mark.slow
def test_the_documented_example_runs(exported, images, tmp_path):
    """As docs/deployment.md has it, on its own words for the files."""
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10 + 4  # ten lines below the imports
    (tmp_path / "birds.onnx").write_bytes(exported.read_bytes())
    # Readers of images go by content, not by name.
    (tmp_path / "my_image.jpg").write_bytes((images / "query" / "green" / "0.png").read_bytes())
    run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    *name, probability = run.stdout.split()
    assert classify(tmp_path, "--model", exported, "--query", images / "query" / "green").returncode == 0
    answer = pd.read_csv(tmp_path / "out.csv").iloc[0]
    assert " ".join(name) == ("unlike any" if answer["out_of_distribution"] == "yes" else answer["class"])
    assert float(probability) == pytest.approx(answer["probability"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [255, 90])
def test_the_documented_example_has_white_paper_behind_what_is_transparent(exported, images, tmp_path, alpha):
    page = (REPOSITORY / "docs" / "deployment.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "birds.onnx").write_bytes(exported.read_bytes())
    image = Image.open(images / "query" / "green" / "0.png").convert("RGBA")
    image.putalpha(alpha)
    (tmp_path / "query").mkdir()
    image.save(tmp_path / "query" / "0.png")
    (tmp_path / "my_image.jpg").write_bytes((tmp_path / "query" / "0.png").read_bytes())
    run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert classify(tmp_path, "--model", exported, "--query", tmp_path / "query").returncode == 0
    expected = pd.read_csv(tmp_path / "out.csv").iloc[0]["probability"]
    assert float(run.stdout.split()[-1]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "FILE", "--support", "SUPPORT"], "is a classifier, which has its classes"),
        (["--model", "MODEL"], "needs --support"),
        (["--model", "FILE", "--data", "SUPPORT"], "is calibrated when it is exported"),
        (["--model", "FILE", "--sort-into", "SUPPORT"], "is there already; name a new folder"),
        (["--model", "FILE", "--sort-into", "OUTPUT"], "lies in the new folder of --sort-into"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, trained, images, exported, words, message):
    places = {"FILE": exported, "MODEL": trained, "SUPPORT": images / "support", "OUTPUT": tmp_path / "new"}
    run = classify(tmp_path / "new", "--query", images / "query", *(places.get(word, word) for word in words))
    assert run.returncode == 2
    assert message in run.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
