"""Searches replayed on a tabular benchmark: what they would have found after each evaluation, without training."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from metantk.benchmark.table import Table, accuracy_column
from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError
from metantk.searches.surrogate import Posterior
from metantk.space import paths
from metantk.space.genotype import SPACES

INITIAL = 5  # random architectures before the first surrogate is fitted
SEARCHES = ("random", "bayesian-optimisation")


def replay(table: Table, search: str, *, shots: int = 5, seeds: int = 20) -> pd.DataFrame:
    """Regret after each evaluation, until all architectures of known accuracy are evaluated.

    An evaluation looks up one training of an architecture, sampled among those that the benchmark has; regret is
    in mean accuracies, of the chosen architecture against the best one.

    Args:
        search: "random" evaluates in random order; "bayesian-optimisation" fits the project's surrogate to what was
            evaluated and takes the best of the rest by Thompson sampling.

    Returns:
        Columns `search`, `seed`, `evaluations` (from 1) and `regret` in points, of the architecture that did best
        in its own evaluation.

    Raises:
        InputError: there is no such search, or the benchmark has no such accuracy.
    """
    if search not in SEARCHES:
        raise InputError(f"replay: unknown search {search!r}; choose from {', '.join(SEARCHES)}")
    column = accuracy_column(table, shots)
    known = table.architectures[table.architectures[column].notna()]
    truth = known[column].to_numpy()
    rows = np.stack([paths.row_of(SPACES[table.settings["space"]], json.loads(g)) for g in known["genotype"]])
    trainings = table.trainings[table.trainings[column].notna()]
    measured = [group[column].to_numpy() for _, group in trainings.groupby("architecture")]
    found = []
    for seed in range(seeds):
        rng = numpy_generator("benchmark replay", seed)
        values = np.array([rng.choice(each) for each in measured])
        order = np.fromiter(_order(search, rows, values, rng), int)
        chosen = [order[: count + 1][np.argmax(values[order[: count + 1]])] for count in range(len(order))]
        regret = truth.max() - truth[chosen]
        found += [(search, seed, count, value) for count, value in enumerate(regret, start=1)]
    return pd.DataFrame(found, columns=["search", "seed", "evaluations", "regret"])


def _order(search: str, rows: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Indices of the architectures in the order of their evaluations."""
    first = rng.permutation(len(rows))
    if search == "random":
        yield from first
        return
    seen = list(first[:INITIAL])
    yield from seen
    while len(seen) < len(rows):
        rest = np.setdiff1d(np.arange(len(rows)), seen)
        posterior = Posterior(rows[seen], values[seen], np.zeros(len(seen)))
        following = int(rest[np.argmax(posterior.sample(rng)(rows[rest]))])
        seen.append(following)
        yield following
