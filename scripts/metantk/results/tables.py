"""The tables of the paper from finished chains: one row per data set, backbone, search, learner and shots.

What a chain is, its files say (architecture.json within model.json, search.json, evaluation.json); names of folders
are not read.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from metantk.options.base import Options, parse
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.options.searches.best_of import BestOfOptions
from metantk.options.searches.prune import PruneOptions
from metantk.results.records import Architecture, Evaluation, ModelDescription, SearchReport, read_episodes
from metantk.runtime.files import InputError, parse_json
from metantk.runtime.typed_files import read_record
from metantk.statistics import confidence_95, deviation, welch_95

LATEX = {sign: rf"\{sign}" for sign in "&%$#_{}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {"±": r"$\pm$", "✓": r"$\checkmark$", "×": r"$\times$"}
KEY = ["dataset", "backbone", "search", "learner"]
SUMMARY_COLUMNS = [
    *KEY,
    "model",
    "pretrained",
    "seeds",
    "params",
    "multiply_accumulates",
    "latency_ms",
    "search_seconds",
    "search_operations",
    "device",
    "shots",
    "accuracy_mean",
    "accuracy_std",
    "ci95",
    "notes",
]
PUBLISHED = Path(__file__).with_name("published") / "table1.csv"
# The marks of the paper's Table 2, always there; other criteria follow by name.
MARKS = {"meta_ntk_condition": "MetaNTK", "ntk_condition": "NTK", "linear_regions": "Linear Region"}
OVER_SEEDS = "std over seeds"
SHORTEST_SEARCH = 0.5  # seconds; what takes less was sampled, given or fixed
# Of one line; a row without a title of its search is called by its learner.
Title = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,200}$")]


@dataclass(frozen=True)
class Evaluated:
    """A model on the test classes of a data set, its own or another.

    Attributes:
        folder: of evaluation.json.
        episodes: columns `shots`, `episode`, `accuracy`.
    """

    folder: Path
    model: ModelDescription
    evaluation: Evaluation
    episodes: pd.DataFrame

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Of the model's row, see `KEY`."""
        origin = self.model.architecture.origin
        return origin.dataset, origin.backbone, origin.search, self.model.learner_name

    @property
    def seed(self) -> int:
        return self.model.architecture.origin.seed

    @property
    def tested_on(self) -> str:
        transfer = self.evaluation.transfer
        return transfer.tested_on if transfer else self.key[0]

    def accuracies(self, shots: int) -> np.ndarray:
        """Percent, by episode."""
        return self.episodes["accuracy"].to_numpy()[self.episodes["shots"].to_numpy() == shots]


@dataclass(frozen=True)
class Chain(Evaluated):
    """What one search, training and evaluation left; search.json lies above `folder`."""

    search: SearchReport


def read_evaluated(folder: Path, of_model: Path) -> Evaluated:
    """Read an evaluation, in one folder, of a model, in the same or another.

    Raises:
        InputError: a file is missing or damaged, or the evaluation is of another model.
    """
    evaluation = read_record(folder / "evaluation.json", Evaluation, stage="evaluate_episodes")
    model = read_record(of_model / "model.json", ModelDescription, stage="train_network")
    if (evaluation.weights_sha256, evaluation.parameters) != (model.weights_sha256, model.parameters):
        raise InputError(f"{folder}: evaluation.json is of another model; run evaluate_episodes again")
    return Evaluated(folder, model, evaluation, read_episodes(folder / "episodes.csv", evaluation))


def read_chain(folder: Path) -> Chain:
    """Read what a chain has left.

    Raises:
        InputError: a file is missing or damaged, or is of another run than the others.
    """
    evaluated = read_evaluated(folder, folder)
    model, evaluation = evaluated.model, evaluated.evaluation
    search = read_record(folder.parent / "search.json", SearchReport, stage="search_architecture")
    found = read_record(folder.parent / "architecture.json", Architecture, stage="search_architecture")
    if not search.is_of(found.origin):
        raise InputError(f"{folder.parent}: search.json is not of architecture.json; run search_architecture again")
    if model.architecture != found:
        raise InputError(f"{folder}: model.json is of another architecture than it found; run train_network again")
    if evaluation.data_sha256 != model.data_sha256 or evaluation.split != "test":
        raise InputError(
            f"{folder}: evaluation.json is not of its data set's test split; run evaluate_episodes again"
        )
    return Chain(**vars(evaluated), search=search)


