"""Count what steps of the paper's size need of GPUs that are not there: memory, launches, operations, time.

Prints two tables in Markdown: training steps and an evaluation's chunk, and the kernels of a search. Memory and
calls are counted on PyTorch's `meta` device. Times are computed from data sheets and two assumptions, not measured
(see metantk.footprint).

Example:
    python scripts/estimate_gpu.py

Time: two minutes of one core; no GPU.
"""

import itertools
from collections.abc import Iterator

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch

from metantk import gpu_steps
from metantk.gpu_steps import GPUS, Counted
from metantk.options import catalogue
from metantk.options.base import parse
from metantk.runtime import plugins
from metantk.runtime.command_line import make_parser, run
from metantk.space.genotype import SPACES, read_named

GPU_NAMES = [gpu.name for gpu in GPUS]
CARDS = (16e9, 24e9, 80e9)
# miniImageNet's training split, and the paper's networks.
CLASSES, PER_CLASS, SIZE, CHANNELS = 64, 600, 84, 48
CELLS = {cells: read_named(f"metantk_mini_{cells}cell_1") for cells in (5, 8)}
# The first round of a search: all operations, and each without one. 3 tasks of 5 queries and 5 supports.
SPACE = SPACES["few-shot"]
KERNEL_IMAGES, KERNEL_SIZE, WAYS = 30, 32, 5
CANDIDATES = 1 + 2 * len(SPACE.edges) * len(SPACE.operations)


NOT_COUNTED = (
    "All in float32, MetaOptNet with its ridge head. Not counted: bfloat16, which the `meta` device does not know, "
    "and the support vector machine, which reads numbers back."
)


def main() -> None:
    make_parser(__doc__).parse_args()
    for text in itertools.chain(step_table(), [""], search_table(), ["", NOT_COUNTED]):
        print(text, flush=True)


def step_table() -> Iterator[str]:
    """Lines for trainings on miniImageNet, and for the chunk of an evaluation."""
    yield line("step", "GB", *(f"{card / 1e9:.0f} GB" for card in CARDS), "calls", "TFLOP", *GPU_NAMES)
    yield line(*["---"] * (4 + len(CARDS) + len(GPUS)))
    for name, counted in steps():
        fits = ["fits" if counted.peak < card else "no" for card in CARDS]
        operations = sum(call.operations for call in counted.calls) / 1e12
        times = [f"{1e3 * counted.seconds(gpu):.0f} ms" for gpu in GPUS]
        yield line(name, f"{counted.peak / 1e9:.2f}", *fits, len(counted.calls), f"{operations:.2f}", *times)


def steps() -> Iterator[tuple[str, Counted]]:
    for cells in CELLS:
        yield f"RFS, {cells} cells, 64 images", training_step("rfs", cells_of(cells))
        yield f"RFS, {cells} cells, recomputed", training_step("rfs", cells_of(cells), recompute=True)
    for cells in CELLS:
        yield f"evaluation, {cells} cells", evaluation_chunk(cells_of(cells))
    resnet, flat = backbone("resnet12"), backbone("resnet12-flat")
    yield "evaluation, ResNet-12", evaluation_chunk(resnet)
    yield "RFS, ResNet-12, 64 images", training_step("rfs-resnet12", resnet)
    yield "MetaOptNet, ResNet-12, 8 tasks", training_step("metaoptnet-ridge", flat)
    yield "MetaOptNet, recomputed", training_step("metaoptnet-ridge", flat, recompute=True)
    yield "MAML, Conv4, 4 tasks", training_step("maml", backbone("conv4"), shots=[5])


def search_table() -> Iterator[str]:
    """Lines for the kernels of the first round: candidates at once, and the time of all of them."""
    chunks = (f"candidates in {card / 1e9:.0f} GB" for card in CARDS)
    yield line("supernet", "GB, one candidate", "GB, one more", *chunks, "calls of a chunk", *GPU_NAMES)
    yield line(*["---"] * (4 + len(CARDS) + len(GPUS)))
    for cells in CELLS:
        counted = gpu_steps.kernel_chunks(
            SPACE,
            cells=cells,
            channels=CHANNELS,
            outputs=WAYS,
            images=KERNEL_IMAGES,
            size=KERNEL_SIZE,
            dtype=torch.float32,
        )
        times = [f"{counted.seconds(gpu, CANDIDATES):.1f} s" for gpu in GPUS]
        each = counted.bytes_each
        sizes = (f"{size / 1e9:.2f}" for size in (counted.bytes_fixed + each, each))
        fitting = map(counted.fitting, CARDS)
        yield line(f"{cells} cells × {CHANNELS}", *sizes, *fitting, len(counted.few.calls), *times)


def evaluation_chunk(architecture: dict) -> Counted:
    return gpu_steps.features(architecture, 1, classes=CLASSES, size=SIZE)


def line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def cells_of(cells: int) -> dict:
    return backbone("cells", CELLS[cells], cells=cells, channels=CHANNELS)


def backbone(name: str, genotype: dict | None = None, **options: object) -> dict:
    """The architecture of a backbone of the catalogue, for images of miniImageNet's size."""
    given = catalogue.ENTRIES["backbones"][name].options if name != "cells" else {"kind": "cells"}
    parsed = parse(plugins.options_class("backbones", given["kind"]), given | options, where=name)
    return parsed.architecture(SIZE, genotype)


def training_step(learner: str, architecture: dict, *, recompute: bool = False, **options: object) -> Counted:
    """The second step of a training, its optimiser included; the images of the data set are not."""
    given = catalogue.ENTRIES["learners"][learner].options
    parsed = parse(plugins.options_class("learners", given["kind"]), given | options, where=learner)
    return gpu_steps.training_step(
        parsed, architecture, classes=CLASSES, per_class=PER_CLASS, size=SIZE, recompute=recompute
    )


if __name__ == "__main__":
    run(main)
