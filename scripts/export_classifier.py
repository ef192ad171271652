"""Write a trained model with the classes of its support images as one ONNX file: a classifier to ship.

The support folder holds a folder of images for each class, as of classify_images.py, which takes the file without
them. The file takes any number of images, float32 `(images, 3, height, width)` with red, green and blue in 0..1. It
gives the probability of each class, calibrated, and the closeness to the nearest class. Its metadata say how images
are prepared, the names of the classes, the calibration, and the closeness below which an image is out of
distribution.

The classifier is that of the model's learner: a linear classifier, ridge regression, a support vector machine,
NIL's votes, or a network adapted to the support images. Learners that normalise by batches are exported with the
statistics of the support images, as classify_images.py answers with them. An ONNX backbone is part of the file. A
learner whose answer is no fixed function of an image is refused.

--page writes a web page beside it, which classifies images on the device that opens it: without a server, without
network. It takes onnxruntime-web, which `make web` fetches.

Example:
    python scripts/export_classifier.py results/glyphs/3cells-4ch/metantk/seed0/rfs \\
        --support my_examples --output birds.onnx --page birds.html

Time: half a minute on one core, most of it PyTorch's exporter.
"""

import contextlib
import logging
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch

from metantk.data.folder import find_class_files
from metantk.deployment.classifier import check_classifier, write_classifier
from metantk.deployment.exported import describe_model, image_size_of
from metantk.deployment.own_images import (
    add_calibration_data,
    add_skip_unreadable,
    bits_of_images,
    calibrate_for,
    calibration_data,
    check_places,
    read_supports,
)
from metantk.deployment.web_page import read_runtime, write_page
from metantk.models import DESCRIPTION, load_model
from metantk.runtime import devices
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError, atomic_write, read_json

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output of train_network.py")
    parser.add_argument("--support", required=True, type=Path, metavar="DIR", help="a folder per class")
    add_calibration_data(parser)
    add_skip_unreadable(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .onnx file to write")
    parser.add_argument("--page", type=Path, metavar="HTML", help="web page to write, with the classifier in it")
    arguments = parser.parse_args()
    for path, suffix in ((arguments.output, ".onnx"), (arguments.page, ".html")):
        if path and path.suffix != suffix:
            raise InputError(f"{path}: name a file that ends in {suffix}")
    read = [path for path in (arguments.model, arguments.support, arguments.data) if path]
    check_places([path for path in (arguments.output, arguments.page) if path], read)
    if arguments.model.suffix == ".onnx":
        raise InputError(f"{arguments.model}: is exported already; name the folder of its training")
    devices.start(uses_device=False)
    runtime = read_runtime() if arguments.page else None
    model = load_model(arguments.model, torch.device("cpu"))
    size = image_size_of(model, arguments.model)
    check_classifier(model)
    files = [file for of_class in find_class_files(arguments.support).values() for file in of_class]
    bits = bits_of_images(files, calibration_data(arguments.data, model))
    support = read_supports(arguments.support, image_size=size, leave_out=arguments.skip_unreadable, bits=bits)
    calibration = calibrate_for(model, arguments.data, support)
    facts = describe_model(model, read_json(arguments.model / DESCRIPTION)) | {"bits": bits}
    with contextlib.ExitStack() as outputs:
        temporary = outputs.enter_context(atomic_write(arguments.output))
        difference = write_classifier(model, support, calibration, temporary, facts)
        if runtime:
            page = outputs.enter_context(atomic_write(arguments.page))
            write_page(page, temporary, runtime, title=arguments.page.stem)
    ways = len(support.class_names)
    log.info("%s: %d classes, probabilities equal the model's to %.1e", arguments.output, ways, difference)


if __name__ == "__main__":
    run(main)
