"""Backbones that come with their weights: timm, ONNX files, raw pixels."""

import json
import pickle

import numpy as np
import onnx
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from small_graph import means_graph
from torch.nn import functional

from metantk import backbones
from metantk.backbones.counting import count_parameters
from metantk.learners import none
from metantk.models import load_model, save_model
from metantk.options.base import parse
from metantk.options.config import parse_config
from metantk.runtime import plugins
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError

NAME = "test_resnet.r160_in1k"  # 0.4 million parameters
SIZE = 24


@pytest.fixture
def body():
    """A small network of timm with weights of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(NAME, num_classes=7).eval()


def images(count=3, size=SIZE):
    return torch.rand(count, 3, size, size, generator=generator("pictures"))


def make(options: dict, outputs=5):
    """A network as train_network.py makes it, by way of JSON."""
    kind = plugins.options_class("backbones", options["kind"])
    architecture = json.loads(json.dumps(parse(kind, options, where="test").architecture(SIZE)))
    network = backbones.build(architecture, outputs)
    network.initialise_(generator("weights", 0))
    return architecture, network.eval()


def save_weights(body, path, change=lambda state: state):
    state = change({name: tensor.contiguous() for name, tensor in body.state_dict().items()})
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def wrapped(state):
    return {"state_dict_ema": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}


def headless(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(
    ("file", "change"),
    [("w.safetensors", dict), ("w.pth", dict), ("w.pth", wrapped), ("w.safetensors", headless)],
    ids=["safetensors", "pth", "of a training program", "without a classifier"],
)
@torch.inference_mode()
def test_features_of_timm_are_timms_own(tmp_path, body, file, change):
    weights = save_weights(body, tmp_path / file, change)
    _, network = make({"kind": "timm", "name": NAME, "weights": str(weights)})
    assert network.statistics == {"mean": [0.5] * 3, "std": [0.5] * 3}
    resized = functional.interpolate(images(), (160, 160), mode="bilinear", antialias=True)
    expected = body.forward_head(body.forward_features(resized), pre_logits=True)
    torch.testing.assert_close(network.features(images()), expected)
    assert expected.shape == (3, network.feature_dim) == (3, 96)
    assert network(images()).shape == (3, 5)
    assert network.initial_weights["file"] == str(weights)
    assert count_parameters(network.body) == sum(p.numel() for p in body.parameters()) - 7 * 97


def test_an_input_size_of_ones_own(tmp_path, body):
    weights = save_weights(body, tmp_path / "w.safetensors")
    options = {"kind": "timm", "name": NAME, "weights": str(weights)}
    _, network = make(options | {"input_size": SIZE})
    with torch.inference_mode():
        expected = body.forward_head(body.forward_features(images()), pre_logits=True)
        torch.testing.assert_close(network.features(images()), expected)
    fixed = timm.create_model("test_vit.r160_in1k")
    weights = save_weights(fixed, tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="takes images of 160 pixels only"):
        make({"kind": "timm", "name": "test_vit.r160_in1k", "weights": str(weights), "input_size": 96})


def test_weights_from_the_users_cache(tmp_path, monkeypatch, body):
    """Where Hugging Face's programs put them; nothing is fetched."""
    snapshot = tmp_path / "models--timm--test_resnet.r160_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_weights(body, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _, network = make({"kind": "timm", "name": NAME})
    assert network.initial_weights["file"] == str(snapshot / "model.safetensors")
    assert torch.equal(network.body.conv1[0].weight, body.conv1[0].weight)


def test_without_weights_one_line_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=rf"weights of {NAME} are not in your cache; .*hf download timm/{NAME}"):
        make({"kind": "timm", "name": NAME})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "is no file of weights that can be read without running code"),
        (pickle.dumps({"a": print}), "is no file of weights that can be read without running code"),
        (None, "no such file"),
    ],
)
def test_other_files_are_no_weights(tmp_path, content, message):
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"w.pth: {message}") as caught:
        make({"kind": "timm", "name": NAME, "weights": str(path)})
    assert "\n" not in str(caught.value)


def test_no_code_of_a_file_of_weights_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").mkdir, ())

    torch.save({"conv1.weight": Trap()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="without running code"):
        make({"kind": "timm", "name": NAME, "weights": str(tmp_path / "w.pth")})
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(tmp_path, body):
    for change in (
        lambda state: {name: tensor for name, tensor in state.items() if "layer2" not in name},
        lambda state: state | {"conv1.0.weight": torch.zeros(1, 3, 3, 3)},
    ):
        path = save_weights(body, tmp_path / "w.safetensors", change)
        with pytest.raises(InputError, match=f"w.safetensors: holds no weights of {NAME}") as caught:
            make({"kind": "timm", "name": NAME, "weights": str(path)})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnett18", "resnet18.none"])
def test_unknown_networks_are_refused(name):
    architecture = {"kind": "timm", "name": name, "weights": None, "input_size": None, "image_size": SIZE}
    with pytest.raises(InputError, match=name.split(".")[0]) as caught:
        backbones.build(architecture, 5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "local-dir:/tmp", "https://example.org/x"])
