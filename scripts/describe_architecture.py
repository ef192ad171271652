"""Say how large a network is: parameters, multiply-accumulates, feature size; and how long it takes.

Tables show `backbone parameters` for learners that throw the head away before tests (rfs, nil, metaoptnet, none),
and all `parameters` for those whose head answers (maml, anil, reptile, metanas), with as many classes as a task.

`--latency` measures the features of one image and of a batch, with random weights, as a shipped classifier computes
them: in onnxruntime, on one thread of this machine's CPU. It takes some seconds.

The network is a genotype (a file, or the name of a published one in config/genotypes/), an architecture.json, or
the kind of a backbone that needs no search. Flags take precedence over architecture.json.

Examples:
    python scripts/describe_architecture.py my_search/architecture.json --cells 5 --channels 48 --classes 64 --json
    python scripts/describe_architecture.py metanas_in_v2 --cells 8
    python scripts/describe_architecture.py auto_maml_2 --layout t-nas --cells 2 --channels 16 --classes 5
    python scripts/describe_architecture.py resnet12 --classes 351
    python scripts/describe_architecture.py conv4 --classes 5 --image-size 32 --latency
"""

import argparse
import json
from pathlib import Path

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
from torch import nn

from metantk.backbones import build
from metantk.backbones.counting import count_macs, count_parameters
from metantk.backbones.graph import UnknownOperation
from metantk.backbones.latency import THREADS, latency_ms
from metantk.models import FORWARD_PIXELS
from metantk.options.base import parse
from metantk.runtime import plugins
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError, read_json
from metantk.space.genotype import CELL_TYPES, check_genotype, read_named

LARGEST_IMAGE = 1024  # pixels
MOST_CLASSES = 10**6
BATCH = 64  # images; fewer where they are large


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "architecture", help="genotype (JSON or Genotype(...) text), architecture.json, published cell, or backbone"
    )
    parser.add_argument("--cells", type=int, help="cells in the stack [5]")
    parser.add_argument("--channels", type=int, help="channels after the stem [48], or filters of conv4 [32]")
    parser.add_argument("--layout", help="how cells are stacked: few-shot, metanas or t-nas [few-shot]")
    parser.add_argument("--classes", type=int, default=64, help="outputs of the head [64]")
    parser.add_argument("--image-size", type=int, help="height and width of an image, in pixels [84]")
    parser.add_argument("--latency", action="store_true", help="measure the latency, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if not 1 <= arguments.classes <= MOST_CLASSES:
        raise InputError(f"options: classes must be 1 to {MOST_CLASSES}")
    image_size = 84 if arguments.image_size is None else arguments.image_size
    if not 1 <= image_size <= LARGEST_IMAGE:
        raise InputError(f"options: image-size must be 1 to {LARGEST_IMAGE}")
    architecture = _find_architecture(arguments, image_size)
    network = build(architecture, arguments.classes, where=arguments.architecture)
    parameters = count_parameters(network)
    side = architecture.get("image_size", image_size)
    facts = {
        "parameters": parameters,
        "backbone_parameters": parameters - count_parameters(network.head),
        "macs": count_macs(network, side),
        "feature_dim": network.feature_dim,
        **(_latency(network, side, arguments.architecture) if arguments.latency else {}),
    }
    print(json.dumps(facts) if arguments.json else _as_text(architecture, facts))


def _latency(network: nn.Module, image_size: int, where: str) -> dict:
    """Milliseconds for one image and for a batch, and how they were measured.

    Raises:
        InputError: the network cannot be written for onnxruntime.
    """
    batch = max(1, min(BATCH, FORWARD_PIXELS // image_size**2))
    try:
        return {
            "latency_ms": round(latency_ms(network, image_size), 4),
            "batch": batch,
            "batch_latency_ms": round(latency_ms(network, image_size, batch), 4),
            "latency_threads": THREADS,
            "latency_device": "cpu, onnxruntime",
        }
    except UnknownOperation as error:
        raise InputError(f"{where}: its latency cannot be measured: {error}") from None


def _find_architecture(arguments: argparse.Namespace, image_size: int) -> dict:
    """The content of an architecture.json, from whatever was given."""
    given = {"cells": arguments.cells, "channels": arguments.channels, "layout": arguments.layout}
    given = {key: value for key, value in given.items() if value is not None}
    path = Path(arguments.architecture)
    if (architecture := _read_architecture(path)) is not None:
        if arguments.image_size is not None and "image_size" in architecture:
            given["image_size"] = image_size
        return architecture | given
    if path.suffix == ".py" or (not path.is_file() and arguments.architecture in _unsearched()):
        options = plugins.load("backbones", arguments.architecture).Options
        return parse(options, {"kind": arguments.architecture, **given}, where="options").architecture(
            image_size, None
        )
    genotype = read_named(arguments.architecture)
    options = plugins.load("backbones", "cells").Options
    return parse(options, {"cells": 5, "channels": 48, **given}, where="options").architecture(image_size, genotype)


def _read_architecture(path: Path) -> dict | None:
    """The content of an architecture.json; none where the path is something else."""
    if path.suffix != ".json" or not path.is_file():
        return None
    content = read_json(path)
    return content if isinstance(content, dict) and "kind" in content else None


def _unsearched() -> list[str]:
    """Kinds of backbones that need no genotype."""
    return [kind for kind in plugins.kinds("backbones") if not plugins.options_class("backbones", kind).searchable]


def _as_text(architecture: dict, facts: dict) -> str:
    lines = []
    if architecture["kind"] == "cells":
        genotype = check_genotype(architecture["genotype"])
        for cell in CELL_TYPES:
            lines.append(f"{cell} cell")
            for index, node in enumerate(genotype[cell], start=2):
                lines.append(f"  node {index} = " + " + ".join(f"{name}({source})" for name, source in node))
    sizes = {key: value for key, value in architecture.items() if key not in ("genotype", "origin")}
    lines += [f"{name.replace('_', ' '):20} {value!s:>16}" for name, value in sizes.items()]
    for name, value in facts.items():
        text = value if isinstance(value, str) else f"{value:,}"
        lines.append(f"{name.replace('_', ' '):20} {text:>16}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
