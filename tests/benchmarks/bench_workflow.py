"""Seconds that Snakemake takes to plan a campaign, and to find that a finished one has nothing to do.

    PYTHONPATH=tests:scripts python tests/benchmarks/bench_workflow.py 16 128 512

makes campaigns of so many parts (2 data sets × 2 depths × 4 methods × seeds), runs nothing, and puts empty files in
the place of results for the second measurement.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

from conftest import House, copy_house

PARTS_PER_SEED = 2 * 2 * 4


def campaign(house: House, seeds: int) -> None:
    house.configure(
        house.configuration
        | {
            "datasets": {name: {"source": "glyphs"} for name in ("first", "second")},
            "runs": [{"cells": cells, "channels": 48} for cells in (5, 8)],
            "seeds": list(range(seeds)),
        }
    )


def plan(house: House) -> tuple[float, str]:
    """Seconds of a dry run and what it printed."""
    began = time.perf_counter()
    run = house.snakemake("--dry-run", "--quiet", "rules")
    seconds = time.perf_counter() - began
    if run.returncode:
        sys.exit(run.stderr)
    return seconds, run.stdout + run.stderr


def pretend_to_have_run(house: House) -> None:
    """Empty files for all outputs, recorded by Snakemake as up to date."""
    listed = house.snakemake("--summary")
    for line in listed.stdout.splitlines()[1:]:
        path = house.path / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    touched = house.snakemake("--touch", "--cores", 1)
    if touched.returncode:
        sys.exit(touched.stderr)


def main() -> None:
    print("parts   jobs   dry run, s   nothing to do, s")
    for parts in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            house = copy_house(Path(folder))
            campaign(house, seeds=max(1, parts // PARTS_PER_SEED))
            seconds, printed = plan(house)
            jobs = int(re.search(r"^total +(\d+)", printed, re.M)[1])
            pretend_to_have_run(house)
            idle, printed = plan(house)
            if re.search(r"^total ", printed, re.M):
                sys.exit(f"there was something to do:\n{printed}")
            print(f"{parts:5d}  {jobs:5d}  {seconds:11.1f}  {idle:17.1f}")


if __name__ == "__main__":
    main()
