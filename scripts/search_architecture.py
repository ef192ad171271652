"""Find an architecture: Algorithm 1 of the paper (MetaNTK-NAS) or a rival search.

The search decides the options: `prune` with the criteria meta_ntk_condition + linear_regions is MetaNTK-NAS, with
ntk_condition + linear_regions TE-NAS; `best-of` is the best of some random architectures, `sample` a uniform
sample, `given` a genotype that is known already, and `fixed` belongs to backbones in which there is nothing to
find. `--search KIND --help` lists a search's options; `--budget.parameters 20k` holds it to a size.

Writes the architecture (architecture.json: all that builds the network), the trace (search.csv: what was measured
and decided) and the cost (search.json); what a search has meta-trained on the way is in search.safetensors. A
search that is ended goes on where it has saved its state last, and finds the same architecture.

Example:
    python scripts/search_architecture.py --data results/glyphs/data --backbone cells --cells 3 --channels 8 \\
        --search prune --criteria '["meta_ntk_condition", "linear_regions"]' --repeats 1 --output my_search
"""

import logging
import time
from pathlib import Path
from typing import NamedTuple

from metantk.data.store import load_split, read_manifest
from metantk.options.base import Options, parse
from metantk.runtime import plugins
from metantk.runtime.checkpoints import CheckpointFile
from metantk.runtime.command_line import add_seed, file_name, make_parser, parse_kind, progress, run
from metantk.runtime.files import (
    DivergedError,
    InputError,
    atomic_write,
    canonical_json,
    check_writable,
    sha256_of,
    write_json,
)
from metantk.runtime.memory import peak_resident_mb
from metantk.runtime.provenance import code_hash, provenance
from metantk.runtime.typed_files import Origin, check_record
from metantk.searches.base import Cost, Found, Problem, check_found

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, kinds={"backbone": ("backbones", "cells"), "search": ("searches", "prune")})
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="prepared data set")
    add_seed(parser)
    parser.add_argument(
        "--backbone-name", type=file_name, metavar="NAME", help="Name of the backbone in the tables [its kind]"
    )
    parser.add_argument(
        "--search-name", type=file_name, metavar="NAME", help="Name of the search in the tables [its kind]"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of architecture.json, search.csv, search.json",
    )
    arguments = parser.parse_args()
    backbone, search = (parse_kind(arguments, name) for name in ("backbone", "search"))
    if not backbone.searchable and search.kind != "fixed":
        raise InputError(f"--backbone {backbone.kind} has nothing to find: give it --search fixed")
    manifest = read_manifest(arguments.data)
    origin = {
        "dataset": manifest["name"],
        "backbone": arguments.backbone_name or Path(backbone.kind).stem,
        "backbone_title": backbone.title,
        "search": arguments.search_name or Path(search.kind).stem,
        "seed": arguments.seed,
    }
    check_record(origin, Origin, where="--search-name, --backbone-name")
    check_writable(arguments.output)
    files = [
        __file__,
        plugins.options_file("backbones", backbone.kind),  # no search runs the network that is trained later
        *plugins.module_files("searches", search),
    ]
    checkpoint = CheckpointFile(
        arguments.output,
        "search",
        {
            "search": search.model_dump(),
            "backbone": backbone.model_dump(),
            "seed": arguments.seed,
            "code": code_hash(*files),
            "data": sha256_of(arguments.data / "manifest.json"),
        },
    )
    try:
        found, spent = (_search if search.computes else _take)(arguments, manifest, backbone, search, checkpoint)
    except DivergedError:
        checkpoint.remove()
        raise
    image_size = manifest["splits"]["train"]["shape"][0]
    check_found(found, search.kind)
    try:
        architecture = backbone.architecture(image_size, found.genotype)
    except InputError as error:
        raise InputError(f"{search.kind}: find's genotype does not fit: {error}") from None
    if backbone.kind.endswith(".py"):
        is_object = isinstance(architecture, dict) and isinstance(architecture.get("kind"), str)
        plugins.expect(is_object, backbone.kind, "architecture", architecture, "an object with 'kind'")
        parse(
            plugins.load("backbones", backbone.kind).Architecture,
            architecture,
            where=f"{backbone.kind}: architecture",
        )
    report = {
        "seconds": round(spent.seconds, 3),
        "evaluations": sum(cost.evaluations for cost in found.costs.values()),
        "floating_point_operations": sum(cost.operations for cost in found.costs.values()),
        "costs": {name: describe_cost(cost) for name, cost in found.costs.items()},
        "peak_memory_mb": spent.peak_memory_mb,
        **origin,
        **found.facts,
        **provenance(*files, options=search.model_dump(), seed=arguments.seed, device=spent.device),
    }
    _write(arguments.output, found, report, architecture | {"origin": origin})
    checkpoint.remove()
    log.info("found in %.1f s: %s", spent.seconds, canonical_json(architecture))


