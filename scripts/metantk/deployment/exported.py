"""Trained backbones for others: as an ONNX file, and as features of images in two lines of Python."""

import inspect
import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metantk.data import transforms
from metantk.data.arrays import resize
from metantk.deployment.out_of_distribution import Calibration
from metantk.learners import rfs
from metantk.models import FORWARD_PIXELS, Model, Tasks, load_model
from metantk.runtime import devices
from metantk.runtime.files import InputError, parse_json
from metantk.runtime.onnx_files import Graph, read_onnx
from metantk.runtime.typed_files import Record, check_record

INPUT, OUTPUT = "images", "features"
FACTS = "metantk"  # the metadata that holds all facts as JSON
CLASSIFIER = "classifier"  # kind of a file of export_classifier.py, in its facts


class Exported(nn.Module):
    """What an exported file computes: normalisation, the backbone, features divided by their L2 norm."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        for name, values in (("mean", model.mean), ("std", model.std)):
            self.register_buffer(name, torch.tensor(values, device=model.device).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """`(images, 3, height, width)` in 0..1 to `(images, feature_dim)`."""
        features = self.network.features((images - self.mean) / self.std)
        return functional.normalize(features, dim=1)


def to_onnx(model: Model, path: Path, facts: dict) -> None:
    """Write an ONNX file that takes any number of images.

    Args:
        facts: what a user of the file should know; kept in it as text.

    Raises:
        InputError: the model is an ONNX file itself, its features depend on the batch, or PyTorch cannot write it.
    """
    if model.facts["architecture"]["kind"] == "onnx":
        raise InputError(f"{model.facts['architecture']['file']}: is an ONNX file already")
    check_exportable(model)
    write_module(Exported(model), example_images(model), path, names=[INPUT, OUTPUT], where=where(model))
    write_facts(path, facts)


def check_exportable(model: Model) -> None:
    """Refuse a backbone whose features an ONNX file cannot compute.

    Raises:
        InputError: they depend on the batch.
    """
    if any(isinstance(part, nn.BatchNorm2d) and part.running_mean is None for part in model.network.modules()):
        raise InputError(
            f"{where(model)}: normalises by the images that come together, so that an image by itself has no "
            "features to export"
        )


def where(model: Model) -> str:
    """What errors call the model."""
    return f"backbone {model.facts['architecture']['kind']}"


def example_images(model: Model) -> Tensor:
    """Two images of the model's size, `(2, 3, height, width)` in 0..1."""
    side = model.facts["image_size"]
    return torch.rand(2, 3, side, side, device=model.device)


