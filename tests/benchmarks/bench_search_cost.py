"""What MetaNTK-NAS costs against MetaNAS, at equal size: the paper's headline is a hundred times less.

Both searches run on networks of the same cells, channels and images, one after the other in one process, and each
is measured in part. Of Algorithm 1: one draw of --candidates candidates of every round, which the published 3 draws
of all of them cost so many times as much (operations are removed at random; which ones changes the cost little). Of
MetaNAS: --meta-steps of --tasks tasks of its warm-up and of its search, and so for the published 15,000 of 10 tasks
each. Prints one JSON object with the costs at the published settings. Operations are floating-point operations of
convolutions and products, forward and backward, two for a multiply-accumulate; MetaNAS's are those of its first
steps, before it has pruned anything, so that its whole search takes fewer. Processor seconds are the better measure
on a busy machine.

Example:
    python tests/benchmarks/bench_search_cost.py --cells 5 --channels 16 --image-size 32
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from tqdm import tqdm

from metantk.data.store import Split
from metantk.options.backbones.cells import CellsOptions
from metantk.options.searches.metanas import MetaNasOptions
from metantk.options.searches.prune import PruneOptions
from metantk.runtime import devices
from metantk.searches import metanas, prune
from metantk.searches.base import Cost, Problem
from metantk.space.supernet import full_masks

PUBLISHED_STEPS = {"warm-up": 15000, "search": 15000}  # meta-steps of MetaNAS on miniImageNet
PUBLISHED_TASKS, PUBLISHED_REPEAT = 10, 3


class Measured(NamedTuple):
    """At the published settings.

    Attributes:
        seconds: by the clock.
        processor_seconds: of all threads.
        operations: floating-point operations.
    """

    seconds: float
    processor_seconds: float
    operations: int


class Forgetful:
    """A checkpoint that keeps nothing."""

    state = None

    def save(self, state: dict) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=4, help="of each round that are measured [4]")
    parser.add_argument("--meta-steps", type=int, default=1, help="of MetaNAS that are measured, of each part [1]")
    parser.add_argument("--tasks", type=int, default=1, help="of a meta-step [1]")
    arguments = parser.parse_args()
    device = devices.start()
    problem = make_problem(arguments, device)
    metantk = measure(lambda: metantk_costs(problem, arguments))
    rival = measure(lambda: metanas_costs(problem, arguments))
    report = {
        "cells": arguments.cells,
        "channels": arguments.channels,
        "image_size": arguments.image_size,
        "measured_candidates": arguments.candidates,
        "threads": torch.get_num_threads(),
        "device": devices.describe_device(device),
        "measured_meta_steps": arguments.meta_steps,
        "measured_tasks": arguments.tasks,
    }
    for name, one, other in zip(Measured._fields, metantk, rival, strict=True):
        report[name] = {"metantk": round(one), "metanas": round(other), "ratio": round(other / one, 1)}
    print(json.dumps(report))


def measure(costs_of: Callable[[], dict]) -> Measured:
    """Processor seconds grow from what was measured to the published settings as the seconds do."""
    began, processor_began = time.perf_counter(), time.process_time()
    costs = costs_of().values()
    share = (time.process_time() - processor_began) / (time.perf_counter() - began)
    seconds = sum(cost.seconds for cost in costs)
    return Measured(seconds, seconds * share, sum(cost.operations for cost in costs))


def make_problem(arguments: argparse.Namespace, device: torch.device) -> Problem:
    """Noise for images: what a search costs does not depend on them."""
    draws = np.random.default_rng(0)
    shape = (64 * 20, arguments.image_size, arguments.image_size, 3)
    images = draws.integers(256, size=shape, dtype=np.uint8)
    split = Split(images, np.repeat(np.arange(64), 20), [str(index) for index in range(64)])
    backbone = CellsOptions(cells=arguments.cells, channels=arguments.channels)
    bar = tqdm(file=io.StringIO())
    return Problem(backbone, split, split, [0.5] * 3, [0.3] * 3, device, bar)


def metantk_costs(problem: Problem, arguments: argparse.Namespace) -> dict[tuple[str, int], Cost]:
    """Of all rounds, scaled to all candidates and the published number of draws."""
    options = PruneOptions(
        criteria=["meta_ntk_condition", "linear_regions"], repeats=1, image_size=arguments.image_size
    )
    plan, draws = prune.plan_of(problem, options), np.random.default_rng(0)
    masks, costs, index = full_masks(plan.space), {}, 0
    while (this := prune.next_round(plan.space, masks)) is not None:
        order = draws.permutation(len(this.candidates)).tolist()
        chosen = [this.candidates[candidate] for candidate in order[: arguments.candidates]]
        factor = PUBLISHED_REPEAT * (1 + len(order)) / (1 + len(chosen))  # the unpruned network is measured, too
        for name in plan.criteria:
            cost = Cost()
            prune.measure_draw(plan, name, chosen, masks, (0, index, 0), cost)
            costs[name, index] = scaled(cost, factor)
        for candidate in (this.candidates[removed] for removed in prune.choose_removed(this, order)):
            masks[candidate.cell][candidate.edge, candidate.operation] = False
        index += 1
    return costs


def metanas_costs(problem: Problem, arguments: argparse.Namespace) -> dict[str, Cost]:
    """Some meta-steps of each part, scaled to the published numbers."""
    options = MetaNasOptions(
        layout="few-shot",
        cells=None,
        channels=None,
        epochs=2,
        steps_per_epoch=arguments.meta_steps,
        warm_up_epochs=1,
        meta_batch_size=arguments.tasks,
    )
    costs = metanas.find(problem, options, 0, Forgetful()).costs
    share = PUBLISHED_TASKS / (arguments.tasks * arguments.meta_steps)
    return {part: scaled(cost, PUBLISHED_STEPS[part] * share) for part, cost in costs.items()}


def scaled(cost: Cost, factor: float) -> Cost:
    return Cost(cost.seconds * factor, round(cost.evaluations * factor), round(cost.operations * factor))


if __name__ == "__main__":
    main()
