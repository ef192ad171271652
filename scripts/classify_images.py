"""Tell your own images apart with a trained model and a few examples of each class.

The support folder holds a folder of images for each class (one is enough, five are better); the query folder
holds the images to classify, in folders or not. The model is the folder of a training, which classifies by its
learner's own way, or a file of export_backbone.py; support images are taken as they are. An image's class depends
on the support images and on that image alone, and classes weigh alike, however many support images they have.
A file of export_classifier.py has its classes already, and goes without a support folder.

Probabilities, and which images are out of distribution (of none of the classes), are calibrated on tasks of the
validation classes of the data set that the model was trained on; the log says how well that works there. Without
the data set, probabilities are the plain softmax of the scores, and no image is called out of distribution.

Writes a CSV with one row per query (file, class, probability, whether it is out of distribution, the probability of
each class), and beside it a page of thumbnails, which anybody can check at a glance. --sort-into copies the queries
into a new folder: one folder per class, and one of what is out of distribution.

Examples:
    python scripts/classify_images.py --model results/glyphs/3cells-4ch/metantk/seed0/rfs \\
        --support my_examples --query my_images --output classes.csv
    python scripts/classify_images.py --model birds.onnx --query my_images --output classes.csv --sort-into sorted
"""

import contextlib
import logging
from argparse import Namespace
from itertools import chain
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import numpy as np
import pandas as pd
import torch

from metantk.data.folder import find_class_files, find_query_files, read_images
from metantk.data.image_files import used_bits
from metantk.deployment.classifier import ClassifierFile
from metantk.deployment.exported import image_size_of, open_model
from metantk.deployment.out_of_distribution import closeness, probabilities
from metantk.deployment.own_images import (
    Answers,
    add_calibration_data,
    add_skip_unreadable,
    bits_of_images,
    calibrate_for,
    calibration_data,
    check_places,
    describe,
    make_task,
    read_supports,
    warn_of_white,
)
from metantk.deployment.sorting import require_new, sorted_copies
from metantk.deployment.thumbnails import Shown, is_page, write_page
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
    parser.add_argument(
        "--support", type=Path, metavar="DIR", help="a folder per class; not with a file of export_classifier.py"
    )
    parser.add_argument("--query", required=True, type=Path, metavar="DIR", help="images to classify")
    add_calibration_data(parser)
    add_skip_unreadable(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="CSV", help="file to write")
    parser.add_argument("--page", type=Path, metavar="HTML", help="page of thumbnails [beside the CSV]")
    parser.add_argument(
        "--sort-into", type=Path, metavar="DIR", help="new folder, for copies of the queries by class"
    )
    arguments = parser.parse_args()
    page = arguments.page or arguments.output.with_suffix(".html")
    _check_places(arguments, page)
    files, answers = (_classify if arguments.support else _classify_by_file)(arguments)
    names, is_outside = answers.class_names, answers.is_outside
    with contextlib.ExitStack() as outputs:
        temporary, temporary_page = (outputs.enter_context(atomic_write(path)) for path in (arguments.output, page))
        _tabulate(files, answers).to_csv(temporary, index=False)
        title, note = f"{len(files)} images, {len(names)} classes", answers.note
        write_page(temporary_page, title=title, note=note, sections=_sections(arguments.support, files, answers))
        if arguments.sort_into:
            chosen = [None if is_outside[k] else way for k, way in enumerate(answers.probabilities.argmax(1))]
            outputs.enter_context(sorted_copies(arguments.sort_into, names, files, chosen))
    log.info("%s and %s: %d images, %d out of distribution", arguments.output, page, len(files), is_outside.sum())


def _check_places(arguments: Namespace, page: Path) -> None:
    """Refuse to write over a folder, another file, or where something is read; and what does not go together."""
    for path in (arguments.output, page):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
    read = [path for path in (arguments.support, arguments.query, arguments.model, arguments.data) if path]
    written = [arguments.output, page, *([arguments.sort_into] if arguments.sort_into else [])]
    check_places(written, read)
    for path, suffix in ((arguments.output, ".csv"), (page, ".html")):
        if path.suffix.lower() != suffix:
            raise InputError(f"{path}: name a file that ends in {suffix}")
    if not arguments.page and page.exists() and not is_page(page):
        raise InputError(f"{page}: is there and is no page of thumbnails; name another one with --page")
    if arguments.sort_into:
        require_new(arguments.sort_into)
        for path in (arguments.output, page):
            if arguments.sort_into.resolve() in path.resolve().parents:
                raise InputError(f"{path}: lies in the new folder of --sort-into; name another place")
    if arguments.data and not arguments.support:
        raise InputError(f"--data {arguments.data}: a classifier is calibrated when it is exported; leave it out")