def group_chains(chains: Iterable[Chain]) -> dict[tuple, list[Chain]]:
    """Chains of each row, by `KEY`, in their order.

    Raises:
        InputError: the chains of a row, or the rows of a data set, were not evaluated on the same episodes of the
            same images, or the chains of a row differ by more than their seeds.
    """
    groups: dict[tuple, list[Chain]] = {}
    evaluated: dict[str, tuple[Path, dict]] = {}
    for chain in chains:
        groups.setdefault(chain.key, []).append(chain)
        check_episodes(chain.key[0], chain.folder, chain.evaluation, evaluated)
    for members in groups.values():
        seeds = [member.seed for member in members]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"{members[0].folder}: its row has a seed twice")
        for member in members[1:]:
            _check_options(members[0], member)
    return groups


def _check_options(first: Chain, other: Chain) -> None:
    """Refuse chains of one row that were not made alike."""
    made, otherwise = _how_made(first), _how_made(other)
    for key in made | otherwise:
        if made.get(key) != otherwise.get(key):
            raise InputError(
                f"{first.folder} and {other.folder}: are seeds of one row, but {key} is {made.get(key)} and"
                f" {otherwise.get(key)}; run one again"
            )


def _how_made(chain: Chain) -> dict[str, object]:
    """What all seeds of a row share."""
    sections = {
        "backbone": chain.model.architecture.model_dump(exclude={"genotype", "origin"}),
        "search": chain.search.options.model_dump(exclude_unset=True),
        "learner": chain.model.learner,
    }
    return {f"{section}.{key}": value for section, options in sections.items() for key, value in options.items()}


def check_episodes(
    dataset: str, folder: Path, evaluation: Evaluation, evaluated: dict[str, tuple[Path, dict]]
) -> None:
    """Compare an evaluation's images and episodes with those of the first one on its data set.

    Args:
        evaluated: the first of each data set, its folder and episodes; a new one is added.

    Raises:
        InputError: they are others.
    """
    episodes = evaluation.options.model_dump(include={"episodes", "ways", "shots", "queries", "seed"})
    images = {"images": evaluation.data_sha256}
    first, expected = evaluated.setdefault(dataset, (folder, episodes | images))
    if not episodes.items() <= expected.items():
        raise InputError(f"{folder} and {first}: were not evaluated on the same episodes; evaluate one again")
    if not images.items() <= expected.items():
        raise InputError(f"{folder} and {first}: were evaluated on different images of {dataset}")


def per_seed(groups: dict[tuple, list[Chain]]) -> pd.DataFrame:
    """One row per chain and number of shots: its size, and its mean accuracy over episodes, in percent.

    Nothing that is measured by a clock: two runs give the same bytes.
    """
    rows = [
        [
            *key,
            chain.seed,
            chain.model.parameters_in_tests,
            chain.model.multiply_accumulates,
            shots,
            chain.accuracies(shots).mean(),
        ]
        for key, members in groups.items()
        for chain in members
        for shots in sorted(chain.evaluation.options.shots)
    ]
    return pd.DataFrame(rows, columns=[*KEY, "seed", "params", "multiply_accumulates", "shots", "accuracy"])


class Titles(Options):
    """What tables call searches and learners, by name; a name without a title stands for itself."""

    searches: dict[str, Title] = Field({})
    learners: dict[str, Title] = Field({})

    def model(self, search: str, learner: str) -> str:
        """A row is called by its search, and by its learner where nothing was searched."""
        return self.searches.get(search, search) or self.learners.get(learner, learner)

    def row(self, model: ModelDescription) -> str:
        """The name of a model's row; a pretrained one is called so, and by its backbone's name."""
        origin = model.architecture.origin
        if model.initial_weights:
            return f"Pretrained ({origin.backbone})"
        return self.model(origin.search, model.learner_name)