def test_names_are_no_places_to_fetch_from(name):
    with pytest.raises(InputError, match="'name'"):
        make({"kind": "timm", "name": name})


@torch.inference_mode()
def test_features_of_a_file_are_the_files_own(tmp_path):
    path = means_graph(tmp_path / "means.onnx")
    architecture, network = make({"kind": "onnx", "file": str(path)})
    expected = images().mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(network.features(images()), expected)
    assert (architecture["feature_dim"], architecture["input_size"]) == (3, None)
    assert network.statistics == {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert count_parameters(network) == 3 + 2 + 5 * 4  # what the file holds, and the head


@torch.inference_mode()
def test_files_of_a_fixed_size_and_number_of_images(tmp_path):
    path = means_graph(tmp_path / "means.onnx", size=8, batch=2, output=(2, 3))
    _, network = make({"kind": "onnx", "file": str(path)})
    small = functional.interpolate(images(5), (8, 8), mode="bilinear", antialias=True)
    expected = small.mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(network.features(images(5)), expected)


def test_a_trained_model_needs_the_file_no_longer(tmp_path):
    path = means_graph(tmp_path / "means.onnx")
    architecture, network = make({"kind": "onnx", "file": str(path), "mean": [0.5] * 3, "std": [0.2] * 3})
    save(tmp_path, network, architecture)
    path.unlink()
    model = load_model(tmp_path, torch.device("cpu"))
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8))
    expected = (raw / 255 - 0.5).div(0.2).mean((1, 2)) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(model.features(model.prepare(raw)), expected, rtol=1e-4, atol=1e-5)


def save(folder, network, architecture):
    facts = {
        "architecture": architecture,
        "learner": none.Options().model_dump(),
        "outputs": 5,
        "image_size": SIZE,
        **getattr(network, "statistics", {"mean": [0.0] * 3, "std": [1.0] * 3}),
    }
    save_model(folder, network, None, facts)


def test_a_file_that_changed_is_refused(tmp_path):
    path = means_graph(tmp_path / "means.onnx")
    options = plugins.options_class("backbones", "onnx")
    architecture = options(file=str(path)).architecture(SIZE)
    means_graph(path, size=SIZE)
    with pytest.raises(InputError, match=r"means\.onnx: has changed"):
        backbones.build(architecture, 5).initialise_(generator("weights", 0))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"nothing"), "is no ONNX file that can be run"),
        (lambda path: None, "cannot be read"),
        (
            lambda path: means_graph(path, reduce=False, output=("images", 3, "height", "height")),
            r"gives float32 \(1, 3, 24, 24\) of 1 images; expected features",
        ),
    ],
    ids=["no ONNX", "missing", "a map"],
)
def test_other_onnx_files_are_refused(tmp_path, write, message):
    write(tmp_path / "net.onnx")
    with pytest.raises(InputError, match=rf"net\.onnx: {message}") as caught:
        make({"kind": "onnx", "file": str(tmp_path / "net.onnx")})
    assert "\n" not in str(caught.value)


def with_weights_elsewhere(path, location):
    """The graph of a file, whose weights it says are in another file; their bytes."""
    model, content = onnx.load(path), b""
    for tensor in model.graph.initializer:
        numbers = onnx.numpy_helper.to_array(tensor).tobytes()
        tensor.raw_data = numbers
        onnx.external_data_helper.set_external_data(tensor, location, offset=len(content), length=len(numbers))
        tensor.ClearField("float_data" if tensor.data_type == onnx.TensorProto.FLOAT else "int64_data")
        tensor.ClearField("raw_data")
        content += numbers
    path.write_bytes(model.SerializeToString())
    return content


@torch.inference_mode()
def test_weights_in_a_file_beside_it_are_read_from_there(tmp_path, monkeypatch):
    """As PyTorch's exporter writes them; never from the working folder, where there are others."""
    plain, path = means_graph(tmp_path / "plain.onnx"), means_graph(tmp_path / "net.onnx")
    content = with_weights_elsewhere(path, "net.onnx.data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "net.onnx.data").write_bytes(bytes(len(content)))
    with pytest.raises(InputError, match=r"net\.onnx\.data: cannot be read .*net\.onnx has its weights there"):
        make({"kind": "onnx", "file": str(path)})
    beside = tmp_path / "net.onnx.data"
    beside.write_bytes(content)
    options = {"kind": "onnx", "file": str(path)}
    architecture, network = make(options)
    _, expected = make({"kind": "onnx", "file": str(plain)})
    assert torch.equal(network.features(images()), expected.features(images()))
    assert count_parameters(network) == count_parameters(expected)
    assert plugins.options_class("backbones", "onnx")(**options).files == [str(path), str(beside)]
    beside.write_bytes(b"\1" + content[1:])
    with pytest.raises(InputError, match=r"net\.onnx: has changed"):
        backbones.build(architecture, 5).initialise_(generator("weights", 0))
    beside.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"net\.onnx\.data: has 27 bytes, not all of the weights"):
        make(options)


