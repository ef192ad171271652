"""Adapt to many test tasks: one after the other, as the learner `maml` does, or all in one batch (vmap).

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_adaptation.py --episodes 16

prints processor seconds per episode of both for networks of several sizes, and how far their logits differ.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from metantk import backbones
from metantk.devices import generator
from metantk.learners.adaptation import InnerLoop, Stateless, adapt_and_answer
from metantk.searches.sample import random_genotype
from metantk.space.genotype import SPACES

WAYS, QUERIES = 5, 75
GENOTYPE = random_genotype(SPACES["few-shot"], 0)
NETWORKS = {
    "conv4, 32 channels": ({"kind": "conv4", "channels": 32, "image_size": 32}, 32),
    "5 cells, 16 channels": ({"kind": "cells", "genotype": GENOTYPE, "cells": 5, "channels": 16}, 32),
    "3 cells, 4 channels": ({"kind": "cells", "genotype": GENOTYPE, "cells": 3, "channels": 4}, 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    inner = InnerLoop(arguments.steps, 0.05)
    labels = torch.arange(WAYS).repeat_interleave(arguments.shots)
    for title, (architecture, side) in NETWORKS.items():
        network = backbones.build(architecture, WAYS)
        network.initialise_(generator("bench", 0))
        network.train().to(memory_format=torch.channels_last)
        draws = generator("bench pictures", 0)
        support, query = (
            torch.randn(arguments.episodes, count, 3, side, side, generator=draws)
            for count in (len(labels), QUERIES)
        )
        in_turn, seconds = timed(one_by_one, network, support, labels, query, inner)
        together, batched = timed(in_one_batch, network, support, labels, query, inner)
        found = {
            "network": title,
            "in_turn": round(seconds / arguments.episodes, 4),
            "in_one_batch": round(batched / arguments.episodes, 4),
            "in_turn_over_batch": round(seconds / batched, 2),
            "largest_difference": float((in_turn - together).abs().max()),
        }
        print(json.dumps(found))


def timed(answer, *arguments) -> tuple[Tensor, float]:
    """The logits, and the processor seconds that they took; a first call, of one episode, warms up."""
    network, support, labels, query, inner = arguments
    answer(network, support[:1], labels, query[:1], inner)
    began = time.process_time()
    return answer(*arguments), time.process_time() - began


@torch.no_grad()
def one_by_one(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, inner: InnerLoop) -> Tensor:
    """`(episodes, queries, ways)`"""
    answers = []
    for pictures, asked in zip(support, query, strict=True):
        pictures, asked = (part.contiguous(memory_format=torch.channels_last) for part in (pictures, asked))
        stateless = Stateless(network, inner.adapt)
        answers += adapt_and_answer(stateless, pictures, labels, asked, inner, [inner.steps])
    return torch.stack(answers)


def in_one_batch(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, inner: InnerLoop) -> Tensor:
    """The same by the transforms of torch.func; norms keep no running averages, which vmap cannot write."""
    own = copy.deepcopy(network)
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    first = {name: parameter.detach() for name, parameter in own.named_parameters()}

    def loss(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(own, weights, (pictures,)), labels)

    def adapted(pictures: Tensor, asked: Tensor) -> Tensor:
        weights = first
        for _ in range(inner.steps):
            slopes = grad(loss)(weights, pictures)
            weights = {name: weights[name] - inner.rate * slopes[name] for name in weights}
        return functional_call(own, weights, (asked,))

    return vmap(adapted)(support, query)


if __name__ == "__main__":
    main()
