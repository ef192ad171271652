"""Whether a trained or pretrained row beats what needs no training: raw pixels, and the same network untrained."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROW = ["dataset", "backbone", "search", "learner", "pretrained"]
COLUMNS = {*ROW, "shots", "accuracy_mean"}
TRAIN = "train longer, on more classes, or at another lr"
CHECK = "check its file, mean and std"
PIXELS, UNTRAINED = "pixels", "none"  # by name: as the catalogue has them


def find_weak(summary: Path) -> Iterator[str]:
    """A sentence for each row with trained weights that is not above a baseline, in the mean over its shots.

    Args:
        summary: summary.csv; without it, or where no baseline is among the rows, there is none.
    """
    try:
        table = pd.read_csv(summary)
    except (OSError, ValueError):
        return
    if not set(table.columns) >= COLUMNS:
        return
    means = table.groupby(ROW, sort=False)["accuracy_mean"].mean()
    for (dataset, backbone, search, learner, pretrained), mean in means.items():
        if learner == UNTRAINED and pretrained == "no":
            continue
        for name, baseline in (
            ("raw pixels", (dataset, PIXELS, "fixed", UNTRAINED, "no")),
            ("the same network untrained", (dataset, backbone, search, UNTRAINED, "no")),
        ):
            if baseline in means.index and mean <= means[baseline]:
                yield (
                    f"{dataset}, {backbone}, {search}, {learner}: {mean:.1f} % are no more than the "
                    f"{means[baseline]:.1f} % of {name}; {TRAIN if pretrained == 'no' else CHECK}"
                )
