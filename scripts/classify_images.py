"""Tell your own pictures apart with a trained backbone and a few examples of each class.

The support folder holds a folder of pictures for each class (one is enough, five are better); the query folder
holds the pictures to classify. Features of the frozen backbone, divided by their L2 norm, are classified by
logistic regression, as in the evaluation.

Writes a CSV with one row per query: file, class, probability.

Example:
    python scripts/classify_images.py --backbone results/glyphs/3cells-4ch/metantk/seed0 \\
        --support my_examples --query my_pictures --output classes.csv
"""

from pathlib import Path

import pandas as pd
import torch

from metantk import devices, transforms
from metantk.command_line import make_parser, run
from metantk.datasets.folder import read_classes, read_pictures
from metantk.evaluation import fit_classifier, load_backbone
from metantk.storage import InputError, atomic_write, read_json


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--backbone", required=True, type=Path, metavar="DIR", help="output of train_genotype.py")
    parser.add_argument("--support", required=True, type=Path, metavar="DIR", help="a folder per class")
    parser.add_argument("--query", required=True, type=Path, metavar="DIR", help="pictures to classify")
    parser.add_argument("--output", required=True, type=Path, metavar="CSV", help="file to write")
    arguments = parser.parse_args()
    description = arguments.backbone / "backbone.json"
    image_size = read_json(description).get("image_size")
    support = read_classes(arguments.support, image_size=image_size)
    if len(support.class_names) < 2:
        raise InputError(f"{arguments.support}: holds 1 class, but telling apart takes 2 or more")
    files, queries = read_pictures(arguments.query, image_size=image_size)
    device = devices.start()
    backbone = load_backbone(description, arguments.backbone / "backbone.safetensors", device)

    def features(images):
        return backbone.features(transforms.to_float(torch.from_numpy(images).to(device))).cpu().numpy()

    classifier = fit_classifier("logistic_regression", features(support.images), support.labels)
    probabilities = classifier.predict_proba(features(queries))
    table = pd.DataFrame(
        {
            "file": [str(file) for file in files],
            "class": [support.class_names[number] for number in probabilities.argmax(1)],
            "probability": probabilities.max(1).round(4),
        }
    )
    with atomic_write(arguments.output) as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    run(main)
