"""Processor seconds of a task of second-order MAML's training: ours, and a loop by hand.

5-way 5-shot, 75 query images of 32×32 pixels, 5 inner steps, forward and backward. Ours is
`metantk.learners.maml.tasks_loss`. By hand: `torch.func.functional_call`, `torch.autograd.grad` with
`create_graph`, PyTorch's own order of axes. The ways take turns in one process. That both give the same gradient
is a unit test (`test_another_network_agrees_with_an_obvious_loop`).

Example:
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_second_order.py
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "scripts"), str(HERE.parents[1])]
import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from bench_adaptation import CELLS, CONV4, WAYS
from plain_cells import made_plain
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from metantk import backbones
from metantk.learners.maml import tasks_loss
from metantk.runtime import devices

NETWORKS = {"conv4, 32 channels": CONV4, "5 cells, 16 channels": CELLS}
SHOTS, QUERIES, SIDE, STEPS, RATE = 5, 15, 32, 5, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5, help="of each way and turn [5]")
    parser.add_argument("--turns", type=int, default=3, help="of each way [3]")
    arguments = parser.parse_args()
    devices.keep_freed_memory()
    torch.set_num_threads(1)
    for name, architecture in NETWORKS.items():
        networks, tasks = make(architecture)
        seconds = {way: [] for way in WAYS_TO_LEARN}
        for turn in range(arguments.turns + 1):
            for way, learn in WAYS_TO_LEARN.items():
                began = time.process_time()
                for _ in range(arguments.tasks):
                    networks[way].zero_grad()
                    learn(networks[way], *tasks)
                if turn:  # the first only warms up
                    seconds[way].append((time.process_time() - began) / arguments.tasks)
        medians = {way: statistics.median(each) for way, each in seconds.items()}
        report = {f"{way}_seconds": round(median, 3) for way, median in medians.items()}
        ratio = {"by_hand_over_ours": round(medians["by_hand"] / medians["ours"], 2)}
        print(json.dumps({"network": name} | report | ratio), flush=True)


def make(architecture: dict) -> tuple[dict[str, nn.Module], tuple[Tensor, ...]]:
    """A network for each way, with the same weights, and a task."""
    draws = devices.generator("bench", 0)
    network = backbones.build(architecture, WAYS).train()
    network.initialise_(draws)
    plain = made_plain(copy.deepcopy(network))
    images = [torch.randn(WAYS * count, 3, SIDE, SIDE, generator=draws) for count in (SHOTS, QUERIES)]
    labels = [torch.arange(WAYS).repeat_interleave(count) for count in (SHOTS, QUERIES)]
    networks = {"ours": network.to(memory_format=torch.channels_last), "by_hand": plain}
    return networks, (images[0], labels[0], images[1], labels[1])


def learn_by_ours(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, wanted: Tensor) -> None:
    support, query = (part.contiguous(memory_format=torch.channels_last) for part in (support, query))
    losses, _ = tasks_loss(network, support[None], labels[None], query[None], wanted[None], steps=STEPS, rate=RATE)
    losses.sum().backward()


def learn_by_hand(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, wanted: Tensor) -> None:
    weights = dict(network.named_parameters())
    for _ in range(STEPS):
        loss = functional.cross_entropy(functional_call(network, weights, (support,)), labels)
        gradients = torch.autograd.grad(
            loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        moved = zip(weights.items(), gradients, strict=True)
        weights = {name: weight - RATE * gradient for (name, weight), gradient in moved}
    functional.cross_entropy(functional_call(network, weights, (query,)), wanted).backward()


WAYS_TO_LEARN = {"ours": learn_by_ours, "by_hand": learn_by_hand}

if __name__ == "__main__":
    main()
