"""Say how much of a search is noise: repeat its first round with other draws and compare the ranks.

For each criterion, and for common draws (all candidates share weights and images: the default of the search),
independent ones (each candidate has its own) at equal cost, and the published way: Kendall's τ between
repetitions. Choose the search's option `repeats` where the curve is high enough for you. For a Bayesian
optimisation: Kendall's τ between the effects found by surrogates of separate samples; choose its `max_evaluations`.

Writes rank_stability.csv and a figure, rank_stability.svg and .png.

Example:
    python scripts/measure_rank_stability.py --data results/glyphs/data --backbone cells --cells 3 --channels 4 \\
        --criteria '["meta_ntk_condition", "linear_regions"]' --image-size 12 --output my_stability
"""

import logging
from pathlib import Path

from metantk.data.store import load_split, read_manifest
from metantk.results.figures.rank_stability import draw_rank_stability
from metantk.results.figures.style import save
from metantk.runtime import devices
from metantk.runtime.command_line import add_seed, make_parser, parse_kind, progress, run
from metantk.runtime.files import InputError, atomic_write, check_writable
from metantk.searches.base import Problem
from metantk.searches.plan import plan_of
from metantk.searches.rank_stability import (
    measure_effect_stability,
    measure_rank_stability,
    total_networks,
)

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, kinds={"backbone": ("backbones", "cells"), "search": ("searches", "prune")})
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    add_seed(parser)
    parser.add_argument("--independent-draws", type=int, default=6, help="2 or more; common ones at equal cost [6]")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the table and figure")
    arguments = parser.parse_args()
    backbone, options = (parse_kind(arguments, name) for name in ("backbone", "search"))
    if options.kind not in ("prune", "bayesian-optimisation"):
        raise InputError(
            f"options: a search of kind {options.kind} has no ranks; choose prune or bayesian-optimisation"
        )
    if backbone.kind != "cells":
        raise InputError(f"--backbone {backbone.kind}: has no cells that criteria could rank")
    if arguments.independent_draws < 2:
        raise InputError(
            f"options: --independent-draws {arguments.independent_draws} has nothing to compare; give 2 or more"
        )
    manifest = read_manifest(arguments.data)
    train, val = (load_split(arguments.data, part) for part in ("train", "val"))
    check_writable(arguments.output)
    device = devices.start()
    with progress(None, total=0, what="rank stability", unit="network") as bar:
        problem = Problem(backbone, train, val, manifest["mean"], manifest["std"], device, bar)
        plan = plan_of(problem, options)
        if options.kind == "bayesian-optimisation":
            bar.reset(total=2 * options.initial_samples)
            table = measure_effect_stability(plan, arguments.seed)
        else:
            bar.reset(total=total_networks(plan, arguments.independent_draws))
            table = measure_rank_stability(plan, arguments.seed, arguments.independent_draws)
    with atomic_write(arguments.output / "rank_stability.csv") as temporary:
        table.to_csv(temporary, index=False)
    repeated = (
        "models of separate samples"
        if options.kind == "bayesian-optimisation"
        else "repetitions of the first round"
    )
    title = f"Kendall's τ between {repeated}: {backbone.title}, seed {arguments.seed}"
    titles = {name: criterion.title for name, criterion in plan.criteria.items()}
    save(draw_rank_stability(table, title, titles), arguments.output / "rank_stability")
    log.info("\n%s", table.drop_duplicates(["criterion", "draws"]).to_string(index=False))


if __name__ == "__main__":
    run(main)
