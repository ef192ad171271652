"""The tables of the paper from finished runs: one row per data set, run, method and number of shots."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from metantk.config import METHODS
from metantk.statistics import confidence_95, deviation
from metantk.storage import InputError, read_json

SUMMARY_COLUMNS = [
    "dataset",
    "run",
    "method",
    "seeds",
    "params",
    "search_seconds",
    "shots",
    "accuracy_mean",
    "accuracy_std",
    "ci95",
]
TITLES = {
    "metantk": "MetaNTK-NAS",
    "te-nas": "TE-NAS",
    "linear-regions": "Linear Region",
    "random": "Random Cell",
}
# The marks of Table 2: column title and the criterion behind it.
MARKS = {"MetaNTK": "meta_ntk_condition", "NTK": "ntk_condition", "Linear Region": "linear_regions"}


class Published(NamedTuple):
    """A row of the paper's Table 1: accuracy in percent, mean and deviation (of RFS and others: 95 % interval)."""

    dataset: str
    model: str
    architecture: str
    cells: str
    params: str
    search_cost: str
    one_shot: str
    five_shot: str


MINI, TIERED = "mini-imagenet", "tiered-imagenet"
TABLE1 = [
    Published(MINI, "MAML", "Conv4", "", "30k", "", "48.70 ± 1.84", "63.11 ± 0.92"),
    Published(MINI, "ANIL", "Conv4", "", "30k", "", "48.0 ± 0.7", "62.2 ± 0.5"),
    Published(MINI, "MetaOptNet", "ResNet-12", "", "12.5M", "", "62.64 ± 0.61", "78.63 ± 0.46"),
    Published(MINI, "RFS", "ResNet-12", "", "12.5M", "", "62.02 ± 0.63", "79.64 ± 0.44"),
    Published(MINI, "AutoMeta", "Cells", "", "100k", "2688 h", "57.6 ± 0.2", "74.7 ± 0.2"),
    Published(MINI, "T-NAS++", "Cells", "2", "27k", "48 h", "54.11 ± 1.35", "69.59 ± 0.85"),
    Published(MINI, "MetaNAS", "Cells", "5", "1.1M", "168 h", "63.1 ± 0.3", "79.5 ± 0.2"),
    Published(MINI, "MetaNAS (retrained)", "Cells", "5", "2.01M", "168 h", "64.24 ± 0.11", "79.75 ± 0.13"),
    Published(MINI, "MetaNTK-NAS", "Cells", "5", "1.77M", "1.54 h", "63.88 ± 0.81", "80.07 ± 0.45"),
    Published(MINI, "MetaNAS (retrained)", "Cells", "8", "3.53M", "168 h", "63.88 ± 0.23", "79.88 ± 0.14"),
    Published(MINI, "MetaNTK-NAS", "Cells", "8", "3.21M", "1.92 h", "64.26 ± 0.14", "80.35 ± 0.12"),
    Published(TIERED, "MAML", "Conv4", "", "30k", "", "51.67 ± 1.81", "70.30 ± 1.75"),
    Published(TIERED, "MetaOptNet", "ResNet-12", "", "12.7M", "", "65.99 ± 0.72", "81.56 ± 0.53"),
    Published(TIERED, "RFS", "ResNet-12", "", "12.7M", "", "69.74 ± 0.72", "84.41 ± 0.55"),
    Published(TIERED, "MetaNAS (retrained)", "Cells", "5", "2.17M", "168 h", "70.16 ± 0.09", "84.99 ± 0.22"),
    Published(TIERED, "MetaNTK-NAS", "Cells", "5", "2.22M", "2.20 h", "71.12 ± 0.49", "85.71 ± 0.22"),
    Published(TIERED, "MetaNAS (retrained)", "Cells", "8", "3.70M", "168 h", "72.32 ± 0.02", "86.48 ± 0.06"),
    Published(TIERED, "MetaNTK-NAS", "Cells", "8", "4.78M", "2.73 h", "72.37 ± 0.79", "86.43 ± 0.53"),
]


class Part(NamedTuple):
    """What one search, training and evaluation left in `.../<dataset>/<run>/<method>/seed<k>/`."""

    dataset: str
    run: str
    method: str
    seed: int
    search: dict
    backbone: dict
    episodes: pd.DataFrame


def read_part(folder: Path) -> Part:
    """Read a finished part.

    Raises:
        InputError: a file is missing or damaged, or the folder is not named as in the docstring of `Part`.
    """
    names = folder.absolute().parts[-4:]
    if len(names) < 4 or not names[3].removeprefix("seed").isdigit():
        raise InputError(f"{folder}: is not named <dataset>/<run>/<method>/seed<k>")
    try:
        episodes = pd.read_csv(folder / "episodes.csv")
        _ = episodes[["shots", "episode", "accuracy"]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder / 'episodes.csv'}: cannot be used ({error}); evaluate again") from None
    search = _read_facts(folder / "search.json", {"seconds", "options"})
    backbone = _read_facts(folder / "backbone.json", {"parameters"})
    return Part(names[0], names[1], names[2], int(names[3].removeprefix("seed")), search, backbone, episodes)


def _read_facts(path: Path, keys: set[str]) -> dict:
    facts = read_json(path)
    missing = keys - set(facts) if isinstance(facts, dict) else keys
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; run its stage again")
    return facts


