"""How good is what a search found, by its own criterion: against random architectures, on fresh draws.

    python tests/benchmarks/bench_found.py --data results/caltech101/caltech101/data --criterion ntk_condition \
        --image-size 16 results/caltech101/caltech101/5cells-8ch/{ntk-bo,metantk}/seed*

prints for each search the mean over its seeds of how many deviations between random architectures its result lies
below their mean, and how many of the choices two of its seeds share. The deviation is that of the architectures'
means over all draws, less what noise adds to it.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from metantk.data.store import load_split, read_manifest
from metantk.options.backbones.cells import CellsOptions
from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.results.records import Architecture
from metantk.runtime import devices
from metantk.runtime.typed_files import read_record
from metantk.searches import bayesian_optimisation
from metantk.searches.base import Problem
from metantk.searches.plan import Plan, plan_of
from metantk.space import paths

FRESH = 10**6  # keys of draws that no search has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", type=Path, metavar="SEARCH", help="folders of architecture.json")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--criterion", required=True)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--random", type=int, default=30, help="architectures to compare with")
    arguments = parser.parse_args()
    device = devices.start()
    found = [
        read_record(folder / "architecture.json", Architecture, stage="search") for folder in arguments.searches
    ]
    backbone = CellsOptions(cells=found[0].cells, channels=found[0].model_extra["channels"])
    manifest, train = read_manifest(arguments.data), load_split(arguments.data, "train")
    bar = tqdm(total=arguments.draws * (arguments.random + len(found)), unit="network")
    problem = Problem(backbone, train, train, manifest["mean"], manifest["std"], device, bar)
    plan = plan_of(
        problem, BayesianOptimisationOptions(criteria=[arguments.criterion], image_size=arguments.image_size)
    )
    plan = plan._replace(context=plan.context._replace(advance=lambda networks: None))
    random = paths.balanced_sample(plan.space, arguments.random, devices.numpy_generator("bench random"))
    rows = np.concatenate([random, [paths.row_of(plan.space, one.genotype) for one in found]])
    values = measure(plan, arguments.criterion, rows, arguments.draws, bar)
    bar.close()
    pairs = [one @ other for one, other in combinations(random, 2)]
    print(f"two random architectures share {np.mean(pairs):.1f} of {random[0].sum():.0f} choices")
    names = [one.origin.search for one in found]
    report(values[:, : len(random)], values[:, len(random) :], names, rows[len(random) :])


def measure(plan: Plan, criterion: str, rows: np.ndarray, draws: int, bar: tqdm) -> np.ndarray:
    """`(draws, architectures)`, the smaller the better."""
    table = []
    for draw in range(draws):
        values = bayesian_optimisation.measure(plan, rows, (FRESH, draw), {}, bar.update)[criterion]
        table.append(bayesian_optimisation.badness(plan.criteria[criterion], values, criterion))
    return np.array(table)


def report(random: np.ndarray, found: np.ndarray, searches: list[str], rows: np.ndarray) -> None:
    means = random.mean(0)
    residuals = random - random.mean(1, keepdims=True) - means + means.mean()
    noise = residuals.var(ddof=1) / len(random)
    between = np.sqrt(max(means.var(ddof=1) - noise, 0))
    print(f"random: mean {means.mean():.3f}, deviation between architectures {between:.3f}")
    for search in dict.fromkeys(searches):
        own = [index for index, name in enumerate(searches) if name == search]
        deviations = (found[:, own].mean(0) - means.mean()) / between
        pairs = [rows[one] @ rows[other] for one, other in combinations(own, 2)]
        agree = f", two seeds share {np.mean(pairs):.1f} choices" if pairs else ""
        each = ", ".join(f"{value:.2f}" for value in deviations)
        print(f"{search}: {deviations.mean():.2f} deviations from random ({each}){agree}")


if __name__ == "__main__":
    main()