def parse_titles(text: str) -> Titles:
    """From JSON, `{"searches": {name: title}, "learners": {name: title}}`.

    Raises:
        InputError: it is something else.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise InputError(f"--titles: is not JSON ({error})") from None
    return parse(Titles, values, where="--titles")


def summarise(groups: dict[tuple, list[Chain]], titles: Titles) -> pd.DataFrame:
    """One row per data set, backbone, search, learner and number of shots.

    `accuracy_std` is over seeds of the mean over episodes (as in the paper); `ci95` is over episodes, each
    averaged over the seeds (all seeds see the same episodes); `params` (those that tests use: without a head that
    is thrown away), `multiply_accumulates` (for the features of an image; 0: not counted), `latency_ms` (of those
    features in onnxruntime, on one thread of the CPU that trained; empty: not measured), `search_seconds` and
    `search_operations` (floating-point operations, two for a multiply-accumulate) are means; `device` is that of
    the search; `pretrained` is `yes` or `no`; `notes` are those of the function of that name.
    """
    rows = []
    for key, members in groups.items():
        for shots, accuracies in _accuracies_by_shots(members).items():
            row = [
                *key,
                titles.row(members[0].model),
                "yes" if members[0].model.initial_weights else "no",
                len(members),
                round(np.mean([member.model.parameters_in_tests for member in members])),
                round(np.mean([member.model.multiply_accumulates for member in members])),
                mean_latency(members),
                round(float(np.mean([member.search.seconds for member in members])), 3),
                round(np.mean([member.search.floating_point_operations for member in members])),
                " ".join(sorted({member.search.device for member in members})),
                shots,
                accuracies.mean(),
                deviation(accuracies.mean(1)),
                confidence_95(accuracies.mean(0)),
                notes(members),
            ]
            rows.append(dict(zip(SUMMARY_COLUMNS, row, strict=True)))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def mean_latency(members: list[Chain]) -> float:
    """In milliseconds; NaN where one was not measured."""
    return float(np.mean([np.nan if (found := member.model.latency_ms) is None else found for member in members]))


def notes(members: list[Chain]) -> str:
    """Whether queries of a row are classified together, and what its trainings warned of."""
    found = ["transductive"] if members[0].model.transductive else []
    warned = [member for member in members if member.model.warnings]
    if warned:
        text = warned[0].model.warnings[0]
        found.append(f"{len(warned)} of {len(members)} trainings warned, seed {warned[0].seed}: {text}")
    return "; ".join(found)


def labels(summary: pd.DataFrame) -> dict[tuple, str]:
    """A name for each row of a data set that tells it apart from the others, by (backbone, search, learner).

    Args:
        summary: of one data set.
    """
    rows = summary.drop_duplicates(KEY)
    named = {}
    for row in rows.itertuples():
        alike = rows[rows["model"] == row.model]
        parts = [row.model]
        parts += [row.backbone] if alike["backbone"].nunique() > 1 else []
        parts += [row.learner] if alike["learner"].nunique() > 1 else []
        parts += [row.search] if alike["search"].nunique() > 1 else []
        named[row.backbone, row.search, row.learner] = ", ".join(parts)
    return named


def make_table1(summary: pd.DataFrame, groups: dict[tuple, list[Chain]]) -> pd.DataFrame:
    """The layout of Table 1: our rows, below the paper's where the data set is one of its two."""
    shots = sorted(summary["shots"].unique())
    published = pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)
    rows = []
    for dataset in summary["dataset"].unique():
        rows += [_published_row(row, shots) for row in published[published["dataset"] == dataset].itertuples()]
        of_dataset = summary[summary["dataset"] == dataset]
        ours = {key: _our_row(group, groups[key], shots) for key, group in of_dataset.groupby(KEY, sort=False)}
        named, told_apart_by = labels(of_dataset), ("Model", "Learner", "Arch.", "Cells")
        looks = Counter(tuple(row[part] for part in told_apart_by) for row in ours.values())
        for key, row in ours.items():
            is_alike = looks[tuple(row[part] for part in told_apart_by)] > 1
            rows.append(row | {"Model": named[key[1:]]} if is_alike else row)
    return pd.DataFrame(rows)


