"""Say how large the network of a genotype is: parameters, multiply-accumulates, feature size.

Example:
    python scripts/describe_architecture.py my_search/genotype.json --cells 5 --channels 48 --classes 64 --json
"""

import json
from pathlib import Path

from metantk.command_line import make_parser, run
from metantk.config import RunOptions, parse
from metantk.space.genotype import CELL_TYPES, read_genotype
from metantk.space.network import Network, count_macs, count_parameters
from metantk.storage import InputError


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("genotype", type=Path, help="JSON or Genotype(...) text")
    parser.add_argument("--cells", type=int, default=5, help="cells in the stack [5]")
    parser.add_argument("--channels", type=int, default=48, help="channels after the stem [48]")
    parser.add_argument("--classes", type=int, default=64, help="outputs of the classifier [64]")
    parser.add_argument("--image-size", type=int, default=84, help="height and width of a picture, in pixels [84]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    parse(RunOptions, {"cells": arguments.cells, "channels": arguments.channels}, where="options")
    if min(arguments.classes, arguments.image_size) < 1:
        raise InputError("options: classes and image-size must be at least 1")
    genotype = read_genotype(arguments.genotype)
    network = Network(genotype, cells=arguments.cells, channels=arguments.channels, classes=arguments.classes)
    parameters = count_parameters(network)
    facts = {
        "parameters": parameters,
        "backbone_parameters": parameters - count_parameters(network.classifier),
        "macs": count_macs(network, arguments.image_size),
        "feature_dim": network.feature_dim,
    }
    print(json.dumps(facts) if arguments.json else _as_text(genotype, facts))


def _as_text(genotype: dict, facts: dict) -> str:
    lines = []
    for cell in CELL_TYPES:
        lines.append(f"{cell} cell")
        for number, node in enumerate(genotype[cell], start=2):
            lines.append(f"  node {number} = " + " + ".join(f"{name}({source})" for name, source in node))
    lines += [f"{name.replace('_', ' '):20} {value:>14,}" for name, value in facts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