class Spent(NamedTuple):
    """What a search took: seconds of all attempts, memory in MiB, and the device."""

    seconds: float
    peak_memory_mb: dict[str, float]
    device: str


def _take(
    arguments, manifest: dict, backbone: Options, search: Options, checkpoint: CheckpointFile
) -> tuple[Found, Spent]:
    """What a search has without computing. Neither images nor PyTorch are loaded, which would take seconds."""
    began = time.perf_counter()
    found = plugins.load("searches", search.kind).find(None, search, arguments.seed, checkpoint)
    return found, Spent(time.perf_counter() - began, {"cpu": peak_resident_mb()}, "cpu")


def _search(
    arguments, manifest: dict, backbone: Options, search: Options, checkpoint: CheckpointFile
) -> tuple[Found, Spent]:
    """Do what is left of the search; what it found, and what all attempts spent on it."""
    # Imported here: PyTorch takes seconds to load.
    from metantk.runtime import devices

    device = devices.start(uses_device=search.uses_device)
    began = time.perf_counter()
    timed = _Timed(checkpoint, began)
    module = plugins.load("searches", search.kind)
    with progress(None, total=0, what="search", unit="evaluation") as bar:
        problem = Problem(
            backbone,
            load_split(arguments.data, "train"),
            load_split(arguments.data, "val"),
            manifest["mean"],
            manifest["std"],
            device,
            bar,
        )
        found = module.find(problem, search, arguments.seed, timed)
    seconds = timed.spent + time.perf_counter() - began
    return found, Spent(seconds, devices.peak_memory_mb(device), devices.describe_device(device))


class _Timed:
    """A checkpoint that keeps, with the search's state, the seconds that were spent on it."""

    def __init__(self, file: CheckpointFile, began: float) -> None:
        self.file, self.began = file, began
        self.spent = file.state["seconds"] if file.state else 0.0
        self.state = file.state["state"] if file.state else None
        if file.state:
            log.info("going on after %.1f s of an earlier run", self.spent)

    def save(self, state: dict) -> None:
        self.file.save({"state": state, "seconds": self.spent + time.perf_counter() - self.began})


def describe_cost(cost: Cost) -> dict:
    """A cost for search.json; operations are left out where nothing counts them."""
    described = {"seconds": round(cost.seconds, 3), "evaluations": cost.evaluations}
    if cost.operations:
        described |= {
            "floating_point_operations": cost.operations,
            "floating_point_operations_per_second": round(cost.operations / cost.seconds) if cost.seconds else 0,
        }
    return described


def _write(output: Path, found: Found, report: dict, architecture: dict) -> None:
    """Write all outputs; the architecture, which other stages wait for, last."""
    with atomic_write(output / "search.csv") as temporary:
        found.trace.to_csv(temporary, index=False)
    if found.arrays:
        from safetensors.torch import save

        with atomic_write(output / "search.safetensors") as temporary:
            temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in found.arrays.items()}))
    write_json(output / "search.json", report)
    write_json(output / "architecture.json", architecture)


if __name__ == "__main__":
    run(main)
