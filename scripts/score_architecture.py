"""Score one architecture by many criteria, and by a short training: for the study of what criteria are worth.

All architectures are scored with the same draws of weights and images. Writes the scores with their costs.

Example:
    python scripts/score_architecture.py --data results/glyphs/data \\
        --architecture results/glyphs/3cells-4ch/random/seed0/architecture.json \\
        --criteria '["parameters", "ntk_condition"]' --image-size 12 --output scores.json
"""

import logging
from pathlib import Path

from metantk.data.store import load_split, read_manifest
from metantk.options.backbones.cells import Architecture, CellsOptions
from metantk.options.base import parse
from metantk.options.study import StudyOptions
from metantk.results.study import score
from metantk.runtime import devices, plugins
from metantk.runtime.command_line import make_parser, parse_options, progress, run
from metantk.runtime.files import InputError, check_writable, write_json
from metantk.runtime.provenance import provenance
from metantk.runtime.typed_files import BuiltArchitecture, read_record
from metantk.searches.base import Problem
from metantk.searches.plan import plan_of
from metantk.space.genotype import check_space

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, StudyOptions)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument(
        "--architecture", required=True, type=Path, metavar="FILE", help="output of search_architecture.py"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the scores, JSON")
    arguments = parser.parse_args()
    options = parse_options(StudyOptions, arguments)
    if options.criteria is None:
        raise InputError("options: --criteria is missing; name what is to be scored")
    manifest = read_manifest(arguments.data)
    record = read_record(arguments.architecture, BuiltArchitecture, stage="search_architecture")
    if record.kind != "cells":
        raise InputError(f"{arguments.architecture}: has no cells that criteria could score")
    values = record.model_dump(exclude_unset=True, exclude={"origin"})
    architecture = parse(Architecture, values, where=arguments.architecture)
    sizes = {"cells": architecture.cells, "channels": architecture.channels, "layout": architecture.layout}
    backbone = parse(CellsOptions, sizes, where=arguments.architecture)
    check_space(architecture.genotype, options.space, where=arguments.architecture)
    check_writable(arguments.output.parent)
    device = devices.start()
    train, val = (load_split(arguments.data, part) for part in ("train", "val"))
    total = options.repeats + bool(options.short_training_epochs)
    with progress(None, total=total, what="scores", unit="measurement") as bar:
        problem = Problem(backbone, train, val, manifest["mean"], manifest["std"], device, bar)
        plan = plan_of(problem, options)
        plan = plan._replace(context=plan.context._replace(advance=lambda networks: None))
        scores = score(plan, options, architecture.genotype, lambda: bar.update(1))
    files = [__file__, *(plugins.module_file("criteria", kind) for kind in options.kinds.values())]
    report = {
        "genotype": architecture.genotype,
        "scores": {name: each._asdict() for name, each in scores.items()},
        "options": options.model_dump(),
        "device": devices.describe_device(device),
        **provenance(*files, options=options.model_dump(), seed=0, device=devices.describe_device(device)),
    }
    write_json(arguments.output, report)
    log.info("%d scores", len(scores))


if __name__ == "__main__":
    run(main)
