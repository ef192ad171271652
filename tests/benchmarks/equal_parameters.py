"""What searches find beyond size: accuracies against those that random cells of as many parameters reach.

Random cells of several numbers of channels give a line, accuracy over the logarithm of parameters; a search's
figure is the mean of its networks' distances from it, with a 95 % interval over seeds that counts the line's own
noise, too.

    PYTHONPATH=tests:scripts python tests/benchmarks/equal_parameters.py results/comparison
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LINE = "random"
HEADER = "| search | networks | points above the line | 95 % |\n|---|---|---|---|"


def main() -> None:
    results = Path(sys.argv[1])
    seeds = pd.read_csv(results / "tables" / "seeds.csv")
    seeds["parameters"] = [parameters(results, row) for row in seeds.itertuples()]
    for (dataset, learner, shots), group in seeds.groupby(["dataset", "learner", "shots"]):
        print(f"\n{dataset}, {learner}, {shots}-shot\n\n{HEADER}")
        for search, part in group[group["search"] != LINE].groupby("search", sort=False):
            above, half = distance(group[group["search"] == LINE], part)
            print(f"| {search} | {len(part)} | {above:.1f} | {half:.1f} |")


def parameters(results: Path, row) -> int:
    """Of the backbone of a chain."""
    folder = results / row.dataset / row.backbone / row.search / f"seed{row.seed}" / row.learner
    return json.loads((folder / "model.json").read_text())["parameters"]


def distance(line: pd.DataFrame, part: pd.DataFrame) -> tuple[float, float]:
    """Mean distance of `part` from the line of least squares through `line`, in points, and half its interval."""
    design, wanted = (np.stack([np.ones(len(rows)), np.log(rows["parameters"])], axis=1) for rows in (line, part))
    coefficients, *_ = np.linalg.lstsq(design, line["accuracy"], rcond=None)
    noise = ((line["accuracy"] - design @ coefficients) ** 2).sum() / (len(line) - 2)
    rests = part["accuracy"] - wanted @ coefficients
    middle = wanted.mean(0)
    variances = np.array(
        [rests.var(ddof=1) / len(rests), noise * middle @ np.linalg.inv(design.T @ design) @ middle]
    )
    freedom = variances.sum() ** 2 / (variances**2 / [len(rests) - 1, len(line) - 2]).sum()
    return float(rests.mean()), float(stdtrit(freedom, 0.975) * np.sqrt(variances.sum()))


if __name__ == "__main__":
    main()
