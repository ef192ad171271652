"""Two trainings side by side on the same cores, as when started by hand: seconds per step of the slower one.

As many threads each as PyTorch takes by default, that is all cores: waiting asleep, as our programs do, and
spinning, as PyTorch's threads do by default; and one thread each, the best that can be.

Example:
    python tests/benchmarks/bench_side_by_side.py --size 32
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
TRAINING = HERE.with_name("bench_training.py")
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # as PyTorch's threads wait by default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="of images [32]")
    parser.add_argument("--steps", type=int, default=5, help="of each training [5]")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    ways = {"one_thread_each": (1, {}), "asleep": (cores, {}), "spinning": (cores, SPINNING)}
    report = {}
    for name, (threads, changes) in ways.items():
        command = [sys.executable, TRAINING, "--way", "ours", "--threads", threads]
        command += ["--size", arguments.size, "--steps", arguments.steps]
        words = [str(word) for word in command]
        both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | changes) for _ in "ab"]
        seconds = max(json.loads(process.communicate()[0].splitlines()[-1]) for process in both)
        report[f"{name}_seconds_per_step"] = round(seconds / arguments.steps, 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
