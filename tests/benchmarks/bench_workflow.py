"""Seconds that Snakemake takes to plan a campaign, and to find that a finished one has nothing to do.

    PYTHONPATH=tests:scripts python tests/benchmarks/bench_workflow.py 16 128 512

makes campaigns of so many chains (2 data sets × 2 backbones × 4 searches × seeds), runs nothing, and puts empty
files in the place of results for the second measurement.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

from conftest import House, copy_house

BACKBONES = ["5cells-48ch", "8cells-48ch"]
SEARCHES = ["metantk", "te-nas", "linear-regions", "random"]
CHAINS_PER_SEED = 2 * len(BACKBONES) * len(SEARCHES)


def campaign(house: House, seeds: int) -> None:
    house.configure(
        house.configuration
        | {
            "datasets": {name: {"source": "glyphs"} for name in ("first", "second")},
            "rows": [{"backbone": BACKBONES, "search": SEARCHES, "learner": "rfs"}],
            "seeds": list(range(seeds)),
        }
    )


def plan(house: House) -> tuple[float, str]:
    """Seconds of a dry run and what it printed."""
    began = time.perf_counter()
    run = house.run(sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules")  # started as users do
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
    print("chains  jobs   dry run, s   nothing to do, s")
    for chains in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            house = copy_house(Path(folder))
            campaign(house, seeds=max(1, chains // CHAINS_PER_SEED))
            seconds, printed = plan(house)
            jobs = int(re.search(r"^total +(\d+)", printed, re.M)[1])
            pretend_to_have_run(house)
            idle, printed = plan(house)
            if re.search(r"^total ", printed, re.M):
                sys.exit(f"there was something to do:\n{printed}")
            print(f"{chains:6d}  {jobs:5d}  {seconds:11.1f}  {idle:17.1f}")


if __name__ == "__main__":
    main()