def per_seed(parts: list[Part]) -> pd.DataFrame:
    """One row per part and number of shots: its mean accuracy over episodes, in percent."""
    rows = []
    for part in parts:
        for shots, episodes in part.episodes.groupby("shots"):
            rows.append(
                {
                    "dataset": part.dataset,
                    "run": part.run,
                    "method": part.method,
                    "seed": part.seed,
                    "shots": shots,
                    "accuracy": episodes["accuracy"].mean(),
                }
            )
    return pd.DataFrame(rows)


def summarise(parts: list[Part]) -> pd.DataFrame:
    """One row per data set, run, method and number of shots, in the order of `parts`.

    `accuracy_std` is over seeds of the mean over episodes (as in the paper); `ci95` is over episodes, each
    averaged over the seeds (all seeds see the same episodes); `params` and `search_seconds` are means.
    """
    groups: dict[tuple[str, str, str], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.dataset, part.run, part.method), []).append(part)
    rows = []
    for (dataset, run, method), members in groups.items():
        for shots in members[0].episodes["shots"].unique():
            accuracies = np.stack([_accuracies(member, shots) for member in members])
            row = [
                dataset,
                run,
                method,
                len(members),
                round(np.mean([member.backbone["parameters"] for member in members])),
                round(float(np.mean([member.search["seconds"] for member in members])), 3),
                int(shots),
                accuracies.mean(),
                deviation(accuracies.mean(1)),
                confidence_95(accuracies.mean(0)),
            ]
            rows.append(dict(zip(SUMMARY_COLUMNS, row, strict=True)))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _accuracies(part: Part, shots: int) -> np.ndarray:
    chosen = part.episodes[part.episodes["shots"] == shots].sort_values("episode")
    return chosen["accuracy"].to_numpy()


def make_table1(summary: pd.DataFrame) -> pd.DataFrame:
    """The layout of Table 1: our rows, and the paper's for the data sets that it has."""
    shots = sorted(summary["shots"].unique())
    rows = []
    for dataset in summary["dataset"].unique():
        for row in TABLE1:
            if row.dataset == dataset:
                accuracies = {1: row.one_shot, 5: row.five_shot}
                rows.append(
                    {
                        "Data": dataset,
                        "Model": row.model,
                        "Arch.": row.architecture,
                        "Cells": row.cells,
                        "Params": row.params,
                        "Search cost": row.search_cost,
                        **{f"{count}-shot": accuracies.get(count, "") for count in shots},
                        "Source": "paper",
                    }
                )
        chosen = summary[summary["dataset"] == dataset]
        for (run, method), group in chosen.groupby(["run", "method"], sort=False):
            rows.append(
                {
                    "Data": dataset,
                    "Model": TITLES.get(method, method),
                    "Arch.": f"Cells, {run.split('-')[1].removesuffix('ch')} channels",
                    "Cells": run.split("cells")[0],
                    "Params": format_count(group["params"].iloc[0]),
                    "Search cost": format_seconds(group["search_seconds"].iloc[0]),
                    **{f"{count}-shot": _accuracy(group, count) for count in shots},
                    "Source": "this run",
                }
            )
    return pd.DataFrame(rows)


def make_table2(summary: pd.DataFrame, criteria: dict[str, list[str]]) -> pd.DataFrame:
    """The layout of Table 2: methods, what each searches with, accuracies by shots and run.

    Args:
        criteria: by method, what it searched with.
    """
    rows = []
    for (dataset, method), group in summary.groupby(["dataset", "method"], sort=False):
        used = criteria.get(method, METHODS.get(method, []))
        row = {"Data": dataset, "Model": TITLES.get(method, method)}
        row |= {title: "✓" if criterion in used else "" for title, criterion in MARKS.items()}
        for shots in sorted(group["shots"].unique()):
            for run in group["run"].unique():
                row[f"{shots}-shot, {run}"] = _accuracy(group[group["run"] == run], shots)
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(group: pd.DataFrame, shots: int) -> str:
    """`mean ± deviation over seeds`; one seed has no deviation."""
    row = group[group["shots"] == shots].iloc[0]
    if np.isnan(row["accuracy_std"]):
        return f"{row['accuracy_mean']:.2f}"
    return f"{row['accuracy_mean']:.2f} ± {row['accuracy_std']:.2f}"


def format_count(count: float) -> str:
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def format_seconds(seconds: float) -> str:
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 3600:.2f} h"


def bold_best(table: pd.DataFrame, mark: str) -> pd.DataFrame:
    """The same table with the largest mean of each accuracy column, within each data set, wrapped by `mark`.

    Args:
        mark: a template such as `**{}**`.
    """
    marked = table.copy()
    for column in [column for column in table if "-shot" in column]:
        means = pd.to_numeric(table[column].str.split(" ").str[0], errors="coerce")
        for _, group in means.groupby(table["Data"]):
            if group.notna().any():
                marked.loc[group.idxmax(), column] = mark.format(table.loc[group.idxmax(), column])
    return marked


def to_markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """A booktabs tabular, ready for \\input."""
    text = table.to_latex(index=False, escape=False, column_format="l" * len(table.columns))
    for sign, macro in (("±", r"$\pm$"), ("✓", r"$\checkmark$"), ("_", r"\_")):
        text = text.replace(sign, macro)
    return text
