"""What each stage cost: seconds, memory, GPU memory, and the machines on which it ran.

Read from what a workflow leaves beside the parts: Snakemake's benchmark files, the stages' logs, and the GPU memory
in search.json and backbone.json. They differ from run to run, so they stand in a table of their own.
"""

import re
from pathlib import Path

import pandas as pd

from metantk.tables import Part

STAGES = ("search_architecture", "train_genotype", "evaluate_episodes")
COLUMNS = ["dataset", "run", "method", "stage", "jobs", "seconds", "memory_mb", "gpu_memory_mb", "nodes"]
# The line that devices.start() logs.
NODE = re.compile(r"device .*, \d+ threads, on (\S+)")


def summarise(parts: dict[Path, Part]) -> pd.DataFrame:
    """One row per data set, run, method and stage: the mean of the seconds, the largest memory, all nodes.

    Seconds are of the attempt that finished; what was not measured is left empty, as where a stage ran by hand.

    Args:
        parts: by folder, `<results>/<dataset>/<run>/<method>/seed<k>`.
    """
    costs = pd.DataFrame([_cost(folder, part, stage) for folder, part in parts.items() for stage in STAGES])
    rows = []
    for key, group in costs.groupby(["dataset", "run", "method", "stage"], sort=False):
        nodes = sorted(set(group["node"].dropna()))
        row = [*key, len(group), group["seconds"].mean(), group["memory_mb"].max(), group["gpu_memory_mb"].max()]
        rows.append([*row, " ".join(nodes)])
    return pd.DataFrame(rows, columns=COLUMNS).round(1)


def _cost(folder: Path, part: Part, stage: str) -> dict:
    results, name = folder.absolute().parents[3], Path(*folder.absolute().parts[-4:])
    seconds, memory = _benchmark(results / "benchmarks" / stage / name.with_suffix(".tsv"))
    report = {"search_architecture": part.search, "train_genotype": part.backbone}.get(stage, {})
    return {
        "dataset": part.dataset,
        "run": part.run,
        "method": part.method,
        "stage": stage,
        "seconds": seconds,
        "memory_mb": memory,
        "gpu_memory_mb": report.get("peak_memory_mb", {}).get("cuda", float("nan")),
        "node": _node(results / "logs" / stage / name.with_suffix(".log")),
    }


def _benchmark(path: Path) -> tuple[float, float]:
    """Seconds and the largest resident memory in MiB; a job of less than a moment has no memory."""
    if not path.exists():
        return float("nan"), float("nan")
    row = pd.read_csv(path, sep="\t", na_values=["-"]).iloc[-1]
    return float(row["s"]), float(row["max_rss"])


def _node(path: Path) -> str | None:
    found = NODE.search(path.read_text()) if path.exists() else None
    return found[1] if found else None