def _classify(arguments: Namespace) -> tuple[list[Path], Answers]:
    """Files of the queries, and the answers of a model by its supports."""
    model = open_model(arguments.model, devices.start())
    size = image_size_of(model, arguments.model)
    classes = find_class_files(arguments.support).values()
    every = [*chain.from_iterable(classes), *find_query_files(arguments.query)]
    bits = bits_of_images(every, calibration_data(arguments.data, model))
    support = read_supports(arguments.support, image_size=size, leave_out=arguments.skip_unreadable, bits=bits)
    files, queries = _read_queries(arguments, size, bits)
    ways, labels = len(support.class_names), torch.from_numpy(support.labels)
    task = make_task(model, torch.from_numpy(support.images), labels, torch.from_numpy(queries), ways=ways)
    calibration = calibrate_for(model, arguments.data, support)
    chances = probabilities(model.scores(task)[0], calibration.temperature if calibration else 1.0)
    close = closeness(task.support_features()[0], labels.to(model.device), task.query_features()[0], ways=ways)
    note = describe(calibration, np.bincount(support.labels))
    return files, Answers(support.class_names, chances.cpu().numpy(), close.cpu().numpy(), note, calibration)


def _classify_by_file(arguments: Namespace) -> tuple[list[Path], Answers]:
    """Files of the queries, and the answers of an exported classifier."""
    if arguments.model.suffix.lower() != ".onnx":
        raise InputError(f"{arguments.model}: needs --support; only a file of export_classifier.py has its classes")
    devices.start(uses_device=False)
    classifier = ClassifierFile(arguments.model)
    found = used_bits(find_query_files(arguments.query))
    warn_of_white(found, classifier.bits, "the classifier's supports")
    bits = classifier.bits or found
    files, queries = _read_queries(arguments, classifier.image_size, bits)
    answers = classifier.answer(queries)
    (log.info if answers.calibration else log.warning)("%s", answers.note)
    return files, answers


def _read_queries(arguments: Namespace, size: int, bits: int | None) -> tuple[list[Path], np.ndarray]:
    how = {"image_size": size, "leave_out": arguments.skip_unreadable, "bits": bits}
    files, queries, left_out = read_images(arguments.query, **how)
    for warning in left_out:
        log.warning("warning: %s", warning)
    return files, queries


def _tabulate(files: list[Path], answers: Answers) -> pd.DataFrame:
    """One row per query; `out_of_distribution` stays empty where nothing is known of it."""
    names, chances = answers.class_names, answers.probabilities
    outside = np.where(answers.is_outside, "yes", "no") if answers.calibration else [""] * len(files)
    columns = {
        "file": [str(file) for file in files],
        "class": [names[index] for index in chances.argmax(1)],
        "probability": chances.max(1).round(4),
        "out_of_distribution": outside,
    }
    return pd.DataFrame(columns | {f"p({name})": chances[:, way].round(4) for way, name in enumerate(names)})


def _sections(support: Path | None, files: list[Path], answers: Answers):
    """First what is out of distribution, then class by class the examples and the images, the least sure first."""
    names, is_outside = answers.class_names, answers.is_outside
    best, given = answers.probabilities.max(1), answers.probabilities.argmax(1)
    if is_outside.any():
        images = [
            Shown(files[k], f"{files[k].name}: {names[given[k]]}? {best[k]:.0%}", "unsure")
            for k in np.flatnonzero(is_outside)
        ]
        yield f"Out of distribution ({len(images)})", images
    examples = find_class_files(support) if support else {}
    for way, name in enumerate(names):
        chosen = np.flatnonzero((given == way) & ~is_outside)
        shown = [Shown(file, f"example {file.name}", "support") for file in examples.get(name, [])[:SHOWN_SUPPORTS]]
        for k in chosen[np.argsort(best[chosen], kind="stable")]:
            style = "unsure" if best[k] < UNSURE else "sure"
            shown.append(Shown(files[k], f"{files[k].name}: {best[k]:.0%}", style))
        yield f"{name} ({len(chosen)})", shown


if __name__ == "__main__":
    run(main)
