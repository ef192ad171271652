"""The table of models that were trained on one data set and evaluated on the test classes of others.

What a model and an evaluation are, their files say; names of folders are not read.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from metantk.results.records import Evaluation
from metantk.results.tables import KEY, OVER_SEEDS, Chain, Evaluated, Titles, check_episodes, notes, read_evaluated
from metantk.runtime.files import InputError
from metantk.statistics import deviation

LISTED_CLASSES = 5  # that a note names; evaluation.json has all


def read_transfer(folder: Path) -> Evaluated:
    """Read an evaluation on another data set than the model's, which lies in a folder within the model's.

    Raises:
        InputError: a file is missing or damaged, or the evaluation is of another model, or on its own data set.
    """
    evaluated = read_evaluated(folder, folder.parent)
    transfer, trained_on = evaluated.evaluation.transfer, evaluated.key[0]
    if transfer is None or trained_on in (None, transfer.tested_on) or evaluated.evaluation.split != "test":
        raise InputError(
            f"{folder}: evaluation.json is not of another data set's test split; run evaluate_episodes again"
        )
    return evaluated


def make_table(transferred: list[Evaluated], groups: dict[tuple, list[Chain]], titles: Titles) -> pd.DataFrame:
    """A line per row, a column per data set that it is tested on and number of shots; mean ± std over seeds.

    The rows that were trained on one of these data sets stand there, too, by their own evaluations.

    Args:
        groups: chains of each row.
        titles: what tables call searches and learners.

    Raises:
        InputError: models were not evaluated on the same images and episodes of a data set, or one of them twice.
    """
    tested = list(dict.fromkeys(each.tested_on for each in transferred))
    own = [chain for chains in groups.values() for chain in chains if chain.tested_on in tested]
    _check_alike([*own, *transferred])
    rows: dict[tuple, list[Evaluated]] = {key: [] for key in groups}
    for each in [*own, *transferred]:
        rows.setdefault(each.key, []).append(each)
    shots = sorted({int(count) for each in transferred for count in each.evaluation.shots})
    columns = [(name, count) for name in tested for count in shots]
    lines = [_line(members, columns, titles) for members in rows.values() if members]
    titles_of_columns = [f"{name}, {count}-shot" for name, count in columns]
    header = ["Trained on", "Model", *(name.capitalize() for name in KEY[1:]), *titles_of_columns, "±", "Notes"]
    return pd.DataFrame(lines, columns=header)


def _check_alike(models: Iterable[Evaluated]) -> None:
    episodes: dict[str, tuple[Path, dict]] = {}
    there: dict[tuple, Path] = {}
    for each in models:
        check_episodes(each.tested_on, each.folder, each.evaluation, episodes)
        key = (*each.key, each.seed, each.tested_on)
        if key in there:
            raise InputError(f"{each.folder} and {there[key]}: are the same model on the same data set")
        there[key] = each.folder


def _line(members: list[Evaluated], columns: list[tuple[str, int]], titles: Titles) -> list[str]:
    dataset, backbone, search, learner = members[0].key
    seeds = {member.seed for member in members}
    found = [notes(members), *(note for member in members for note in _notes(member.evaluation))]
    return [
        dataset,
        titles.row(members[0].model),
        backbone,
        search,
        learner,
        *(_cell([member for member in members if member.tested_on == name], shots) for name, shots in columns),
        f"{OVER_SEEDS} ({len(seeds)})" if len(seeds) > 1 else "one seed",
        "; ".join(dict.fromkeys(filter(None, found))),
    ]


def _cell(members: list[Evaluated], shots: int) -> str:
    """`mean ± std over seeds`; empty where the row was not evaluated."""
    means = np.array([found.mean() for member in members if len(found := member.accuracies(shots))])
    if not len(means):
        return ""
    return f"{means.mean():.2f}" + (f" ± {deviation(means):.2f}" if len(means) > 1 else "")


def _notes(evaluation: Evaluation) -> list[str]:
    """What a reader of a transfer's accuracies has to know, if it is one."""
    transfer, found = evaluation.transfer, []
    if transfer and transfer.resized_to:
        found.append(f"{transfer.tested_on} resized from {transfer.image_size} to {transfer.resized_to} pixels")
    if transfer and (shared := transfer.shared_classes):
        # Signs that Markdown or LaTeX would read are left out.
        names = [re.sub(r"[^\w .,:()+-]", " ", name) for name in shared[:LISTED_CLASSES]]
        more = f" and {len(shared) - LISTED_CLASSES} more" if len(shared) > LISTED_CLASSES else ""
        found.append(f"test classes of {transfer.tested_on} that are training classes: {', '.join(names)}{more}")
    return found
