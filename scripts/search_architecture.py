"""Find an architecture without training: Algorithm 1 of the paper (MetaNTK-NAS) or a rival of Table 2.

The criteria decide the method: meta_ntk_condition + linear_regions is MetaNTK-NAS, ntk_condition +
linear_regions is TE-NAS, linear_regions alone and an empty list (a uniform draw) are the other rows of Table 2.

Writes the genotype, the trace (search.csv: one row per candidate per round) and the cost (search.json). A search
that is killed goes on after the last finished round and finds the same genotype.

Example:
    python scripts/search_architecture.py --data results/glyphs/data --cells 3 --channels 8 --seed 0 \\
        --criteria '["meta_ntk_condition", "linear_regions"]' --repeat 1 --output my_search
"""

import json
import logging
import time
from pathlib import Path

import pandas as pd

from metantk import devices, pruning
from metantk.command_line import add_run, make_parser, parse_options, parse_run, progress, run
from metantk.config import RunOptions, SearchOptions
from metantk.criteria import Setting
from metantk.datasets.store import load_split, read_manifest
from metantk.space.genotype import SPACES
from metantk.storage import (
    atomic_write,
    canonical_json,
    check_writable,
    checkpoint_path,
    code_hash,
    provenance,
    remove_checkpoint,
    sha256_of,
    write_json,
)

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, SearchOptions)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    add_run(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of genotype.json, search.csv, search.json",
    )
    arguments = parser.parse_args()
    options = parse_options(SearchOptions, arguments)
    run_options = parse_run(arguments)
    read_manifest(arguments.data)
    check_writable(arguments.output)
    device = devices.start()
    began = time.perf_counter()
    state, seconds_before = _search(arguments, options, run_options, device)
    seconds = seconds_before + time.perf_counter() - began
    space = SPACES[options.space]
    genotype = (
        pruning.to_genotype(space, state.masks)
        if options.criteria
        else pruning.random_genotype(space, arguments.seed)
    )
    report = {
        "seconds": round(seconds, 3),
        "rounds": state.rounds,
        "evaluations": sum(cost.evaluations for cost in state.costs.values()),
        "costs": {name: _describe_cost(cost) for name, cost in state.costs.items()},
        "peak_memory_mb": devices.peak_memory_mb(device),
        "cells": arguments.cells,
        "channels": arguments.channels,
        **provenance(__file__, options.model_dump(), seed=arguments.seed, device=devices.describe_device(device)),
    }
    _write(
        arguments.output,
        genotype,
        pd.DataFrame(state.rows, columns=pruning.trace_columns(options.weights)),
        report,
    )
    log.info("found in %.1f s: %s", seconds, canonical_json(genotype))


def _search(arguments, options: SearchOptions, run_options: RunOptions, device) -> tuple[pruning.State, float]:
    """Run the rounds, keeping each; the final state and the seconds that earlier attempts spent on it."""
    state, spent = pruning.first_state(SPACES[options.space]), 0.0
    if not options.criteria:
        return state, spent
    checkpoint = checkpoint_path(
        arguments.output,
        "search",
        {
            "options": options.model_dump(),
            "run": run_options.name,
            "seed": arguments.seed,
            "code": code_hash(__file__),
            "data": sha256_of(arguments.data / "manifest.json"),
        },
    )
    if checkpoint.exists():
        kept = json.loads(checkpoint.read_text())
        state, spent = pruning.State.from_json(kept["state"]), kept["seconds"]
        draws = sum(map(len, state.draws.values()))
        log.info("going on after %d rounds and %d draws of the next", state.rounds, draws)
    began = time.perf_counter()

    def keep(state: pruning.State) -> None:
        with atomic_write(checkpoint) as temporary:
            seconds = spent + time.perf_counter() - began
            temporary.write_text(json.dumps({"state": state.to_json(), "seconds": seconds}))

    devices.set_precision(options.precision)
    total = pruning.total_work(SPACES[options.space], options)
    with progress(None, total=total, what="search", unit="operation") as bar:
        setting = Setting(
            options,
            run_options.cells,
            run_options.channels,
            load_split(arguments.data, "train"),
            device,
            bar.update,
        )
        state = pruning.search(setting, arguments.seed, state, keep)
    return state, spent


def _describe_cost(cost: pruning.Cost) -> dict:
    """A criterion's cost for search.json; only kernels count their floating-point operations."""
    described = {"seconds": round(cost.seconds, 3), "evaluations": cost.evaluations}
    if cost.operations:
        described |= {
            "floating_point_operations": cost.operations,
            "floating_point_operations_per_second": round(cost.operations / cost.seconds),
        }
    return described


def _write(output: Path, genotype: dict, trace: pd.DataFrame, report: dict) -> None:
    """Write all three outputs; the genotype, which other stages wait for, last."""
    with atomic_write(output / "search.csv") as temporary:
        trace.to_csv(temporary, index=False)
    write_json(output / "search.json", report)
    write_json(output / "genotype.json", genotype)
    for checkpoint in (output / ".checkpoints").glob("search-*"):
        remove_checkpoint(checkpoint)


if __name__ == "__main__":
    run(main)
