"""Published accuracies on CIFAR-FS and FC100 beside ours: same data set, network and method.

`published/benchmarks.csv` holds them, with the source of each. A row names the options that make a network and a
learner the published ones; rows of other widths, scaled to a small machine, have no published result beside them.
`checked` says whether the figure was read in the paper or its code; others are second-hand.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from metantk.results.records import ModelDescription
from metantk.results.tables import Chain, labels
from metantk.statistics import confidence_95

WAYS, IMAGE_SIZE = 5, 32  # of all published tasks and images here
PUBLISHED = Path(__file__).with_name("published") / "benchmarks.csv"
RFS_CLASSIFIER = "logistic_regression"
COLUMNS = [
    "dataset",
    "row",
    "training",
    "shots",
    "accuracy",
    "ci95",
    "published",
    "published_ci95",
    "difference",
    "verdict",
    "method",
    "network",
    "source",
    "checked",
]


def compare_with_published(groups: dict[tuple, list[Chain]], summary: pd.DataFrame) -> pd.DataFrame:
    """One line for each of our rows and published result of the same data set, network, method and shots.

    Accuracies are in percent, intervals are half-widths of 95 % intervals over episodes, in points. The verdict is
    "within" where the two intervals overlap, else "above" or "below" the published result.

    Args:
        groups: chains of each row.
        summary: of the same rows, for their names.
    """
    published = pd.read_csv(PUBLISHED)
    lines = []
    for key, chains in groups.items():
        named = labels(summary[summary["dataset"] == key[0]])
        for entry in published[published["dataset"] == key[0]].itertuples():
            is_tested = entry.shots in chains[0].episodes["shots"].unique()
            if is_tested and all(_is_of(entry, chain) for chain in chains):
                lines.append(_line(key, named[key[1:]], entry, chains))
    return pd.DataFrame(lines, columns=COLUMNS).round(3)


def _is_of(entry, chain: Chain) -> bool:
    """Whether a chain's task, network and learner are the published ones, as far as the entry names them."""
    model = chain.model
    if (chain.evaluation.ways, model.image_size) != (WAYS, IMAGE_SIZE):
        return False
    if model.learner["kind"] == "rfs" and chain.evaluation.options.classifier_of(entry.shots) != RFS_CLASSIFIER:
        return False
    if model.learner["kind"] == "maml" and entry.shots not in model.learner["shots"]:
        return False  # published ones are trained with as many shots as they are tested with
    return all(
        found.get(name) == value
        for wanted, found in ((entry.architecture, model.architecture.model_dump()), (entry.learner, model.learner))
        for name, value in json.loads(wanted).items()
    )


def _line(key: tuple, row: str, entry, chains: list[Chain]) -> list:
    accuracies = np.stack([chain.accuracies(entry.shots) for chain in chains])
    mean, interval = accuracies.mean(), confidence_95(accuracies.mean(0))
    difference = mean - entry.accuracy
    apart = abs(difference) > interval + entry.ci95
    verdict = ("above" if difference > 0 else "below") if apart else "within"
    ours = [key[0], row, _training(chains[0].model), entry.shots, mean, interval]
    theirs = [entry.method, entry.network, entry.source, entry.checked]
    return [*ours, entry.accuracy, entry.ci95, difference, verdict, *theirs]


def _training(model: ModelDescription) -> str:
    """How long it was, on how many images: a published learner may have had more of both."""
    learner = model.learner
    steps = f" of {learner['steps_per_epoch']} meta-steps" if "steps_per_epoch" in learner else ""
    epochs = [f"{learner['epochs']} epochs{steps}"] if "epochs" in learner else []
    images = [f"{model.training_images:,} images"] if model.training_images else []
    return ", ".join(epochs + images)
