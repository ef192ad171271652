"""Tell your own images apart with a trained model and a few examples of each class.

The support folder holds a folder of images for each class (one is enough, five are better); the query folder
holds the images to classify, in folders or not. The model is the folder of a training, which classifies by its
learner's own way, or a file of export_backbone.py; support images are taken as they are. An image's class depends
on the support images and on that image alone, and classes weigh alike, however many support images they have.

Probabilities, and which images are out of distribution (of none of the classes), are calibrated on tasks of the
validation classes of the data set that the model was trained on; the log says how well that works there. Without
the data set, probabilities are the plain softmax of the scores, and no image is called out of distribution.

Writes a CSV with one row per query (file, class, probability, whether it is out of distribution, the probability of
each class), and beside it a page of thumbnails, which anybody can check at a glance.

Example:
    python scripts/classify_images.py --model results/glyphs/3cells-4ch/metantk/seed0/rfs \\
        --support my_examples --query my_images --output classes.csv
"""

import logging
from itertools import chain, product
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import numpy as np
import pandas as pd
import torch

from metantk.data.folder import find_class_files, find_query_files, read_classes, read_images
from metantk.data.store import Split
from metantk.deployment.exported import image_size_of, open_model
from metantk.deployment.out_of_distribution import Calibration, closeness, describe_task, nearest, probabilities
from metantk.deployment.own_images import AnyModel, bits_of_images, calibrate_model, calibration_data, make_task
from metantk.deployment.thumbnails import Shown, write_page
from metantk.runtime import devices
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError, atomic_write

log = logging.getLogger("metantk")
SHOWN_SUPPORTS = 8  # of each class, on the page
UNSURE = 0.5  # probability below which a thumbnail is marked


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model", required=True, type=Path, metavar="MODEL", help="output of train_network.py, or an .onnx file"
    )
    parser.add_argument("--support", required=True, type=Path, metavar="DIR", help="a folder per class")
    parser.add_argument("--query", required=True, type=Path, metavar="DIR", help="images to classify")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="prepared data set, whose validation classes calibrate [that of its training, if it is there]",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="instead of stopping at files that are no images"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="CSV", help="file to write")
    parser.add_argument("--page", type=Path, metavar="HTML", help="page of thumbnails [beside the CSV]")
    arguments = parser.parse_args()
    page = arguments.page or arguments.output.with_suffix(".html")
    if page.resolve() == arguments.output.resolve():
        raise InputError(f"--output {arguments.output}: is the page's name, too; name a .csv file")
    for path in (arguments.output, page):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
    read = [arguments.support, arguments.query, arguments.model, *([arguments.data] if arguments.data else [])]
    for path, place in product((arguments.output, page), read):
        if place.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(f"{path}: is or lies in {place}, which is read; name another place")
    model = open_model(arguments.model, devices.start())
    size = image_size_of(model, arguments.model)
    data = calibration_data(arguments.data, model)
    classes = find_class_files(arguments.support).values()
    bits = bits_of_images([*chain.from_iterable(classes), *find_query_files(arguments.query)], data)
    how = {"image_size": size, "leave_out": arguments.skip_unreadable, "bits": bits}
    support, left_out = read_classes(arguments.support, **how)
    ways = len(support.class_names)
    if ways < 2:
        raise InputError(f"{arguments.support}: holds 1 class, but telling apart takes 2 or more")
    _check_distinct(support, arguments.support)
    files, queries, others = read_images(arguments.query, **how)
    for warning in left_out + others:
        log.warning("warning: %s", warning)
    labels = torch.from_numpy(support.labels)
    task = make_task(model, torch.from_numpy(support.images), labels, torch.from_numpy(queries), ways=ways)
    calibration = _calibration(model, arguments.data, support)
    chances = probabilities(model.scores(task)[0], calibration.temperature if calibration else 1.0).cpu().numpy()
    close = closeness(task.support_features()[0], labels.to(model.device), task.query_features()[0], ways=ways)
    is_outside = close.cpu().numpy() < calibration.threshold if calibration else np.zeros(len(files), bool)
    table = _tabulate(files, support.class_names, chances, is_outside if calibration else None)
    with atomic_write(arguments.output) as temporary, atomic_write(page) as temporary_page:
        table.to_csv(temporary, index=False)
        note = _say(calibration, support)
        sections = _sections(arguments.support, files, support.class_names, chances, is_outside)
        write_page(temporary_page, title=f"{len(files)} images, {ways} classes", note=note, sections=sections)
    log.info("%s and %s: %d images, %d out of distribution", arguments.output, page, len(files), is_outside.sum())


