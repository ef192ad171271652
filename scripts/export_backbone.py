"""Write a trained backbone as an ONNX file, for programs without Python or PyTorch.

The file takes any number of images, float32 `(images, 3, height, width)` with red, green and blue in 0..1, of
the size that the network was trained on, and gives one row of features per image: normalisation before the
network and division by the L2 norm after it are inside. Its metadata say what it is: size of the images, classes
that it was trained on, row of the tables, licence of the data, checksum of the weights, and, with the prepared data
set at hand, how sure a classifier on it may be (`metantk.deployment.out_of_distribution`).

Example:
    python scripts/export_backbone.py results/glyphs/3cells-4ch/metantk/seed0/rfs --output model.onnx

Time: half a minute on one core, most of it PyTorch's exporter.
"""

import logging
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch

from metantk.deployment.exported import OUTPUT, OnnxModel, describe_model, image_size_of, to_onnx
from metantk.deployment.out_of_distribution import TooFewError
from metantk.deployment.own_images import add_calibration_data, calibrate_model, calibration_data, warn_of_data
from metantk.learners import rfs
from metantk.models import DESCRIPTION, Model, load_model
from metantk.runtime import devices
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError, atomic_write, read_json

log = logging.getLogger("metantk")
TASKS = [(ways, shots) for ways in (2, 5, 10) for shots in (1, 5)]  # that the file is calibrated for
TOLERANCE = 1e-4  # between PyTorch's features and the file's


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="output of train_network.py")
    add_calibration_data(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .onnx file to write")
    arguments = parser.parse_args()
    if arguments.output.suffix != ".onnx":
        raise InputError(f"--output {arguments.output}: name a file that ends in .onnx")
    devices.start(uses_device=False)
    model = load_model(arguments.model, torch.device("cpu"))
    image_size_of(model, arguments.model)
    warn_of_data(arguments.data, model)
    facts = describe_model(model, read_json(arguments.model / DESCRIPTION)) | {
        "output": f"{OUTPUT}: float32 (images, {model.network.feature_dim}), of L2 norm 1",
        "calibrations": _calibrations(model, calibration_data(arguments.data, model)),
    }
    with atomic_write(arguments.output) as temporary:
        to_onnx(model, temporary, facts)
        difference = _compare(model, temporary)
    log.info("%s: features equal PyTorch's to %.1e", arguments.output, difference)


def _calibrations(model: Model, data: Path | None) -> list[dict]:
    if data is None:
        log.warning("no prepared data set to calibrate with: no image will be called out of distribution")
        return []
    found: list[dict] = []
    for ways, shots in TASKS:
        # A file answers by a linear classifier on its features, whatever the model's learner does.
        try:
            entry = calibrate_model(model, data, ways=ways, shots=shots, module=rfs).model_dump()
        except TooFewError as error:
            log.warning("%s: %s; the file will not say which images are unlike any", data, error)
            return []
        if entry not in found:
            found.append(entry)
    return found


def _compare(model: Model, path: Path) -> float:
    """The largest difference between the features of some noise by the file and by PyTorch.

    Raises:
        InputError: it is too large.
    """
    side = model.facts["image_size"]
    noise = torch.randint(256, (3, side, side, 3), generator=devices.generator("noise"), dtype=torch.uint8)
    theirs = OnnxModel(path)
    found = theirs.features(theirs.prepare(noise))
    expected = torch.nn.functional.normalize(model.features(model.prepare(noise)), dim=1)
    difference = (found - expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise InputError(f"{path.name}: its features are {difference:.1e} off PyTorch's; nothing is written")
    return difference


if __name__ == "__main__":
    run(main)
