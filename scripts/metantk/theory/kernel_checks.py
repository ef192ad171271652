"""Statements 1, 2 and 6: kernels at initialisation against the width (Eq. 5, Definition 2, Eqs. 10-11; ANIL)."""

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from metantk.options.theory import TheoryNetworkOptions, TheoryOptions
from metantk.runtime.devices import generator
from metantk.theory.kernels import (
    Pair,
    all_inputs,
    empirical_kernels,
    infinite_kernels,
    meta_ntk_as_printed,
    meta_ntk_by_definition,
    meta_ntk_by_formula,
    relative_distance,
)
from metantk.theory.maml import InnerLoop, Tasks
from metantk.theory.networks import Network
from metantk.theory.tasks import draw_tasks

INNER_LOOPS = FLOW, ONE_STEP, ANIL = "MAML, flow", "MAML, one step", "ANIL, flow"


def make_network(entry: TheoryNetworkOptions, options: TheoryOptions, width: int) -> Network:
    return Network(entry.kind, entry.activation, entry.depth, width, options.image_size, options.ways)


def make_tasks(source: str, options: TheoryOptions, part: str, count: int) -> Tasks:
    """Tasks of one part, `train` or `test`, with as many queries as supports."""
    return draw_tasks(
        source,
        count,
        ways=options.ways,
        shots=options.shots,
        queries=options.shots,
        side=options.image_size,
        key=(part, 0),
    )


def make_inner_loops(limit: Pair, tasks: Tasks, options: TheoryOptions) -> dict[str, InnerLoop]:
    """MAML by gradient flow and by one step, and ANIL by flow; their times in units of the limit's 1 / σ_max."""
    loops = {
        FLOW: InnerLoop(1.0, options.inner_steps),
        ONE_STEP: InnerLoop(1.0, 0),
        ANIL: InnerLoop(1.0, options.inner_steps, head_only=True),
    }
    return {
        name: loop._replace(time=options.inner_time / _largest_support_eigenvalue(limit.base(loop), tasks))
        for name, loop in loops.items()
    }


def _largest_support_eigenvalue(kernel: Tensor, tasks: Tasks) -> float:
    supports = tasks.support_targets[0].numel()
    start = tasks.query_targets.numel()
    blocks = [slice(first, first + supports) for first in range(start, len(kernel), supports)]
    return max(float(torch.linalg.eigvalsh(kernel[block, block])[-1]) for block in blocks)


def measure_kernels(source: str, entry: TheoryNetworkOptions, options: TheoryOptions) -> pd.DataFrame:
    """One row per width, seed and inner loop; all distances are relative (Frobenius).

    Columns: `ntk_limit` and `meta_limit`, from the infinite width; `formula`, between Eq. 11 and Eq. 4 of the same
    network, and `printed`, the same for Eq. 11 as printed; `formula_asymmetry` and `printed_asymmetry`, of both
    from their transposes, with the limit's Θ.
    """
    tasks = make_tasks(source, options, "train", options.train_tasks)
    limit = infinite_kernels(make_network(entry, options, entry.widths[-1]), all_inputs(tasks))
    tables = []
    for name, inner in make_inner_loops(limit, tasks, options).items():
        limits = _MetaNtks.of(limit, tasks, inner)
        for width in entry.widths:
            network = make_network(entry, options, width)
            table = _measure_width(network, tasks, inner, limit.ntk, limits.formula, options.seeds)
            facts = {"source": source, "network": network.name, "inner": name, "width": width}
            facts |= {
                "formula_asymmetry": relative_distance(limits.formula.T, limits.formula),
                "printed_asymmetry": relative_distance(limits.printed.T, limits.printed),
            }
            tables.append(table.assign(**facts)[[*facts, *table]])
    return pd.concat(tables, ignore_index=True)


class _MetaNtks(NamedTuple):
    """Eq. 11 of the same kernels, with its last term transposed and as printed."""

    formula: Tensor
    printed: Tensor

    @classmethod
    def of(cls, kernels: Pair, tasks: Tasks, inner: InnerLoop) -> "_MetaNtks":
        return cls(meta_ntk_by_formula(kernels, tasks, inner), meta_ntk_as_printed(kernels, tasks, inner))


def _measure_width(
    network: Network, tasks: Tasks, inner: InnerLoop, ntk_limit: Tensor, meta_limit: Tensor, seeds: int
) -> pd.DataFrame:
    """The columns of `measure_kernels` that change with the seed, one row per seed."""
    rows = []
    for seed in range(seeds):
        weights = network.draw(generator("theory weights", network.width, seed))
        kernels = empirical_kernels(network, weights, all_inputs(tasks))
        found = _MetaNtks.of(kernels, tasks, inner)
        defined = meta_ntk_by_definition(network, weights, tasks, inner)
        rows.append(
            {
                "seed": seed,
                "ntk_limit": relative_distance(kernels.ntk, ntk_limit),
                "meta_limit": relative_distance(defined, meta_limit),
                "formula": relative_distance(found.formula, defined),
                "printed": relative_distance(found.printed, defined),
            }
        )
    return pd.DataFrame(rows)
