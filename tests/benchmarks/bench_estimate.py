"""What `make estimate` says of a configuration, against the run itself: seconds by the clock, and their ratio.

    PYTHONPATH=tests:scripts python tests/benchmarks/bench_estimate.py config/config.yaml

The machine should have nothing else to do; both together take about two runs.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from conftest import House, copy_house

from estimate_campaign import SIDE_BY_SIDE

ESTIMATE = re.compile(r"^(\d+) at once: .* \((\d+) s\)$", re.M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configfile", type=Path)
    parser.add_argument("--cores", type=int, choices=SIDE_BY_SIDE, default=2, help="of the run [2]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        house = copy_house(Path(folder))
        shutil.copy(arguments.configfile, house.path / "config" / "estimated.yaml")
        printed, _ = run(house, "scripts/estimate_campaign.py", "--configfile", "config/estimated.yaml")
        print(printed)
        expected = {int(cores): int(seconds) for cores, seconds in ESTIMATE.findall(printed)}[arguments.cores]
        cores = ("--cores", arguments.cores, "--quiet", "all")
        _, seconds = run(house, "-m", "snakemake", *cores, "--configfile", "config/estimated.yaml")
    print(
        f"estimated {expected} s, took {seconds:.0f} s on {arguments.cores} cores: ratio {expected / seconds:.2f}"
    )


def run(house: House, *words: object) -> tuple[str, float]:
    """Run a program as users do; what it printed, and seconds."""
    began = time.perf_counter()
    finished = house.run(sys.executable, *words)
    if finished.returncode:
        sys.exit(finished.stderr)
    return finished.stdout, time.perf_counter() - began


if __name__ == "__main__":
    main()