def _check_distinct(support: Split, folder: Path) -> None:
    """Refuse the same image as an example of two classes."""
    class_of: dict[bytes, int] = {}
    for image, label in zip(support.images, support.labels.tolist(), strict=True):
        if (first := class_of.setdefault(image.tobytes(), label)) != label:
            names = " and ".join(support.class_names[way] for way in (first, label))
            raise InputError(f"{folder}: classes {names} have an image in common; take it out of one of them")


def _calibration(model: AnyModel, given: Path | None, support: Split) -> Calibration | None:
    ways, shots = len(support.class_names), np.bincount(support.labels).tolist()
    data = calibration_data(given, model)
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
    (log.info if calibration else log.warning)("%s", _say(calibration, support))
    return calibration


def _say(calibration: Calibration | None, support: Split) -> str:
    """What the calibration found, for the log and the page."""
    if calibration is None:
        return (
            "Not calibrated: probabilities are rough, and no image is called out of distribution. Calibration "
            "needs the data set that the model was trained on (--data), with as many validation classes as here."
        )
    found = (
        f"On tasks of {calibration.ways} validation classes with {calibration.shots} examples each, "
        f"{calibration.accuracy:.0f} % of images got their class. Called out of distribution were "
        f"{calibration.true_positive_rate:.0f} % of images of other classes and "
        f"{calibration.false_positive_rate:.0f} % of images of the classes (AUROC {calibration.auroc:.0f} %)."
    )
    shots = int(np.median(np.bincount(support.labels)))
    return f"{found} {describe_task(calibration, ways=len(support.class_names), shots=shots)}".rstrip()


def _tabulate(
    files: list[Path], names: list[str], chances: np.ndarray, is_outside: np.ndarray | None
) -> pd.DataFrame:
    """One row per query; `out_of_distribution` stays empty where nothing is known of it."""
    columns = {
        "file": [str(file) for file in files],
        "class": [names[index] for index in chances.argmax(1)],
        "probability": chances.max(1).round(4),
        "out_of_distribution": [""] * len(files) if is_outside is None else np.where(is_outside, "yes", "no"),
    }
    return pd.DataFrame(columns | {f"p({name})": chances[:, way].round(4) for way, name in enumerate(names)})


def _sections(support: Path, files: list[Path], names: list[str], chances: np.ndarray, is_outside: np.ndarray):
    """First what is out of distribution, then class by class the examples and the images, the least sure first."""
    best, given = chances.max(1), chances.argmax(1)
    if is_outside.any():
        images = [
            Shown(files[k], f"{files[k].name}: {names[given[k]]}? {best[k]:.0%}", "unsure")
            for k in np.flatnonzero(is_outside)
        ]
        yield f"Out of distribution ({len(images)})", images
    examples = find_class_files(support)
    for way, name in enumerate(names):
        chosen = np.flatnonzero((given == way) & ~is_outside)
        shown = [Shown(file, f"example {file.name}", "support") for file in examples[name][:SHOWN_SUPPORTS]]
        for k in chosen[np.argsort(best[chosen], kind="stable")]:
            style = "unsure" if best[k] < UNSURE else "sure"
            shown.append(Shown(files[k], f"{files[k].name}: {best[k]:.0%}", style))
        yield f"{name} ({len(chosen)})", shown


if __name__ == "__main__":
    run(main)
