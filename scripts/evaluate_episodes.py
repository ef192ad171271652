"""Test a trained backbone on few-shot episodes of the test split (RFS; paper, section 6.1 and Appendix E).

For each episode: features of the frozen backbone, divided by their L2 norm, a linear classifier fitted to the
support pictures (several augmented copies of each), its accuracy on the queries. The episodes depend on the seed
in the options and on the data alone, so every backbone sees the same ones.

Writes episodes.csv (one row per episode and number of shots) and evaluation.json (mean and 95 % interval).

Example:
    python scripts/evaluate_episodes.py --data results/glyphs/data --backbone my_backbone \\
        --episodes 200 --output my_evaluation
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from metantk import devices
from metantk.command_line import make_parser, parse_options, progress, run
from metantk.config import EvaluationOptions
from metantk.datasets.store import load_split
from metantk.evaluation import evaluate, load_backbone
from metantk.statistics import confidence_95
from metantk.storage import atomic_write, check_writable, provenance, write_json

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, EvaluationOptions)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument("--backbone", required=True, type=Path, metavar="DIR", help="output of train_genotype.py")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="classes to test on [test]")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of episodes.csv and evaluation.json"
    )
    arguments = parser.parse_args()
    options = parse_options(EvaluationOptions, arguments)
    split = load_split(arguments.data, arguments.split)
    device = devices.start()
    backbone = load_backbone(
        arguments.backbone / "backbone.json", arguments.backbone / "backbone.safetensors", device
    )
    check_writable(arguments.output)
    accuracies = evaluate(backbone, split, options, device, where=f"{arguments.data}, {arguments.split} split")
    by_episode = list(progress(accuracies, total=options.episodes, what="evaluation", unit="episode"))
    rows, results = [], {}
    for shots in options.shots:
        values = np.array([episode[shots] for episode in by_episode])
        rows += [{"shots": shots, "episode": number, "accuracy": value} for number, value in enumerate(values)]
        results[str(shots)] = {"accuracy_mean": float(values.mean()), "ci95": confidence_95(values)}
        log.info("%d-shot: %.2f ± %.2f %%", shots, values.mean(), results[str(shots)]["ci95"])
    with atomic_write(arguments.output / "episodes.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    report = {
        "ways": options.ways,
        "episodes": options.episodes,
        "shots": results,
        **provenance(__file__, options.model_dump(), seed=options.seed, device=devices.describe_device(device)),
    }
    write_json(arguments.output / "evaluation.json", report)


if __name__ == "__main__":
    run(main)
