"""Seconds per test episode of the learners that adapt to each: ours, and one episode after the other by hand.

Ours is `metantk.evaluation` with the learners `maml`, `anil` and `metaoptnet`, 5-way, 75 queries. By hand: a copy
of the network for each episode, PyTorch's own modules, order of axes and default memory settings, and `SGD` on
the supports (MAML); for ANIL, features once and then a copy of the head; for MetaOptNet, features of the episode's
images and our support vector machine. The ways take turns, each in a process of its own; `--processor` counts the
seconds of processors instead of the clock's, for machines that are busy with other things.

`--batch` times another way beside: MAML's episodes in one batch, by the transforms of torch.func.

Example:
    python tests/benchmarks/bench_adaptation.py --threads 2
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "scripts"), str(HERE.parents[1]), str(HERE.parent)]
import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from bench_evaluation import MEAN, STD, clock, environment_of
from plain_cells import made_plain
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from metantk import backbones
from metantk.data.episodes import EpisodeSampler
from metantk.data.store import Split
from metantk.evaluation import evaluate
from metantk.learners import heads
from metantk.models import Model
from metantk.options.config import parse_config
from metantk.options.evaluation import EvaluationOptions
from metantk.runtime import devices, plugins
from metantk.searches.sample import random_genotype
from metantk.space.genotype import SPACES

WAYS, QUERIES, CLASSES, IMAGES = 5, 15, 20, 70
GENOTYPE = random_genotype(SPACES["few-shot"], 0)
CONV4 = {"kind": "conv4", "channels": 32, "image_size": 32}
CELLS = {"kind": "cells", "genotype": GENOTYPE, "cells": 5, "channels": 16}
SMALL_CELLS = {"kind": "cells", "genotype": GENOTYPE, "cells": 3, "channels": 4}
RESNET12 = {"kind": "resnet12", "widths": [16, 40, 80, 160]}
# What is adapted: the architecture, the side of its images, and the learner.
CASES = {
    "maml, conv4": (CONV4, 32, "maml"),
    "maml, 5 cells, 16 channels": (CELLS, 32, "maml"),
    "maml, 3 cells, 4 channels": (SMALL_CELLS, 20, "maml"),
    "anil, conv4": (CONV4, 32, "anil"),
    "metaoptnet, resnet12": (RESNET12, 32, "metaoptnet"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=200, help="of ours [200]")
    parser.add_argument("--their-episodes", type=int, default=10, help="by hand [10]")
    parser.add_argument("--turns", type=int, default=2, help="of each way [2]")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch [2]")
    parser.add_argument("--processor", action="store_true", help="count processors' seconds, not the clock's")
    parser.add_argument("--batch", action="store_true", help="time MAML in one batch, too")
    parser.add_argument("--way", choices=list(SECONDS), help="run one of them in this process: seconds per episode")
    arguments = parser.parse_args()
    if arguments.way:
        torch.set_num_threads(arguments.threads)
        print(SECONDS[arguments.way](arguments, *CASES[arguments.cases[0]]))
        return
    for case in arguments.cases:
        ways = [way for way in SECONDS if way != "batch" or (arguments.batch and case.startswith("maml"))]
        found = {way: [] for way in ways}
        for _ in range(arguments.turns):
            for way in ways:
                found[way].append(seconds_of(way, case, arguments))
        medians = {way: statistics.median(seconds) for way, seconds in found.items()}
        report = {f"{way}_seconds_per_episode": round(median, 4) for way, median in medians.items()}
        ratios = {f"{way}_over_ours": round(medians[way] / medians["ours"], 2) for way in ways[1:]}
        print(json.dumps({"case": case} | report | ratios), flush=True)


def seconds_of(way: str, case: str, arguments: argparse.Namespace) -> float:
    """Per episode, in a process of its own."""
    command = [sys.executable, str(HERE), *sys.argv[1:], "--way", way, "--cases", case]
    environment = environment_of(way, arguments.threads)
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        sys.exit(run.stderr)
    return float(run.stdout.splitlines()[-1])


def make(architecture: dict, side: int, learner: str) -> tuple[Model, Split]:
    """An untrained network of that learner, and random images."""
    row = {"backbone": "conv4", "learner": learner}
    options = parse_config({"datasets": {"glyphs": {"source": "glyphs"}}, "rows": [row]}).learner(learner)
    module = plugins.load("learners", options.kind)
    network = backbones.build(architecture, module.outputs(options, CLASSES))
    network.initialise_(devices.generator("bench", 0))
    network = network.to(memory_format=torch.channels_last).eval()
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    extra = {"scale": torch.ones(())} if learner == "metaoptnet" else {}
    model = Model(network, options, module, extra, MEAN, STD, {})
    return model, Split(images, labels, [str(label) for label in range(CLASSES)])


def run_ours(arguments: argparse.Namespace, architecture: dict, side: int, learner: str) -> float:
    devices.keep_freed_memory()
    model, split = make(architecture, side, learner)
    if learner != "metaoptnet":
        # One network for the number of shots that is asked for, as if it had been trained so.
        model = model._replace(learner=model.learner.model_copy(update={"shots": [arguments.shots]}))
    options = EvaluationOptions(episodes=arguments.episodes, shots=[arguments.shots], queries=QUERIES)
    now = clock(arguments)
    began = now()
    count = sum(1 for _ in evaluate(model, split, options, where="here"))
    return (now() - began) / count


def run_by_hand(arguments: argparse.Namespace, architecture: dict, side: int, learner: str) -> float:
    model, split = make(architecture, side, learner)
    network = made_plain(copy.deepcopy(model.network)).to(memory_format=torch.contiguous_format)
    answer = {"maml": adapt_all, "anil": adapt_head, "metaoptnet": fit_machine}[learner]
    labels = torch.arange(WAYS).repeat_interleave(arguments.shots)
    sampler = EpisodeSampler(split.labels, ways=WAYS, shots=arguments.shots, queries=QUERIES, where="here")
    now, moments = clock(arguments), []
    for episode in islice(sampler.episodes(arguments.their_episodes + 1, seed=0), arguments.their_episodes + 1):
        support, query = (
            model.prepare(torch.from_numpy(split.images[part.ravel()])).contiguous()
            for part in (episode.support, episode.query)
        )
        answer(network, support, labels, query, model.learner).argmax(1)
        moments.append(now())
    return (moments[-1] - moments[0]) / arguments.their_episodes


def adapt_all(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, options) -> Tensor:
    return answer_adapted(copy.deepcopy(network).train(), support, labels, query, options)


def adapt_head(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, options) -> Tensor:
    with torch.no_grad():
        support, query = (network.train().features(part) for part in (support, query))
    return answer_adapted(copy.deepcopy(network.head), support, labels, query, options)


def answer_adapted(own: nn.Module, support: Tensor, labels: Tensor, query: Tensor, options) -> Tensor:
    optimiser = torch.optim.SGD(own.parameters(), lr=options.inner_lr)
    for _ in range(options.test_steps):
        loss = functional.cross_entropy(own(support), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return own(query)


@torch.no_grad()
def fit_machine(network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, options) -> Tensor:
    support, query = (network.eval().features(part) for part in (support, query))
    return heads.svm_logits(support[None], labels[None], query[None], ways=WAYS, penalty=options.svm_c)[0]


def run_in_one_batch(arguments: argparse.Namespace, architecture: dict, side: int, learner: str) -> float:
    """MAML on as many episodes at once as are run by hand; norms keep no averages, which vmap cannot write."""
    devices.keep_freed_memory()
    model, _ = make(architecture, side, learner)
    own = model.network.train()
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    labels = torch.arange(WAYS).repeat_interleave(arguments.shots)
    first = {name: parameter.detach() for name, parameter in own.named_parameters()}

    def loss(weights: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(own, weights, (images,)), labels)

    def adapted(images: Tensor, asked: Tensor) -> Tensor:
        weights = first
        for _ in range(model.learner.test_steps):
            slopes = grad(loss)(weights, images)
            weights = {name: weights[name] - model.learner.inner_lr * slopes[name] for name in weights}
        return functional_call(own, weights, (asked,))

    draws = devices.generator("bench pictures", 0)
    support, query = (
        torch.randn(arguments.their_episodes, count, 3, side, side, generator=draws)
        for count in (len(labels), WAYS * QUERIES)
    )
    vmap(adapted)(support[:1], query[:1])
    now = clock(arguments)
    began = now()
    vmap(adapted)(support, query)
    return (now() - began) / arguments.their_episodes


SECONDS = {"ours": run_ours, "by_hand": run_by_hand, "batch": run_in_one_batch}

if __name__ == "__main__":
    main()
