"""What each stage cost: seconds, memory, GPU memory, and the machines on which it ran.

Read from what a workflow leaves beside the chains: Snakemake's benchmark files, the stages' logs, and the GPU
memory in search.json and model.json. They differ from run to run, so they stand in a table of their own.
"""

import csv
import math
import re
from pathlib import Path

import pandas as pd

from metantk.results import layout
from metantk.results.tables import KEY, Chain
from metantk.runtime.files import InputError, check_regular

STAGES = [stage for stage, place in layout.STAGES.items() if "{seed}" in place.job]
COLUMNS = [*KEY, "stage", "jobs", "seconds", "memory_mb", "gpu_memory_mb", "nodes"]
# The line that devices.start() logs.
NODE = re.compile(r"device .*, \d+ threads, on (\S+)")


def summarise(groups: dict[tuple, list[Chain]], results: Path | None) -> pd.DataFrame:
    """One row per row of the tables and stage: the mean of the seconds, the largest memory, all nodes.

    Seconds are of the attempt that finished; what was not measured is left empty, as where a stage ran by hand.

    Args:
        results: folder of the workflow, in which a job's benchmark and log lie as its outputs do; None: by hand.
    """
    rows = []
    for key, chains in groups.items():
        for stage in STAGES:
            spent = pd.DataFrame([_cost(chain, stage, results) for chain in chains])
            nodes = sorted(set(spent["node"].dropna()))
            largest = [spent[column].max() for column in ("memory_mb", "gpu_memory_mb")]
            rows.append([*key, stage, len(chains), spent["seconds"].mean(), *largest, " ".join(nodes)])
    return pd.DataFrame(rows, columns=COLUMNS).round(1)


def _cost(chain: Chain, stage: str, results: Path | None) -> dict:
    folder = chain.folder.parent if stage == "search_architecture" else chain.folder
    memory = {"search_architecture": chain.search, "train_network": chain.model}.get(stage)
    spent = {
        "seconds": float("nan"),
        "memory_mb": float("nan"),
        "gpu_memory_mb": float("nan") if memory is None else memory.peak_memory_mb.get("cuda", float("nan")),
        "node": None,
    }
    if results is None or not folder.is_relative_to(results):
        return spent
    job = str(folder.relative_to(results))
    spent["seconds"], spent["memory_mb"] = _benchmark(layout.benchmark_file(results, stage, job))
    spent["node"] = _node(layout.log_file(results, stage, job))
    return spent


def _benchmark(path: Path) -> tuple[float, float]:
    """Seconds and the largest resident memory in MiB; a job of less than a moment has no memory.

    Raises:
        InputError: the file is none of Snakemake's.
    """
    if not path.exists():
        return float("nan"), float("nan")
    check_regular(path)
    try:  # without pandas: there are thousands of these files, of a line each
        with path.open(encoding="utf-8", newline="") as file:
            *_, row = csv.DictReader(file, delimiter="\t")
        found = float(row["s"]), float("nan" if row["max_rss"] in ("-", "NA", "") else row["max_rss"])
        if not math.isfinite(found[0]) or math.isinf(found[1]) or min(found) < 0:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise InputError(f"{path}: holds no seconds and memory, as Snakemake writes them; remove it") from None
    return found


def _node(path: Path) -> str | None:
    if not path.exists():
        return None
    check_regular(path)
    found = NODE.search(path.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None
