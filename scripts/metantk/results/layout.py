"""Where a workflow's files lie below its folder of results: the one place that knows.

Paths are patterns with the wildcards of the rules; Python fills them by `str.format`. Imports no torch.
"""

from pathlib import Path
from typing import NamedTuple

DATA = "{dataset}/data"
SEARCH = "{dataset}/{backbone}/{search}/seed{seed}"
CHAIN = f"{SEARCH}/{{learner}}"
# `on` is empty for the test classes of the model's own data set, else `on_other` of another one's name.
EVALUATION = f"{CHAIN}{{on}}"
SCORES = f"{SEARCH}/scores.json"
STABILITY = "{dataset}/{backbone}/{search}/rank_stability"
TABLES = "tables"
PARTIAL_TABLES = "tables_partial"
FIGURES = "figures/{dataset}"
THEORY = "theory"
CRITERIA = "criteria"


class Stage(NamedTuple):
    """A stage that takes its time.

    Attributes:
        job: pattern of a job's name: its log and benchmark lie there, below the folders of all logs and benchmarks.
        output: pattern of the file that is there when the job is done.
    """

    job: str
    output: str


STAGES = {
    "prepare_dataset": Stage("{dataset}", f"{DATA}/manifest.json"),
    "search_architecture": Stage(SEARCH, f"{SEARCH}/architecture.json"),
    "train_network": Stage(CHAIN, f"{CHAIN}/model.json"),
    "evaluate_episodes": Stage(EVALUATION, f"{EVALUATION}/evaluation.json"),
}


def on_other(dataset: str) -> str:
    """The wildcard `on` of evaluations on the test classes of another data set than the model's."""
    return f"/on-{dataset}"


def tested_dataset(on: str, dataset: str) -> str:
    """The data set on whose test classes a model of `dataset` is evaluated, by the wildcard `on`."""
    return on.removeprefix(on_other("")) or dataset


def log_file(results: Path, stage: str, job: str) -> Path:
    return results / "logs" / stage / f"{job}.log"


def benchmark_file(results: Path, stage: str, job: str) -> Path:
    return results / "benchmarks" / stage / f"{job}.tsv"


def running_file(results: Path) -> Path:
    """Locked by the Snakemake that runs."""
    return results / "logs" / ".running"
