"""Tell your own pictures apart with a trained model and a few examples of each class.

The support folder holds a folder of pictures for each class (one is enough, five are better); the query folder
holds the pictures to classify. The model answers by its learner's own way, as in the
evaluation; support pictures are taken as they are.

Writes a CSV with one row per query: file, class, probability.

Example:
    python scripts/classify_images.py --model results/glyphs/3cells-4ch/metantk/seed0/rfs \\
        --support my_examples --query my_pictures --output classes.csv
"""

import logging
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import pandas as pd
import torch

from metantk import devices
from metantk.command_line import make_parser, run
from metantk.datasets.folder import read_classes, read_pictures
from metantk.models import Model, Tasks, load_model
from metantk.storage import InputError, atomic_write

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="output of train_network.py")
    parser.add_argument("--support", required=True, type=Path, metavar="DIR", help="a folder per class")
    parser.add_argument("--query", required=True, type=Path, metavar="DIR", help="pictures to classify")
    parser.add_argument(
        "--leave-out-unreadable", action="store_true", help="instead of stopping at files that are no pictures"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="CSV", help="file to write")
    arguments = parser.parse_args()
    model = load_model(arguments.model, devices.start())
    image_size = model.facts["image_size"]
    how = {"image_size": image_size, "leave_out": arguments.leave_out_unreadable}
    support, left_out = read_classes(arguments.support, **how)
    if len(support.class_names) < 2:
        raise InputError(f"{arguments.support}: holds 1 class, but telling apart takes 2 or more")
    files, queries, others = read_pictures(arguments.query, **how)
    for warning in left_out + others:
        log.warning("warning: %s", warning)
    scores = model.scores(_task(model, support, torch.from_numpy(queries)))[0]
    probabilities = torch.softmax(scores, dim=1).cpu().numpy()
    table = pd.DataFrame(
        {
            "file": [str(file) for file in files],
            "class": [support.class_names[number] for number in probabilities.argmax(1)],
            "probability": probabilities.max(1).round(4),
        }
    )
    with atomic_write(arguments.output) as temporary:
        table.to_csv(temporary, index=False)


def _task(model: Model, support, queries: torch.Tensor) -> Tasks:
    """One task of these supports and queries, uint8 `(pictures, height, width, 3)`."""
    labels = torch.from_numpy(support.labels).to(model.device)
    supports, queries = (model.prepare(images) for images in (torch.from_numpy(support.images), queries))
    return Tasks(
        ways=len(support.class_names),
        labels=labels,
        classifier="logistic_regression",
        support_images=lambda: supports[None],
        query_images=lambda: queries[None],
        support_features=lambda: model.features(supports)[None],
        query_features=lambda: model.features(queries)[None],
        augmented_features=lambda: (model.features(supports)[None], labels),
    )


if __name__ == "__main__":
    run(main)
