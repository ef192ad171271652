"""The search engine against the literal search (tests/literal.py), part by part, in one run.

Each way runs in a process of its own, with the same allocator settings and threads; the processes take turns, so
that a change of the machine's load meets all. Seconds are the least of all turns.

kernel    one kernel of the unpruned supernet: the engine; Opacus' own samplers on the plain network; a plain
          forward and backward pass of the plain network (no per-sample gradients: the floor). Peak memory of each.
regions   linear regions of all candidates of a first round. Literal: both networks of a pair for some candidates,
          3000 images through Pillow for each pair and products in float16, as published; scaled to all.
round     both criteria of a first round, one draw. Literal: both networks for some candidates, scaled to all.
          `float32`: the same with products in float32, which the published code does not use but could.
search    a whole search, put together from rounds like these with 7, 4 and 1 operations left on each edge.
small     a whole search, from end to end, at a small size, on both sides.
paths     kernels of single-path architectures, as the search by experiment asks for them: the engine with all that
          a measurement costs; a forward and backward pass of each as a plain network, already built.

Example:
    python tests/benchmarks/bench_search.py --parts kernel --channels 48
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "scripts"))
sys.path.insert(0, str(HERE.parents[1]))

import literal
from reference import MixedNetwork, group_norm

from metantk.criteria import inputs as engine
from metantk.criteria.base import MeasurementContext
from metantk.data.store import Split
from metantk.kernels import empirical_kernels
from metantk.options.searches.prune import PruneOptions
from metantk.runtime import devices
from metantk.searches import bayesian_optimisation, prune
from metantk.searches.base import Cost
from metantk.searches.plan import Plan
from metantk.searches.plan import make_plan as plan_of_setting
from metantk.space import paths
from metantk.space.genotype import CELL_TYPES, cell_types
from metantk.space.supernet import Supernet, initialise

KEY = (0, 0, 0)
SMALL = {"cells": 3, "channels": 2, "image_size": 8, "images": 300}
LEFT = (7, 4, 1)  # operations on each edge at which a whole search is sampled
Job = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["kernel", "regions", "round"], choices=list(PARTS))
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    # With the unpruned network, a number that two threads share evenly, as they do a whole round.
    parser.add_argument("--candidates", type=int, default=15, help="of a round, on the engine's side [15]")
    parser.add_argument("--pairs", type=int, default=2, help="of a round, on the literal side [2]")
    parser.add_argument("--turns", type=int, default=3, help="of each way [3]")
    parser.add_argument("--threads", type=int, default=0, help="0: all processors [0]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--precision", default="float32", help="of the engine: float32 or tf32 [float32]")
    parser.add_argument("--worker", nargs=2, metavar=("PART", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments, *arguments.worker)
        return
    for part in arguments.parts:
        print(json.dumps(compare(arguments, part)), flush=True)


def compare(arguments: argparse.Namespace, part: str) -> dict:
    """Run the ways of a part in turns; seconds, memory and ratios."""
    workers = {way: Worker(part, way) for way in PARTS[part]}
    turns = 1 if part in ("small", "search") else arguments.turns
    seconds = {way: min(times) for way, times in take_turns(workers, turns).items()}
    report = {"part": part, "cells": arguments.cells, "channels": arguments.channels, "device": arguments.device}
    report |= SMALL if part == "small" else {}
    report |= {f"{way}_seconds": round(value, 3) for way, value in seconds.items()}
    report |= {f"{way}_over_engine": round(value / seconds["engine"], 2) for way, value in seconds.items()}
    del report["engine_over_engine"]
    return report | {f"{way}_peak_mib": worker.close() for way, worker in workers.items()}


def take_turns(workers: dict, turns: int) -> dict[str, list[float]]:
    times = {way: [] for way in workers}
    for _ in range(turns):
        for way, worker in workers.items():
            times[way].append(worker.run())
    return times


class Worker:
    """A process that runs one way as often as it is asked to."""

    def __init__(self, part: str, way: str) -> None:
        command = [sys.executable, str(HERE), *sys.argv[1:], "--worker", part, way]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self) -> float:
        """Seconds of one turn."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> int:
        """End the process; its peak memory in MiB (on a GPU, the GPU's)."""
        self.process.stdin.close()
        peak = int(self.process.stdout.readline())
        self.process.wait()
        return peak


def serve(arguments: argparse.Namespace, part: str, way: str) -> None:
    """The worker's side: prepare, then a turn for each line of the input."""
    devices.keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    plan = make_plan(arguments, device, small=part == "small")
    devices.set_precision(arguments.precision if way == "engine" else "float32")
    job = PARTS[part][way](plan, arguments)
    for _ in sys.stdin:
        began = time.perf_counter()
        scaled = job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        # A job that did a part of the work returns the seconds of the whole.
        print(scaled if isinstance(scaled, float) else time.perf_counter() - began, flush=True)
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else devices.peak_memory_mb(device)["cpu"]
    print(round(peak), flush=True)