def _published_row(row, shots: list[int]) -> dict:
    accuracies = {1: row.one_shot, 5: row.five_shot}
    return {
        "Data": row.dataset,
        "Model": row.model,
        "Learner": "",
        "Arch.": row.architecture,
        "Cells": row.cells,
        "Params": row.parameters,
        "Multiply-accumulates": "",
        "Latency": "",
        "Search cost": row.search_cost,
        "Search FLOPs": "",
        "Device": row.device,
        **{f"{count}-shot": accuracies.get(count, "") for count in shots},
        "±": row.spread,
        "Notes": "",
        "Source": "paper",
    }


def _our_row(group: pd.DataFrame, chains: list[Chain], shots: list[int]) -> dict:
    first, architecture = group.iloc[0], chains[0].model.architecture
    searched = first["search_seconds"] >= SHORTEST_SEARCH
    return {
        "Data": first["dataset"],
        "Model": first["model"],
        "Learner": first["learner"],
        "Arch.": architecture.origin.backbone_title,
        "Cells": "" if architecture.cells is None else str(architecture.cells),
        "Params": format_count(first["params"]),
        "Multiply-accumulates": format_operations(first["multiply_accumulates"]),
        "Latency": "" if np.isnan(first["latency_ms"]) else f"{first['latency_ms']:.3g} ms",
        "Search cost": format_seconds(first["search_seconds"]) if searched else "",
        "Search FLOPs": format_operations(first["search_operations"]) if searched else "",
        "Device": first["device"] if searched else "",
        **{f"{count}-shot": _accuracy(group, count) for count in shots},
        "±": f"{OVER_SEEDS} ({first['seeds']})" if first["seeds"] > 1 else "one seed",
        "Notes": first["notes"],
        "Source": "this run",
    }


def make_table2(summary: pd.DataFrame, groups: dict[tuple, list[Chain]]) -> pd.DataFrame:
    """The layout of Table 2: rows whose cells were found, by what, and their accuracies by shots and backbone."""
    found = {
        key: members[0] for key, members in groups.items() if members[0].model.architecture.genotype is not None
    }
    weights = {key: _weights(chain) for key, chain in found.items()}
    used = dict.fromkeys(criterion for of_row in weights.values() for criterion in of_row)
    columns = MARKS | {name: name for name in used if name not in MARKS}
    rows = []
    lines = summary.drop_duplicates(["dataset", "search", "learner"])
    looks = Counter(zip(lines["dataset"], lines["model"], lines["learner"], strict=True))
    for (dataset, search, learner), group in summary.groupby(["dataset", "search", "learner"], sort=False):
        keys = [key for key in found if (key[0], key[2], key[3]) == (dataset, search, learner)]
        if not keys:
            continue
        model = group["model"].iloc[0]
        name = f"{model}, {search}" if looks[dataset, model, learner] > 1 else model
        row = {"Data": dataset, "Model": name, "Learner": learner}
        row |= {title: _mark(weights[keys[0]].get(criterion)) for criterion, title in columns.items()}
        for shots in sorted(group["shots"].unique()):
            for backbone in group["backbone"].unique():
                row[f"{shots}-shot, {backbone}"] = _accuracy(group[group["backbone"] == backbone], shots)
        rows.append(row)
    if not rows:
        return pd.DataFrame(columns=["Data", "Model", "Learner", *columns.values()])
    return pd.DataFrame(rows).fillna("")


def _weights(chain: Chain) -> dict[str, float]:
    """What a search was led by, as its options say: criteria by name, each with its weight.

    Raises:
        InputError: the options are not those of a search that measures criteria.
    """
    kinds = {
        "prune": PruneOptions,
        "bayesian-optimisation": BayesianOptimisationOptions,
        "best-of": BestOfOptions,
    }
    options = chain.search.options
    if options.kind not in kinds:
        return {}
    where = f"{chain.folder.parent / 'search.json'}: options"
    try:
        return parse(kinds[options.kind], options.model_dump(exclude_unset=True), where=where).weights
    except InputError as error:
        raise InputError(f"{error}; run search_architecture again") from None


