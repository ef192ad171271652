"""How near a computation is to what this processor can do: operations, bytes moved, and the time that they need.

A training step and the kernels of a search's first round are counted call by call (see metantk.footprint):
operations of convolutions and products, and bytes of each call's inputs and outputs. The processor's speeds are
measured: a product of matrices, and an addition whose tensors have the median size of the counted calls. A call
needs at least the longer of its arithmetic and its traffic; the sum over calls is the roofline. All in one process
with one thread, in seconds of the processor.

A second table has what the candidates of a search's first round compute alike, and what sharing it could save: the
stem and the edges of the first cell's inputs, forward. All else differs, as gradients do in every layer.

Example:
    OMP_NUM_THREADS=1 python tests/benchmarks/roofline.py
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "scripts"), str(HERE.parents[1]), str(HERE.parent)]
import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from bench_evaluation import GENOTYPE
from bench_training import CLASSES, CPU
from plain_cells import PlainNetwork
from torch import nn

from metantk import gpu_steps
from metantk.backbones.cells import stack
from metantk.footprint import Call, Footprint
from metantk.kernels import empirical_kernels
from metantk.runtime import devices
from metantk.space.genotype import SPACES, cell_types
from metantk.space.supernet import Context, Supernet, full_masks, mixing_weights

BATCH, KERNEL_IMAGES, WAYS = 64, 30, 5
CANDIDATES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each computation; the median counts [5]")
    repeats = parser.parse_args().repeats
    devices.keep_freed_memory()
    peak = speed_of_arithmetic(repeats)
    print(f"a product of matrices: {peak / 1e9:.0f} GFLOP/s")
    columns = ("computation", "calls", "GFLOP", "GB moved", "GB/s", "arithmetic", "traffic", "roofline", "measured")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, job in jobs():
        print(f"| {name} | {' | '.join(row(job, peak, repeats))} |", flush=True)
    print("\n| supernet | GFLOP of a candidate | alike | GB moved | alike |\n|---|---|---|---|---|")
    for cells, channels in ((5, 16), (5, 48), (8, 48)):
        (operations, moved), alike = of_a_candidate(cells, channels), alike_in_all(cells, channels)
        print(
            f"| {cells} cells × {channels} | {operations / 1e9:.1f} | {alike[0] / operations:.1%} "
            f"| {moved / 1e9:.1f} | {alike[1] / moved:.1%} |"
        )


def jobs() -> list[tuple[str, Callable[[], object]]]:
    return [
        ("training step, 5 cells × 16, 32×32", training_step(16, 32)),
        ("the same, PyTorch's own modules", training_step(16, 32, plain=True)),
        ("training step, 5 cells × 48, 32×32", training_step(48, 32)),
        ("training step, 5 cells × 16, 84×84", training_step(16, 84)),
        (f"kernels of {CANDIDATES} candidates, 5 cells × 16, 32×32", kernels(16)),
    ]


def row(job: Callable[[], object], peak: float, repeats: int) -> list[str]:
    """Counts, and seconds: of all arithmetic, of all traffic, of the longer one of each call, measured."""
    job()
    with Footprint(CPU) as footprint:
        job()
    calls = footprint.calls
    bandwidth = speed_of_traffic(calls, repeats)
    arithmetic, traffic = sum(call.operations for call in calls), sum(call.moved for call in calls)
    roofline = sum(max(call.operations / peak, call.moved / bandwidth) for call in calls)
    seconds = (arithmetic / peak, traffic / bandwidth, roofline, measure(job, repeats))
    counts = (str(len(calls)), f"{arithmetic / 1e9:.1f}", f"{traffic / 1e9:.2f}", f"{bandwidth / 1e9:.0f}")
    return [*counts, *(f"{value:.3f} s" for value in seconds)]


def measure(job: Callable[[], object], repeats: int) -> float:
    """Processor seconds of one turn, the median."""
    job()
    turns = []
    for _ in range(repeats):
        began = time.process_time()
        job()
        turns.append(time.process_time() - began)
    return statistics.median(turns)


def speed_of_arithmetic(repeats: int) -> float:
    """Operations per second."""
    size = 2048
    left, right, out = (torch.ones(size, size) for _ in range(3))
    return 2 * size**3 / measure(lambda: torch.mm(left, right, out=out), repeats)


def speed_of_traffic(calls: list[Call], repeats: int) -> float:
    """Bytes per second of additions of the median size, by bytes: what caches hold is moved faster."""
    sizes = sorted(call.moved for call in calls)
    half, total = sum(sizes) / 2, 0
    for size in sizes:
        total += size
        if total >= half:
            break
    left, right, out = (torch.ones(size // 12) for _ in range(3))
    turns = max(1, 10**8 // size)

    def add() -> None:
        for _ in range(turns):
            torch.add(left, right, out=out)

    return turns * 12 * left.numel() / measure(add, repeats)


def training_step(channels: int, size: int, *, plain: bool = False) -> Callable[[], object]:
    """Forward, backward and SGD, as RFS trains; images are ready."""
    network: nn.Module = stack(GENOTYPE, cells=5, channels=channels, classes=CLASSES)
    network.initialise_(devices.generator("weights", 0))
    form = torch.contiguous_format if plain else torch.channels_last
    network = (PlainNetwork(network) if plain else network).to(memory_format=form).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=form)
    labels = torch.arange(BATCH) % CLASSES

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()

    return step


def kernels(channels: int) -> Callable[[], object]:
    space = SPACES["few-shot"]
    masks = full_masks(space)
    network = Supernet(space, masks, cell_types(5), channels, outputs=WAYS)
    images = torch.randn(KERNEL_IMAGES, 3, 32, 32)
    chunk = {kind: mask.repeat(CANDIDATES, 1, 1) for kind, mask in masks.items()}
    return lambda: empirical_kernels(network, images, chunk)


def of_a_candidate(cells: int, channels: int) -> tuple[float, float]:
    """Operations and bytes moved of the kernels of one more candidate."""
    counted = gpu_steps.kernel_chunks(
        SPACES["few-shot"],
        cells=cells,
        channels=channels,
        outputs=WAYS,
        images=KERNEL_IMAGES,
        size=32,
        dtype=torch.float32,
    )
    few, many = (total(counted.calls(count)) for count in (2, 3))
    return many[0] - few[0], many[1] - few[1]


@torch.no_grad()
def alike_in_all(cells: int, channels: int) -> tuple[float, float]:
    """Operations and bytes moved of what no candidate of a first round changes."""
    space, masks, meta = SPACES["few-shot"], full_masks(SPACES["few-shot"]), gpu_steps.META
    with Footprint(meta) as footprint:
        network = Supernet(space, masks, cell_types(cells), channels, outputs=WAYS).to(meta)
        images = torch.empty(KERNEL_IMAGES, 3, 32, 32, device=meta)
        weights = {kind: mixing_weights(mask[None].to(meta), torch.float32) for kind, mask in masks.items()}
        context, first = Context(weights, network.norms, None, None), network.cells[0]
        footprint.reset()
        image = context.norm(network.stem(images), channels)
        for preprocess, fan in zip(first.preprocess, first.fans, strict=False):
            fan(preprocess(image, context), weights[first.kind], context)
    return total(footprint.calls)


def total(calls: list[Call]) -> tuple[float, float]:
    return sum(call.operations for call in calls), sum(call.moved for call in calls)


if __name__ == "__main__":
    main()