def make_plan(arguments: argparse.Namespace, device: torch.device, *, small: bool) -> Plan:
    """The paper's search on random images: 64 classes of 100, 84×84."""
    side = 16 if small else 84
    images = np.random.default_rng(0).integers(256, size=(6400, side, side, 3), dtype=np.uint8)
    train = Split(images, np.repeat(np.arange(64), 100), [str(index) for index in range(64)])
    sizes = SMALL if small else {"cells": arguments.cells, "channels": arguments.channels, "image_size": 32}
    sections = {"linear_regions": {"images": SMALL["images"]}} if small else {}
    options = PruneOptions(
        criteria=["meta_ntk_condition", "linear_regions"],
        repeats=1,
        image_size=sizes["image_size"],
        precision=arguments.precision,
        criteria_options=sections,
    )
    context = MeasurementContext(
        space=options.space,
        cells=sizes["cells"],
        channels=sizes["channels"],
        image_size=options.image_size,
        initialisation=options.initialisation,
        precision=options.precision,
        train=train,
        val=train,
        device=device,
        advance=lambda networks: None,
    )
    return plan_of_setting(context, options)


def engine_kernel(plan: Plan, _: argparse.Namespace) -> Job:
    network, images = supernet(plan)
    masks = {kind: mask[None] for kind, mask in prune.first_state(plan.space).masks.items()}
    return lambda: empirical_kernels(network, images, masks)


def literal_kernel(plan: Plan, _: argparse.Namespace) -> Job:
    network, images = plain_network(plan)
    return lambda: literal.kernels(network, images)


def plain_passes(plan: Plan, _: argparse.Namespace) -> Job:
    network, images = plain_network(plan)

    def job() -> None:
        network.zero_grad(set_to_none=True)
        network(images).sum().backward()

    return job


def supernet(plan: Plan) -> tuple[Supernet, torch.Tensor]:
    network = supernet_of(plan, prune.first_state(plan.space).masks)
    return network.to(plan.context.device), draw_tasks(plan, KEY).contiguous()


def supernet_of(plan: Plan, masks: dict) -> Supernet:
    network = Supernet(plan.space, masks, cell_types(plan.context.cells), plan.context.channels, outputs=5)
    initialise(network, "kaiming_normal", devices.generator("weights", *KEY))
    return network


def draw_tasks(plan: Plan, key: tuple) -> torch.Tensor:
    return engine.draw_tasks(plan.context, plan.criteria_options["meta_ntk_condition"], key)


def plain_network(plan: Plan) -> tuple[MixedNetwork, torch.Tensor]:
    network, images = supernet(plan)
    masks = prune.first_state(plan.space).masks
    return MixedNetwork(network, plan.space, masks, norm=group_norm).to(plan.context.device), images


def engine_round(plan: Plan, arguments: argparse.Namespace, *, names: tuple, left: int = 7) -> Job:
    masks, candidates = crowded(plan, left)
    # The regions of a whole round take seconds: no need to scale them.
    chosen = {
        name: candidates if name == "linear_regions" else spread(candidates, arguments.candidates) for name in names
    }

    def job() -> float:
        total = 0.0
        for name, some in chosen.items():
            cost = Cost()
            prune.measure_draw(plan, name, some, masks, KEY, cost)
            total += cost.seconds * (1 + len(candidates)) / cost.evaluations
        return total

    return job


def literal_round(
    plan: Plan,
    arguments: argparse.Namespace,
    *,
    names: tuple,
    left: int = 7,
    products: torch.dtype = torch.float16,
) -> Job:
    masks, candidates = crowded(plan, left)
    some = spread(candidates, arguments.pairs)

    def job() -> float:
        began = time.perf_counter()
        for index, candidate in enumerate(some):
            literal_pair(plan, names, masks, candidate, (*KEY, index), products)
        return (time.perf_counter() - began) * len(candidates) / len(some)

    return job


def literal_pair(
    plan: Plan,
    names: tuple,
    masks: dict,
    candidate: prune.Candidate,
    key: tuple,
    products: torch.dtype = torch.float16,
) -> dict:
    """C and R of the networks with and without a candidate, each drawn anew as the published code does."""
    networks, device = literal.Networks(plan, key, masks), plan.context.device
    batch = prune.batch_masks(masks, [candidate])
    both = [{kind: batch[kind][index] for kind in CELL_TYPES} for index in (0, 1)]
    values = {}
    if "meta_ntk_condition" in names:
        images = draw_tasks(plan, key)
        values["meta_ntk_condition"] = [
            literal.meta_ntk_condition(plan, networks.plain(mask).to(plan.context.device), images) for mask in both
        ]
    if "linear_regions" in names:
        crops = [batch.to(device) for batch in literal.crops(plan)]
        values["linear_regions"] = [
            literal.regions(networks.plain_thin(mask).to(device), crops, products) for mask in both
        ]
    return values


