"""What MetaNTK-NAS costs against MetaNAS, at equal size: the paper's headline is a hundred times less.

Both searches run on networks of the same cells, channels and pictures, side by side in one process. Algorithm 1 is
measured whole (`repeat: 3`, the published setting, by default; fewer with --repeat, and said so). MetaNAS is
measured for some meta-steps of its warm-up and of its search; the published 15,000 of each are that many times as
much. Prints one JSON object; operations are floating-point operations, two for a multiply-accumulate.

Example:
    python tests/benchmarks/bench_search_cost.py --cells 5 --channels 16 --image-size 32 --repeat 1
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from tqdm import tqdm

from metantk import devices
from metantk.datasets.store import Split
from metantk.options.backbones.cells import CellsOptions
from metantk.options.searches.metanas import MetaNasOptions
from metantk.options.searches.prune import PruneOptions
from metantk.searches import metanas, prune
from metantk.searches.base import Cost, Problem

PUBLISHED = {"warm-up": 15000, "search": 15000}  # meta-steps of MetaNAS on miniImageNet


class Forgetful:
    """A checkpoint that keeps nothing."""

    kept = None

    def keep(self, state: dict) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3, help="draws of Algorithm 1 [3]")
    parser.add_argument("--meta-steps", type=int, default=2, help="of MetaNAS that are measured, of each part [2]")
    arguments = parser.parse_args()
    device = devices.start()
    problem = make_problem(arguments, device)
    metantk = measure_metantk(problem, arguments)
    rival = measure_metanas(problem, arguments)
    report = {
        "cells": arguments.cells,
        "channels": arguments.channels,
        "image_size": arguments.image_size,
        "repeat": arguments.repeat,
        "threads": torch.get_num_threads(),
        "device": devices.describe_device(device),
        "metantk_seconds": round(metantk.seconds, 1),
        "metantk_kernel_operations": metantk.operations,
        "metanas_seconds": round(rival.seconds, 1),
        "metanas_operations": rival.operations,
        "metanas_measured_meta_steps": 2 * arguments.meta_steps,
        "seconds_ratio": round(rival.seconds / metantk.seconds, 1),
        "operations_ratio": round(rival.operations / metantk.operations, 1),
    }
    print(json.dumps(report))


def make_problem(arguments: argparse.Namespace, device: torch.device) -> Problem:
    """Noise for pictures: what a search costs does not depend on them."""
    draws = np.random.default_rng(0)
    shape = (64 * 20, arguments.image_size, arguments.image_size, 3)
    images = draws.integers(256, size=shape, dtype=np.uint8)
    split = Split(images, np.repeat(np.arange(64), 20), [str(number) for number in range(64)])
    backbone = CellsOptions(cells=arguments.cells, channels=arguments.channels)
    bar = tqdm(file=io.StringIO())
    return Problem(backbone, split, split, [0.5] * 3, [0.3] * 3, device, bar)


def measure_metantk(problem: Problem, arguments: argparse.Namespace) -> Cost:
    options = PruneOptions(
        criteria=["meta_ntk_condition", "linear_regions"], repeat=arguments.repeat, image_size=arguments.image_size
    )
    return total(prune.find(problem, options, 0, Forgetful()).costs)


def measure_metanas(problem: Problem, arguments: argparse.Namespace) -> Cost:
    """Some meta-steps of each part, scaled to the published numbers."""
    options = MetaNasOptions(
        layout="few-shot",
        cells=None,
        channels=None,
        meta_epochs=2 * arguments.meta_steps,
        warm_up_epochs=arguments.meta_steps,
    )
    costs = metanas.find(problem, options, 0, Forgetful()).costs
    scaled = {
        part: Cost(
            cost.seconds * PUBLISHED[part] / arguments.meta_steps,
            cost.evaluations,
            cost.operations * PUBLISHED[part] // arguments.meta_steps,
        )
        for part, cost in costs.items()
    }
    return total(scaled)


def total(costs: dict[str, Cost]) -> Cost:
    return Cost(
        sum(cost.seconds for cost in costs.values()),
        sum(cost.evaluations for cost in costs.values()),
        sum(cost.operations for cost in costs.values()),
    )


if __name__ == "__main__":
    main()