def _mark(weight: float | None) -> str:
    if weight is None:
        return ""
    return "✓" if weight == 1 else f"✓ × {weight:g}"


def differences(summary: pd.DataFrame, groups: dict[tuple, list[Chain]]) -> pd.DataFrame:
    """Every two rows of a data set: the difference of their accuracies and whether it is significant.

    `ci95_episodes` is half the 95 % t-interval of the difference over the shared episodes, each averaged over the
    seeds; `ci95_seeds` the same over seeds (Welch), which takes two seeds of each; both in percentage points.
    `significant` (at 95 %) says whether the difference exceeds both.
    """
    rows = []
    named = {dataset: labels(group) for dataset, group in summary.groupby("dataset")}
    accuracies = {key: _accuracies_by_shots(chains) for key, chains in groups.items()}
    for one, other in combinations(groups, 2):
        if one[0] != other[0]:
            continue
        for shots in accuracies[one]:
            first, second = accuracies[one][shots], accuracies[other][shots]
            difference = first.mean() - second.mean()
            episodes = confidence_95(first.mean(0) - second.mean(0))
            seeds = welch_95(first.mean(1), second.mean(1))
            known = not np.isnan(seeds)
            larger = "yes" if abs(difference) > max(episodes, seeds) else "no"
            significant = larger if known else "unknown: needs 2 seeds"
            names = [named[one[0]][key[1:]] for key in (one, other)]
            rows.append([one[0], *names, shots, difference, episodes, seeds, significant])
    columns = ["dataset", "row", "other", "shots", "difference", "ci95_episodes", "ci95_seeds", "significant"]
    return pd.DataFrame(rows, columns=columns).round(3)


def _accuracies_by_shots(chains: list[Chain]) -> dict[int, np.ndarray]:
    """Percent `(seeds, episodes)` of a row, by number of shots."""
    shots = sorted(chains[0].evaluation.options.shots)
    return {count: np.stack([chain.accuracies(count) for chain in chains]) for count in shots}


def _accuracy(group: pd.DataFrame, shots: int) -> str:
    """`mean ± std over seeds`; one seed has no std."""
    chosen = group[group["shots"] == shots]
    if chosen.empty:
        return ""
    row = chosen.iloc[0]
    if np.isnan(row["accuracy_std"]):
        return f"{row['accuracy_mean']:.2f}"
    return f"{row['accuracy_mean']:.2f} ± {row['accuracy_std']:.2f}"


def format_count(count: float) -> str:
    """Parameters; raw pixels have none."""
    if count < 1:
        return "0"
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def format_seconds(seconds: float) -> str:
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 3600:.2f} h"


def format_operations(count: float) -> str:
    """To two or three figures; a search that computes nothing has none."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
        if count >= limit:
            return f"{count / limit:.{1 if count < 100 * limit else 0}f}{unit}"
    return ""


def bold_best(table: pd.DataFrame, mark: str) -> pd.DataFrame:
    """The same table with the largest means of each accuracy column, within each data set, wrapped by `mark`.

    Args:
        mark: a template such as `**{}**`.
    """
    marked = table.copy()
    datasets = table.get("Data", pd.Series("", index=table.index))  # without it, each column is of one
    for column in [column for column in table if "-shot" in column]:
        means = pd.to_numeric(table[column].str.split(" ").str[0], errors="coerce")
        for _, group in means.groupby(datasets):
            for index in group.index[group == group.max()]:
                marked.loc[index, column] = mark.format(table.loc[index, column])
    return marked


def to_markdown(table: pd.DataFrame) -> str:
    shown = table.map(lambda cell: str(cell).replace("|", r"\|"))
    return shown.to_markdown(index=False, disable_numparse=True) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """A booktabs tabular, ready for \\input, with the best accuracies in bold."""
    escaped = table.map(_escape).rename(columns=_escape)
    shown = bold_best(escaped, r"\textbf{{{}}}")
    return shown.to_latex(index=False, escape=False, column_format="l" * len(table.columns))


def _escape(cell: object) -> str:
    return "".join(LATEX.get(sign, sign) for sign in str(cell))