def crowded(plan: Plan, left: int) -> tuple[dict, list[prune.Candidate]]:
    """A network with the first `left` operations on each edge, and its candidates (all, even if one is left)."""
    masks = {kind: mask.clone() for kind, mask in prune.first_state(plan.space).masks.items()}
    for mask in masks.values():
        mask[:, left:] = False
    return masks, [
        prune.Candidate(kind, edge, operation)
        for kind in CELL_TYPES
        for edge, operation in masks[kind].nonzero().tolist()
    ]


def spread(candidates: list, count: int) -> list:
    """`count` of the candidates, evenly spaced over both cell types."""
    return [candidates[int(i)] for i in np.linspace(0, len(candidates) - 1, count)]


def whole_search(one_round: Callable) -> Callable:
    """Seconds of a search from the seconds per candidate with 7, 4 and 1 operations on each edge."""

    def prepare(plan: Plan, arguments: argparse.Namespace) -> Job:
        jobs = {left: one_round(plan, arguments, names=tuple(plan.options.weights), left=left) for left in LEFT}

        def job() -> float:
            each = [jobs[left]() / len(crowded(plan, left)[1]) for left in LEFT]
            edges = 2 * len(plan.space.edges)
            return sum(
                candidates * float(np.interp(operations / edges, LEFT[::-1], each[::-1]))
                for candidates, operations in prune._round_sizes(plan.space)
            )

        return job

    return prepare


def engine_small(plan: Plan, _: argparse.Namespace) -> Job:
    return lambda: prune.search(plan, 0, prune.first_state(plan.space), lambda state: None)


def literal_small(plan: Plan, _: argparse.Namespace) -> Job:
    """Every round of the published search; its cells may differ, for it draws anew for each candidate."""
    names = tuple(plan.options.weights)

    def job() -> None:
        state = prune.first_state(plan.space)
        while (this := prune.next_round(plan.space, state.masks)) is not None:
            pairs = [
                literal_pair(plan, names, state.masks, candidate, (0, state.rounds, index))
                for index, candidate in enumerate(this.candidates)
            ]
            scores = {}
            for name in names:
                columns = zip(*(pair[name] for pair in pairs), strict=True)
                scores[name] = prune.score(plan.criteria[name], [prune.Draw(*map(list, columns))], where="literal")
            state = prune.prune(plan, this, scores, state)

    return job


PATHS = 12


def path_rows(plan: Plan) -> np.ndarray:
    return paths.balanced_sample(plan.space, PATHS, devices.numpy_generator("bench paths"))


def engine_paths(plan: Plan, _: argparse.Namespace) -> Job:
    only = plan._replace(criteria={"meta_ntk_condition": plan.criteria["meta_ntk_condition"]})
    return lambda: bayesian_optimisation.measure(only, path_rows(plan), KEY, {}, lambda done: None)


def plain_paths(plan: Plan, _: argparse.Namespace) -> Job:
    """On a CPU side by side, one thread each, as the engine's."""
    networks = []
    for row in path_rows(plan):
        masks = {kind: mask[0] for kind, mask in paths.masks_of(plan.space, row).items()}
        network = MixedNetwork(supernet_of(plan, masks), plan.space, masks, norm=group_norm)
        networks.append(network.to(plan.context.device))
    images = draw_tasks(plan, KEY).contiguous()
    threads = torch.get_num_threads() if plan.context.device.type == "cpu" else 1

    def passes(network: MixedNetwork) -> None:
        torch.set_num_threads(1)
        network.zero_grad(set_to_none=True)
        network(images).sum().backward()

    def job() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(passes, networks))

    return job


def of(criterion: str, one_round: Callable) -> Callable:
    return lambda plan, arguments: one_round(plan, arguments, names=(criterion,))


def of_all(one_round: Callable, **options) -> Callable:
    return lambda plan, arguments: one_round(plan, arguments, names=tuple(plan.options.weights), **options)


PARTS = {
    "kernel": {"engine": engine_kernel, "opacus": literal_kernel, "plain_passes": plain_passes},
    "regions": {"engine": of("linear_regions", engine_round), "literal": of("linear_regions", literal_round)},
    "round": {
        "engine": of_all(engine_round),
        "literal": of_all(literal_round),
        "float32": of_all(literal_round, products=torch.float32),
    },
    "search": {"engine": whole_search(engine_round), "literal": whole_search(literal_round)},
    "small": {"engine": engine_small, "literal": literal_small},
    "paths": {"engine": engine_paths, "plain_passes": plain_paths},
}

if __name__ == "__main__":
    main()
