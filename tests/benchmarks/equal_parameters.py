"""What searches find beyond size: accuracies against those that random cells of as many parameters reach.

Random cells of several numbers of channels give a line, accuracy over the logarithm of parameters; a search's
figure is the mean of its networks' distances from it, with a 95 % interval over seeds that counts the line's own
noise, too.

    PYTHONPATH=tests:scripts python tests/benchmarks/equal_parameters.py results/comparison

A table of tests/benchmarks/measured may stand for the results. A second word is a tabular benchmark, whose random
architectures, trained alike, give the line instead.

    ... equal_parameters.py tests/benchmarks/measured/comparison-cifar-fs.csv cifar-fs-5cells-8ch
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import ttest_ind

from metantk import benchmark
from metantk.benchmark.table import accuracy_column

LINE = "random"
COLUMNS = ("search", "networks", "parameters", "accuracy", "std", "above random", "95 %", "above the line", "95 %")


def main() -> None:
    given = Path(sys.argv[1])
    table = given if given.suffix == ".csv" else given / "tables" / "seeds.csv"
    seeds = pd.read_csv(table).rename(columns={"params": "parameters"})
    if "parameters" not in seeds:
        sys.exit(f"{table}: has no column of parameters")
    kinds = seeds[["dataset", "backbone", "learner"]].drop_duplicates()
    if len(sys.argv) > 2 and len(kinds) > 1:
        sys.exit(f"{table}: has {len(kinds)} data sets, backbones or learners; a benchmark has one of each")
    for (dataset, learner, shots), group in seeds.groupby(["dataset", "learner", "shots"]):
        line = of_benchmark(sys.argv[2], shots) if len(sys.argv) > 2 else group[group["search"] == LINE]
        if (sizes := line["parameters"].nunique()) < 3:
            sys.exit(f"{table}: a line takes 3 sizes of `{LINE}` or more, {dataset} has {sizes}")
        print(f"\n{dataset}, {learner}, {shots}-shot\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for search, part in [(LINE, line), *group[group["search"] != LINE].groupby("search", sort=False)]:
            cells = [search, len(part), round(part["parameters"].mean()), *rounded(mean_and_std(part))]
            if search != LINE and len(part) > 1:
                cells += rounded(difference(line, part)) + rounded(distance(line, part))
            print(f"| {' | '.join(map(str, cells))} |")


def of_benchmark(name: str, shots: int) -> pd.DataFrame:
    """Accuracies and parameters of its architectures, each once."""
    table = benchmark.load(name)
    accuracies = table.architectures[accuracy_column(table, shots)]
    return pd.DataFrame({"accuracy": accuracies, "parameters": table.architectures["parameters"]})


def rounded(values: tuple[float, float]) -> list[float]:
    return [round(value, 1) for value in values]


def mean_and_std(part: pd.DataFrame) -> tuple[float, float]:
    return part["accuracy"].mean(), part["accuracy"].std()


def difference(line: pd.DataFrame, part: pd.DataFrame) -> tuple[float, float]:
    """Mean of `part` minus that of `line`, in points, and half its 95 % interval by Welch's test."""
    interval = ttest_ind(part["accuracy"], line["accuracy"], equal_var=False).confidence_interval()
    return part["accuracy"].mean() - line["accuracy"].mean(), (interval.high - interval.low) / 2


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