@pytest.mark.parametrize("location", ["../other.data", "/etc/passwd", "folder/net.data", ""])
def test_weights_in_other_places_are_refused(tmp_path, location):
    """A file may name any path as the place of its weights."""
    path = means_graph(tmp_path / "net.onnx")
    with_weights_elsewhere(path, location)
    with pytest.raises(InputError, match=r"net\.onnx: names .*they have to lie beside it"):
        make({"kind": "onnx", "file": str(path)})


def means_then(path, *nodes, **constants):
    """A file of any number of images: the means of their channels, and what `nodes` make of them."""
    graph = onnx.load(means_graph(path))
    graph.graph.node[-1].output[0] = "means"
    graph.graph.node.extend(nodes)
    for name, values in constants.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("shape", [[1, -1], [1, 3]])
@torch.inference_mode()
def test_a_number_of_images_that_is_fixed_inside_is_found(tmp_path, shape):
    """The input says any; two images fail, or become one row of twice as many features."""
    node = onnx.helper.make_node("Reshape", ["means", "shape"], ["y"])
    _, network = make({"kind": "onnx", "file": str(means_then(tmp_path / "net.onnx", node, shape=shape))})
    expected = images(4).mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(network.features(images(4)), expected)


@pytest.mark.parametrize("batch", ["images", 2])
def test_features_that_depend_on_other_images_are_refused(tmp_path, batch):
    nodes = [
        onnx.helper.make_node("ReduceMean", ["means", "first"], ["centre"], keepdims=1),
        onnx.helper.make_node("Sub", ["means", "centre"], ["y"]),
    ]
    path = means_then(tmp_path / "net.onnx", *nodes, first=[0])
    graph = onnx.load(path)
    if batch == 2:
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        onnx.save(graph, path)
    with pytest.raises(InputError, match=r"net\.onnx: the features of an image depend on the images beside it"):
        make({"kind": "onnx", "file": str(path)})


def test_a_frozen_network_has_no_parameters_of_a_head(tmp_path):
    for name, options, expected in (
        ("pixels", {}, 0),
        ("onnx", {"file": str(means_graph(tmp_path / "n.onnx"))}, 5),
    ):
        architecture, network = make({"kind": name, **options})
        (tmp_path / name).mkdir()
        save(tmp_path / name, network, architecture)
        assert json.loads((tmp_path / name / "model.json").read_text())["parameters"] == expected
        load_model(tmp_path / name, torch.device("cpu"))


def test_pixels_are_the_features():
    _, network = make({"kind": "pixels"})
    assert torch.equal(network.features(images()), images().flatten(1))
    assert network(images()).shape == (3, 5)


def rows(tmp_path, **row):
    means_graph(tmp_path / "net.onnx")
    return {
        "datasets": {"glyphs": {"source": "glyphs"}},
        "rows": [row],
        "seeds": [0],
        "backbones": {
            "mine": {"kind": "onnx", "file": str(tmp_path / "net.onnx")},
            "gone": {"kind": "timm", "name": NAME, "weights": str(tmp_path / "no.pth")},
        },
    }


def test_what_is_frozen_is_a_row_without_training(tmp_path):
    config = parse_config(rows(tmp_path, backbone=["mine", "pixels"], learner="none"))
    assert [chain.backbone for chain in config.chains] == ["mine", "pixels"]
    assert config.backbone("mine").files == [str(tmp_path / "net.onnx")]
    with pytest.raises(
        InputError, match=r"backbone pixels is frozen: its learner is `none` \(rfs would train it\)"
    ):
        parse_config(rows(tmp_path, backbone="pixels", learner="rfs"))
    with pytest.raises(InputError, match=r"backbone gone: .*no\.pth: no such file"):
        parse_config(rows(tmp_path, backbone="gone", learner="none"))


def test_images_are_what_timm_gives_the_network(tmp_path, body):
    """A large square photograph, as timm's own evaluation transform has it, up to the margin that it cuts off."""
    data = {**timm.data.resolve_model_data_config(body), "crop_pct": 1.0}
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    expected = timm.data.create_transform(**data)(Image.fromarray(image))[None]
    weights = save_weights(body, tmp_path / "w.safetensors")
    architecture, network = make({"kind": "timm", "name": NAME, "weights": str(weights)})
    seen = []
    network.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    save(tmp_path, network, architecture)
    model = load_model(tmp_path, torch.device("cpu"))
    model.network.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.features(model.prepare(torch.from_numpy(image.copy())[None]))
    # timm resizes bytes and rounds, in units of 1/255 / 0.5.
    torch.testing.assert_close(seen[-1], expected, rtol=0, atol=1.1 / 255 / 0.5)