def write_module(module: nn.Module, example: Tensor, path: Path, *, names: Sequence[str], where: str) -> None:
    """Write a module that takes any number of rows.

    Args:
        example: two rows of its input.
        names: of its input, and of what it gives.
        where: what errors call it.

    Raises:
        InputError: PyTorch cannot write it.
    """
    for exporter in ("onnxscript", "onnx_ir"):  # a line for each node that they rewrite
        logging.getLogger(exporter).setLevel(logging.WARNING)
    (argument,) = inspect.signature(module.forward).parameters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's about itself
            torch.onnx.export(
                module.eval(),
                (example,),
                path,
                input_names=[names[0]],
                output_names=list(names[1:]),
                dynamic_shapes={argument: {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"{where}: cannot be exported ({str(error).splitlines()[0][:200]})") from None


def write_facts(path: Path, facts: dict) -> None:
    """Keep what a user of an ONNX file should know in it, as text."""
    # Imported here: it takes seconds.
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(
        graph, {FACTS: json.dumps(facts)} | {name: _as_text(value) for name, value in facts.items()}
    )
    onnx.save(graph, path)


def describe_model(model: Model, content: dict) -> dict:
    """What a user of a file should know, from model.json."""
    origin = content["architecture"].get("origin", {})
    side = model.facts["image_size"]
    return {
        "image_size": side,
        "input": f"{INPUT}: float32 (images, 3, {side}, {side}), red, green, blue in 0..1",
        "row": {
            **{key: origin.get(key) for key in ("dataset", "backbone", "search", "seed")},
            "learner": content.get("learner_name", model.learner.kind),
        },
        "classes": content.get("classes", []),
        "licence": content.get("licence", "unknown"),
        "weights_sha256": content["weights_sha256"],
    }


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Calibrations(Record):
    """What is asked for of an exported file's metadata, besides the size of its images."""

    calibrations: list[Calibration] = Field([])


def read_facts(path: Path, *, program: str) -> tuple[Graph, dict]:
    """An exported file and what its metadata say.

    Raises:
        InputError: it is no such file, which `program` writes.
    """
    graph = read_onnx(path, image_size=84).graph
    try:
        facts = parse_json(graph.metadata[FACTS])
        is_whole = facts["image_size"] == graph.input_size
    except (KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise InputError(f"{path}: is no file of {program}, whose metadata say how it is used")
    return graph, facts


class OnnxModel:
    """An exported file, used as `metantk.models.Model` is: features, and tasks answered as `rfs` answers them."""

    module: ModuleType = rfs
    device = torch.device("cpu")
    mean, std = [0.0] * 3, [1.0] * 3  # the file normalises

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: it is no file of export_backbone.py.
        """
        self.graph, self.facts = read_facts(path, program="export_backbone.py")
        if self.facts.get("kind") == CLASSIFIER:
            raise InputError(
                f"{path}: is a classifier, which has its classes and gives no features; leave out --support"
            )
        self.calibrations = check_record(
            self.facts, Calibrations, where=f"{path}: metadata", advice="; export again"
        ).calibrations

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 `(images, height, width, 3)` to what the file takes."""
        return transforms.to_float(images)

    def features(self, images: Tensor) -> Tensor:
        """`(images, 3, height, width)` in 0..1 to `(images, feature_dim)`."""
        at_once = max(1, FORWARD_PIXELS // self.facts["image_size"] ** 2)
        return torch.cat([torch.from_numpy(self.graph(part.numpy())) for part in images.split(at_once)])

    def scores(self, tasks: Tasks) -> Tensor:
        """How well each query fits each class, `(episodes, queries, ways)`."""
        return self.module.scores(self, tasks)


def open_model(path: Path, device: torch.device) -> Model | OnnxModel:
    """A model by the folder of its training, or by an exported file.

    Raises:
        InputError: it is neither, or damaged.
    """
    return OnnxModel(path) if path.suffix.lower() == ".onnx" else load_model(path, device)


def image_size_of(model: Model | OnnxModel, path: Path) -> int:
    """Height and width of the images that it was trained on, in pixels.

    Raises:
        InputError: it does not say.
    """
    if model.facts.get("image_size") is None:
        raise InputError(f"{path}: does not say which images it was trained on; train again")
    return model.facts["image_size"]


class Extractor:
    """Features of images, on the CPU unless METANTK_DEVICE names a device.

    Attributes:
        image_size: height and width of the images that it was trained on, in pixels.
        feature_dim: of the features.
    """

    def __init__(self, path: object) -> None:
        """
        Args:
            path: the folder of a trained model, or an exported file.

        Raises:
            InputError: it is neither, or damaged.
        """
        device = devices.pick_device() if "METANTK_DEVICE" in os.environ else torch.device("cpu")
        self._model = open_model(Path(path), device)
        self.image_size = image_size_of(self._model, Path(path))
        is_file = isinstance(self._model, OnnxModel)
        self.feature_dim = self._model.graph.feature_dim if is_file else self._model.network.feature_dim

    def features(self, images: np.ndarray | Tensor) -> np.ndarray:
        """uint8 `(images, height, width, 3)` to float32 `(images, feature_dim)`, each of length 1.

        Images of another size are brought to `image_size` as prepare_dataset.py does it: the middle square.

        Raises:
            InputError: they are something else.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise InputError(f"images are {images.dtype} {images.shape}, not uint8 (images, height, width, 3)")
        if not len(images):
            return np.empty((0, self.feature_dim), np.float32)
        prepared = self._model.prepare(torch.from_numpy(np.ascontiguousarray(resize(images, self.image_size))))
        features = functional.normalize(self._model.features(prepared), dim=1)
        return features.float().cpu().numpy()
