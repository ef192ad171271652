"""What a campaign of many chains costs around its jobs: planning, status, tables, figures, report.

    PYTHONPATH=tests:scripts python tests/benchmarks/bench_workflow.py 16 512
    PYTHONPATH=tests:scripts python tests/benchmarks/bench_workflow.py 1000 --finished

A campaign has 2 data sets × 10 searches × seeds. Without --finished nothing is run, and empty files stand for
results: a plan is timed, and finding that there is nothing to do. With it, a small run of one pruning and one
random cell is made first (two minutes). Its files are copied to every chain, with other numbers in evaluations and
trainings. Printed are seconds of the clock and of a processor, and the largest memory.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from conftest import House, copy_house, program_environment, tiny_configuration

from metantk.results import layout
from metantk.statistics import confidence_95

DATASETS = ["first", "second"]
BACKBONE, LEARNER = "3cells-2ch", "rfs"
KINDS = {"metantk": "prune", "random": "sample"}  # searches of the small run, and their kinds
COPIES = 5  # of each search
CHAINS_PER_SEED = len(DATASETS) * len(KINDS) * COPIES
EPISODES, EPOCHS = 1000, 100


class Cost(NamedTuple):
    """Seconds of the clock and of processors, MiB, and what was printed."""

    seconds: float
    processor: float
    memory_mb: float
    printed: str


def make_house(path: Path) -> House:
    path.mkdir()
    return copy_house(path)


def small_run(house: House) -> Path:
    """Results of one chain of each search."""
    configuration = tiny_configuration()
    rows = [{"backbone": BACKBONE, "search": list(KINDS), "learner": LEARNER}]
    house.configure(configuration | {"rows": rows})
    check(house.snakemake("--cores", 1, "--quiet", "all"))
    return house.path / "results" / next(iter(configuration["datasets"]))


def searches_of(kind: str) -> list[str]:
    return [f"{kind}-{index}" for index in range(COPIES)]


def configure(house: House, chains: int) -> list[int]:
    """Write the configuration of a campaign; its seeds."""
    tiny = tiny_configuration()
    seeds = list(range(max(1, chains // CHAINS_PER_SEED)))
    searches = {name: {"kind": kind} for kind in KINDS.values() for name in searches_of(kind)}
    for name in searches_of("prune"):
        searches[name] |= {"criteria": ["meta_ntk_condition", "linear_regions"]}
    house.configure(
        tiny
        | {
            "datasets": dict.fromkeys(DATASETS, *tiny["datasets"].values()),
            "rows": [{"backbone": BACKBONE, "search": list(searches), "learner": LEARNER}],
            "seeds": seeds,
            "searches": tiny["searches"] | searches,
            "learners": {LEARNER: {"epochs": EPOCHS}},
            "evaluation": tiny["evaluation"] | {"episodes": EPISODES},
        }
    )
    return seeds


def finish(small: Path, results: Path, seeds: list[int]) -> None:
    """The files of a finished campaign, made of those of the small run."""
    for dataset in DATASETS:
        shutil.copytree(small / "data", results / dataset / "data")
        for search, kind in KINDS.items():
            source = small / BACKBONE / search / "seed0"
            for name in searches_of(kind):
                for seed in seeds:
                    place = {"dataset": dataset, "search": name, "seed": seed}
                    _copy_chain(source, results, place)


def _copy_chain(source: Path, results: Path, place: dict) -> None:
    words = place | {"backbone": BACKBONE, "learner": LEARNER, "on": ""}
    chain = results / layout.CHAIN.format(**words)
    shutil.copytree(source, chain.parent)
    numbers = np.random.default_rng(list(map(ord, str(place))))
    edit(chain.parent / "architecture.json", lambda found: found["origin"].update(place))
    edit(chain.parent / "search.json", lambda found: found.update(place))
    weights = {"weights_sha256": numbers.bytes(32).hex()}

    def edit_model(model: dict) -> None:
        model["architecture"]["origin"].update(place)
        model["learner"]["epochs"] = EPOCHS
        model.update(weights)

    edit(chain / "model.json", edit_model)
    epochs = np.arange(1, EPOCHS + 1)
    loss = 4 / epochs**0.5 + numbers.uniform(0, 0.1, EPOCHS)
    table = {"epoch": epochs, "lr": np.where(epochs < 60, 0.02, 0.002), "loss": loss, "accuracy": 90 - 20 * loss}
    pd.DataFrame(table).to_csv(chain / "training.csv", index=False)
    results_by_shots, episodes = {}, []
    for shots, centre in (("1", 50), ("5", 70)):
        accuracy = np.round(numbers.binomial(75, (centre + numbers.normal(0, 2)) / 100, EPISODES) / 0.75, 9)
        results_by_shots[shots] = {"accuracy_mean": accuracy.mean(), "ci95": confidence_95(accuracy)}
        episodes.append(pd.DataFrame({"shots": shots, "episode": range(EPISODES), "accuracy": accuracy}))
    pd.concat(episodes).to_csv(chain / "episodes.csv", index=False)

    def edit_evaluation(evaluation: dict) -> None:
        evaluation.update(weights, shots=results_by_shots, episodes=EPISODES)
        evaluation["options"]["episodes"] = EPISODES

    edit(chain / "evaluation.json", edit_evaluation)
    for stage in ("search_architecture", "train_network", "evaluate_episodes"):
        job = layout.STAGES[stage].job.format(**words)
        for file, text in (
            (layout.log_file(results, stage, job), "23:00:00 device cpu, 1 threads, on node1\n"),
            (layout.benchmark_file(results, stage, job), f"s\tmax_rss\n{numbers.uniform(10, 99):.2f}\t700.0\n"),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=2))


def touch(house: House) -> None:
    """Empty files for outputs that are not there, and all of them recorded by Snakemake as up to date."""
    for line in check(house.snakemake("--summary")).stdout.splitlines()[1:]:
        path = house.path / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch()
    check(house.snakemake("--touch", "--cores", 1))


def check(run: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    if run.returncode:
        sys.exit(run.stderr)
    return run


def cost(house: House, *words: object) -> Cost:
    """Of a program, started as users do."""
    began = time.perf_counter()
    command = [sys.executable, *map(str, words)]
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command, cwd=house.path, env=program_environment(), stdout=printed, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        printed.seek(0)
        text = printed.read()
    if process.returncode:
        sys.exit(text)
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10, text)


def plan(house: House, *words: object) -> Cost:
    return cost(house, "-m", "snakemake", "--dry-run", "--quiet", "rules", *words)


def show(name: str, found: Cost) -> None:
    print(f"{name:24}{found.seconds:9.1f}{found.processor:13.1f}{found.memory_mb:9.0f}", flush=True)


def look_at_plans(house: House) -> None:
    show("plan", planned := plan(house))
    jobs = re.search(r"^total +(\d+)", planned.printed, re.M)[1]
    print(f"{'':24}{jobs} jobs")


def look_at_nothing_to_do(house: House) -> None:
    show("nothing to do", idle := plan(house))
    if re.search(r"^total ", idle.printed, re.M):
        sys.exit(f"there was something to do:\n{idle.printed}")


def look_at_results(house: House) -> None:
    configured = ("--configfile", "config/config.yaml")
    show("status", cost(house, "scripts/show_results.py", *configured, "--status"))
    chains = {name: sorted((house.path / "results" / name).glob("*/*/seed*/rfs")) for name in DATASETS}
    folders = [folder.relative_to(house.path) for members in chains.values() for folder in members]
    tables = ("--results", "results", "--output", "results/tables")
    show("tables", cost(house, "scripts/aggregate_tables.py", *folders, *tables))
    own = [folder.relative_to(house.path) for folder in chains[DATASETS[0]]]
    drawn = ("--tables", "results/tables", "--output", f"results/figures/{DATASETS[0]}")
    show("figures of a data set", cost(house, "scripts/draw_results.py", *own, *drawn))
    searches = sorted((house.path / "results" / DATASETS[0] / BACKBONE / "prune-0").glob("seed*"))
    own = [folder.relative_to(house.path) for folder in searches]
    drawn = ("--output", f"results/figures/{DATASETS[0]}/{BACKBONE}")
    show("figures of a search", cost(house, "scripts/draw_searches.py", *own, *drawn))


def look_at_report(house: House) -> None:
    """With the figures of one search in the place of those of all."""
    figures = house.path / "results" / "figures"
    drawn = figures / DATASETS[0] / BACKBONE
    for name in DATASETS:
        (figures / name / BACKBONE).mkdir(parents=True, exist_ok=True)
        for search in (search for kind in KINDS.values() for search in searches_of(kind)):
            for source in drawn.glob("*_prune-0_seed*.*"):
                target = figures / name / BACKBONE / source.name.replace("prune-0", search)
                if not target.exists():
                    shutil.copy(source, target)
        for source in (figures / DATASETS[0]).glob("*.*"):
            if not (figures / name / source.name).exists():
                shutil.copy(source, figures / name / source.name)
    touch(house)
    look_at_nothing_to_do(house)
    show("report", cost(house, "-m", "snakemake", "--report", "report.html"))
    print(f"{'':24}{(house.path / 'report.html').stat().st_size / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chains", nargs="+", type=int)
    parser.add_argument("--finished", action="store_true", help="tables, figures and report of a finished campaign")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = small_run(make_house(Path(folder, "small"))) if arguments.finished else None
        for chains in arguments.chains:
            house = make_house(Path(folder, str(chains)))
            seeds = configure(house, chains)
            print(f"\n{CHAINS_PER_SEED * len(seeds)} chains:       seconds    processor      MiB")
            look_at_plans(house)
            if small is None:
                touch(house)
                look_at_nothing_to_do(house)
            else:
                finish(small, house.path / "results", seeds)
                look_at_results(house)
                look_at_report(house)


if __name__ == "__main__":
    main()
