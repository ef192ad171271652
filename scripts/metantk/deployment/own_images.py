"""One's own images and a trained model: a task of a few examples, its answers, and how sure they are."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.data.folder import read_classes
from metantk.data.image_files import used_bits
from metantk.data.store import SPLITS, Split, checksum_of, load_split, read_manifest
from metantk.deployment.exported import OnnxModel
from metantk.deployment.out_of_distribution import Calibration, calibrate, describe_task, nearest
from metantk.models import Model, Tasks
from metantk.runtime.files import InputError

log = logging.getLogger("metantk")
AnyModel = Model | OnnxModel
IMAGES_PER_CLASS = 40  # of the validation classes, at most, that calibrate


class Answers(NamedTuple):
    """What a classifier says of images.

    Attributes:
        class_names: of the supports.
        probabilities: `(images, ways)`.
        closeness: of each image to the class that it is closest to, `(images,)`.
        note: what its calibration found.
        calibration: None where there was nothing to calibrate with.
    """

    class_names: list[str]
    probabilities: np.ndarray
    closeness: np.ndarray
    note: str
    calibration: Calibration | None

    @property
    def is_outside(self) -> np.ndarray:
        """Whether each image is out of distribution, as far as that is known, `(images,)`."""
        return self.closeness < (self.calibration.threshold if self.calibration else -np.inf)


def add_calibration_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="prepared data set, whose validation classes calibrate [that of its training, if it is there]",
    )


def add_skip_unreadable(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="instead of stopping at files that are no images"
    )


def check_places(written: Iterable[Path], read: Iterable[Path]) -> None:
    """Refuse to write over, or among, what is read.

    Raises:
        InputError: a path is one that is read, or lies in it.
    """
    for path, place in product(written, read):
        if place.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(f"{path}: is or lies in {place}, which is read; name another place")


def read_supports(folder: Path, *, image_size: int, leave_out: bool, bits: int | None) -> Split:
    """The support images, a folder per class; a warning is logged for each that is left out.

    Raises:
        InputError: as of `read_classes`, there is one class only, or an image is in two of them.
    """
    support, left_out = read_classes(folder, image_size=image_size, leave_out=leave_out, bits=bits)
    for warning in left_out:
        log.warning("warning: %s", warning)
    if len(support.class_names) < 2:
        raise InputError(f"{folder}: holds 1 class, but telling apart takes 2 or more")
    class_of: dict[bytes, int] = {}
    for image, label in zip(support.images, support.labels.tolist(), strict=True):
        if (first := class_of.setdefault(image.tobytes(), label)) != label:
            names = " and ".join(support.class_names[way] for way in (first, label))
            raise InputError(f"{folder}: classes {names} have an image in common; take it out of one of them")
    return support


def make_task(model: AnyModel, supports: Tensor, labels: Tensor, queries: Tensor, *, ways: int) -> Tasks:
    """One task, uint8 `(images, height, width, 3)` in, answered with the examples as they are."""
    supports, queries = model.prepare(supports), model.prepare(queries)
    labels = labels.to(model.device)
    return Tasks(
        ways=ways,
        labels=labels,
        classifier="logistic_regression",
        support_images=lambda: supports[None],
        query_images=lambda: queries[None],
        support_features=lambda: model.features(supports)[None],
        query_features=lambda: model.features(queries)[None],
        augmented_features=lambda: (model.features(supports)[None], labels),
        transductive=False,
        size=(1, len(queries)),
    )


def calibration_data(given: Path | None, model: AnyModel) -> Path | None:
    """The prepared data set that was given, or else the one that the model was trained on, if it is there still.

    Raises:
        InputError: what was given is not there.
    """
    if given is not None:
        if not (given / "manifest.json").is_file():
            raise InputError(f"--data {given}: holds no data set (no manifest.json)")
        return given
    named = _recorded_data(model)
    return named if named and _is_of_training(named, model) else None


def _recorded_data(model: AnyModel) -> Path | None:
    """What lies where the data set of the training lay."""
    named = model.facts.get("data")
    is_there = isinstance(named, str) and all(Path(named, part).exists() for part in (*SPLITS, "manifest.json"))
    return Path(named) if is_there else None


def _is_of_training(data: Path, model: AnyModel) -> bool:
    """Whether a data set is that of the training, and not another one that took its place."""
    return checksum_of(read_manifest(data)) == model.facts.get("data_sha256")


def warn_of_data(given: Path | None, model: AnyModel) -> None:
    """Say where calibration is not what it seems: with training classes, or not with what lies at the path."""
    if given is None:
        if (named := _recorded_data(model)) and not _is_of_training(named, model):
            log.warning("warning: %s: is not the data set of the training: not used; see --data", named)
        return
    known = set(model.facts.get("classes") or []) & set(read_manifest(given)["splits"]["val"]["classes"])
    if known:
        log.warning(
            "warning: %s: validation classes that the model was trained on (%s): it looks surer than it is",
            given,
            ", ".join(sorted(known)[:5]),
        )


def warn_of_white(found: int | None, known: int | None, whose: str) -> None:
    """Say that 16-bit images use more bits than those of `whose` images, by which they are scaled."""
    if found and known and found > known:
        log.warning(
            "warning: 16-bit images use %d bits, those of %s use %d: brighter ones are white", found, whose, known
        )


def bits_of_images(files: Iterable[Path], data: Path | None) -> int | None:
    """Bits by which 16-bit images are scaled: those of the data set that the model was trained on, if it has some.

    Args:
        files: the images, supports and queries alike.
        data: a prepared data set.
    """
    found = used_bits(files)
    trained = read_manifest(data)["bits"] if data and found else None
    warn_of_white(found, trained, str(data))
    if found and not trained:
        log.info("16-bit images are scaled by the %d bits that they use", found)
    return trained or found


def calibrate_model(
    model: AnyModel,
    data: Path,
    *,
    ways: int,
    shots: int | Sequence[int],
    part: str = "val",
    module: ModuleType | None = None,
) -> Calibration:
    """Calibrate a model's answers on the validation classes of a prepared data set.

    Args:
        shots: supports of a class, or of each class where they are unequal in number.
        module: the learner that answers, instead of the model's own.

    Raises:
        InputError: they are of another size than the model takes, or too few.
    """
    split = load_split(data, part)
    if split.images.shape[1] != model.facts["image_size"]:
        raise InputError(
            f"{data}: images of {split.images.shape[1]} pixels, but the model takes {model.facts['image_size']}"
        )
    of_class = [np.flatnonzero(split.labels == label)[:IMAGES_PER_CLASS] for label in np.unique(split.labels)]
    indices = np.sort(np.concatenate(of_class))
    images, labels = torch.from_numpy(split.images[indices]), split.labels[indices]
    prepared = model.prepare(images)
    features = model.features(prepared)

    def answer(support: np.ndarray, own: Tensor, query: np.ndarray, ways: int) -> Tensor:
        task = Tasks(
            ways=ways,
            labels=own.to(model.device),
            classifier="logistic_regression",
            support_images=lambda: prepared[support][None],
            query_images=lambda: prepared[query][None],
            support_features=lambda: features[support][None],
            query_features=lambda: features[query][None],
            augmented_features=lambda: (features[support][None], own.to(model.device)),
            transductive=False,
        )
        return module.scores(model, task)[0] if module else model.scores(task)[0]

    return calibrate(features, labels, answer, ways=ways, shots=shots, seed=0)


def calibrate_for(model: AnyModel, given: Path | None, support: Split) -> Calibration | None:
    """A calibration for tasks like this one; None, with a warning, where there is nothing to calibrate with.

    Args:
        given: a prepared data set; else that of the model's training, if it is there, or what an exported file has.
    """
    shots = np.bincount(support.labels).tolist()
    ways, data = len(shots), calibration_data(given, model)
    warn_of_data(given, model)
    calibration = None
    if data is not None:
        try:
            calibration = calibrate_model(model, data, ways=ways, shots=shots)
        except InputError as error:  # a meta-learned head answers no other number of ways, for instance
            if given is not None:
                raise
            log.warning("%s", error)
    else:
        calibration = nearest(getattr(model, "calibrations", []), ways=ways, shots=int(np.median(shots)))
    (log.info if calibration else log.warning)("%s", describe(calibration, shots))
    return calibration


def describe(calibration: Calibration | None, supports: Sequence[int]) -> str:
    """What the calibration found, for the log and the page, and what to expect of the task at hand.

    Args:
        supports: number of support images of each class.
    """
    if calibration is None:
        return (
            "Not calibrated: probabilities are rough, and no image is called out of distribution. Calibration "
            "needs the data set of the training (--data), with twice as many validation classes as here."
        )
    found = (
        f"On tasks of {calibration.ways} validation classes with {calibration.shots} examples each, "
        f"{calibration.accuracy:.0f} % of images got their class. Called out of distribution were "
        f"{calibration.true_positive_rate:.0f} % of images of other classes and "
        f"{calibration.false_positive_rate:.0f} % of images of the classes (AUROC {calibration.auroc:.0f} %)."
    )
    return f"{found} {describe_task(calibration, supports)}".rstrip()
