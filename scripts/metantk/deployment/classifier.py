"""A classifier to ship: one ONNX file from images to probabilities, which needs no support images any more.

It has the learner's answer to one task, as `classifier` of the learner's module gives it, the temperature of its
calibration, and the closeness to the nearest class, below which an image is out of distribution.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metantk.data import transforms
from metantk.data.store import Split
from metantk.deployment import exported
from metantk.deployment.joined import write_around
from metantk.deployment.out_of_distribution import Calibration, closeness, directions, probabilities
from metantk.deployment.own_images import Answers, describe, make_task
from metantk.models import FORWARD_PIXELS, Model, OnFeatures
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.runtime.typed_files import Record, check_record

OUTPUTS = ["probabilities", "closeness"]
TOLERANCE = 1e-4  # between PyTorch's probabilities and the file's
PREPARATION = (
    "the upright image in RGB, what is transparent on white, 16-bit pixels shifted right by bits - 8, at most 255; "
    "its middle square, resized by Pillow's bicubic filter (Image.resize with box), divided by 255; "
    "normalisation is inside"
)


class Classifier(nn.Module):
    """What the file computes.

    Args:
        answer: normalised images to scores, of the learner's `classifier`.
        means: directions of the classes, `(ways, feature_dim)`.
    """

    def __init__(self, model: Model, answer: nn.Module, temperature: float, means: Tensor) -> None:
        super().__init__()
        self.network, self.answer, self.temperature = model.network, answer, temperature
        self.shares_features = isinstance(answer, OnFeatures) and answer.network is model.network
        self.register_buffer("means", means.clone())
        for name, values in (("mean", model.mean), ("std", model.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`(images, 3, height, width)` in 0..1 to `(images, ways)` and `(images, 1)`."""
        normal = self.normalised(images)
        features = self.network.features(normal)
        return self.outputs(features, self.answer.scores(features) if self.shares_features else self.answer(normal))

    def normalised(self, images: Tensor) -> Tensor:
        """As the network takes them."""
        return (images - self.mean) / self.std

    def outputs(self, features: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and closeness from `(images, feature_dim)` and `(images, ways)`."""
        close = functional.normalize(features, dim=1) @ self.means.mT
        return torch.softmax(scores * self.temperature, dim=1), close.amax(1, keepdim=True)


def check_classifier(model: Model) -> None:
    """Refuse a model that has no classifier to export, before anything costs.

    Raises:
        InputError: its backbone cannot be exported, or its learner's answer is no fixed function of an image.
    """
    exported.check_exportable(model)
    if model.facts["architecture"]["kind"] == "onnx" and model.network.graph.batch is not None:
        raise InputError(
            f"{model.network.path}: takes {model.network.graph.batch} images at once, a classifier any number of "
            "them: export the network with a free number of images"
        )
    if not hasattr(model.module, "classifier"):
        raise InputError(
            f"learner {model.learner.kind}: its module has no `classifier`, its answer as a fixed function of one "
            "image, so that there is none to export; classify_images.py --support takes the model itself"
        )


def write_classifier(
    model: Model, supports: Split, calibration: Calibration | None, path: Path, facts: dict
) -> float:
    """Write the file; the largest difference of its probabilities from those of the model with its supports.

    Args:
        supports: of each class, at the model's size of images.
        path: temporary, for what is refused may have been written.
        facts: as of `describe_model`, and `bits` of 16-bit images.

    Raises:
        InputError: PyTorch cannot write it, or the file answers otherwise than the model.
    """
    ways, side = len(supports.class_names), model.facts["image_size"]
    labels = torch.from_numpy(supports.labels)
    noise = torch.randint(256, (4, side, side, 3), generator=generator("noise"), dtype=torch.uint8)
    probes = torch.cat([torch.from_numpy(supports.images), noise])
    task = make_task(model, torch.from_numpy(supports.images), labels, probes, ways=ways)
    temperature = calibration.temperature if calibration else 1.0
    support = task.support_features()[0]
    classifier = Classifier(
        model, model.module.classifier(model, task), temperature, directions(support, labels, ways=ways)
    )
    if model.facts["architecture"]["kind"] == "onnx":
        write_around(classifier, model, path, OUTPUTS)
    else:
        names, where = [exported.INPUT, *OUTPUTS], exported.where(model)
        exported.write_module(classifier, exported.example_images(model), path, names=names, where=where)
    exported.write_facts(path, facts | _facts(supports, calibration))
    try:
        found, close = ClassifierFile(path).run(probes)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{exported.where(model)}: what was written {reason}") from error
    expected = probabilities(model.scores(task)[0], temperature)
    difference = max(
        (found - expected).abs().max().item(),
        (close - closeness(support, labels, task.query_features()[0], ways=ways)).abs().max().item(),
    )
    if not difference <= TOLERANCE:
        raise InputError(
            f"{model.facts['architecture']['kind']}, learner {model.learner.kind}: the file's probabilities are "
            f"{difference:.1e} off the model's; nothing is written"
        )
    return difference


def _facts(supports: Split, calibration: Calibration | None) -> dict:
    names = supports.class_names
    return {
        "kind": exported.CLASSIFIER,
        "preparation": PREPARATION,
        "output": f"probabilities: float32 (images, {len(names)}), each row sums to 1; closeness: float32 (images, "
        "1), the cosine to the nearest class; an image below the threshold is out of distribution",
        "class_names": names,
        "supports": np.bincount(supports.labels).tolist(),
        "threshold": calibration.threshold if calibration else None,
        "calibration": calibration.model_dump() if calibration else None,
    }


class ClassifierFacts(Record):
    """What is asked for of a classifier's metadata."""

    kind: Literal["classifier"]
    class_names: list[str] = Field(min_length=2)
    supports: list[Annotated[int, Field(ge=1)]] = Field(min_length=2)
    bits: int | None = Field(None, ge=8, le=16)
    calibration: Calibration | None = None


class ClassifierFile:
    """An exported classifier.

    Attributes:
        image_size: height and width of its images, in pixels.
        class_names: in the order of the probabilities.
        supports: number of support images of each class.
        bits: by which 16-bit images are scaled; None where its supports were of 8.
        calibration: None where there was nothing to calibrate with.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: it is no file of export_classifier.py.
        """
        self.graph, facts = exported.read_facts(path, program="export_classifier.py")
        if facts.get("kind") != exported.CLASSIFIER:
            raise InputError(f"{path}: is a backbone, which has no classes; give support images with --support")
        record = check_record(facts, ClassifierFacts, where=f"{path}: metadata", advice="; export again")
        side = facts["image_size"]
        found = [
            values.shape[1] for values in self.graph.first_outputs(np.zeros((1, 3, side, side), np.float32), 2)
        ]
        if found != [len(record.class_names), 1]:
            raise InputError(f"{path}: names {len(record.class_names)} classes, but gives {found} numbers an image")
        self.image_size, self.class_names = facts["image_size"], record.class_names
        self.supports, self.bits, self.calibration = record.supports, record.bits, record.calibration

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `(images, height, width, 3)` to probabilities `(images, ways)` and closeness `(images,)`."""
        at_once = max(1, FORWARD_PIXELS // self.image_size**2)
        parts = [self.graph.first_outputs(transforms.to_float(part).numpy(), 2) for part in images.split(at_once)]
        chances, close = (torch.from_numpy(np.concatenate(output)) for output in zip(*parts, strict=True))
        return chances, close[:, 0]

    def answer(self, images: np.ndarray) -> Answers:
        """The answers to uint8 `(images, height, width, 3)`."""
        chances, close = (values.numpy() for values in self.run(torch.from_numpy(images)))
        note = describe(self.calibration, self.supports)
        return Answers(self.class_names, chances, close, note, self.calibration)
