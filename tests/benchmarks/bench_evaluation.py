"""Seconds per few-shot episode: ours, and RFS's own way, with the same network and images on the same machine.

RFS's way (its eval/meta_eval.py, written anew): a DataLoader with two workers gives one episode at a time, each
image through Pillow and torchvision's transforms, supports in five augmented copies; a forward pass of the
supports and one of the queries; features divided by their norms; scikit-learn's logistic regression. 1-shot and
5-shot are two evaluations, each with episodes of its own. Ours: `metantk.evaluation`, both at once.

The network has its initial weights, unless `--model` names a trained one. The ways take turns, each in a process of
its own, RFS's with PyTorch's default memory settings. Its seconds are those of some episodes, ours those
of a whole evaluation. `--processor` counts the seconds of processors instead of the clock's, for machines that are
busy with other things.

Example:
    python tests/benchmarks/bench_evaluation.py --data results/caltech101/data --threads 2
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "scripts"), str(Path(__file__).resolve().parents[1])]
import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from PIL import Image
from plain_cells import PlainNetwork
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as torchvision_transforms

from metantk.backbones.cells import stack
from metantk.data.episodes import Episode, EpisodeSampler
from metantk.data.store import Split, load_split
from metantk.evaluation import evaluate
from metantk.learners import rfs
from metantk.models import Model, load_model
from metantk.options.evaluation import EvaluationOptions
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime import devices

HERE = Path(__file__).resolve()
CPU = torch.device("cpu")
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # as PyTorch's threads wait by default
MEAN, STD = [0.4721, 0.4533, 0.4100], [0.2772, 0.2678, 0.2845]
PADDING, JITTER = 8, 0.4
# A cell with every kind of operation that searches choose.
GENOTYPE = {
    kind: [
        [["sep_conv_3x3", 0], ["dil_conv_3x3", 1]],
        [["skip_connect", 0], ["conv_1x5_5x1", 1]],
        [["avg_pool_3x3", 0], ["dil_conv_5x5", 2]],
    ]
    for kind in ("normal", "reduce")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="prepared data set [1400 random images]")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a trained one [5 cells × 16 channels]")
    parser.add_argument("--size", type=int, default=32, help="of random images [32]")
    parser.add_argument("--episodes", type=int, default=1000, help="of ours [1000]")
    parser.add_argument("--their-episodes", type=int, default=20, help="of RFS's, per number of shots [20]")
    parser.add_argument("--turns", type=int, default=2, help="of each way [2]")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, and workers of RFS's loader [2]")
    parser.add_argument("--processor", action="store_true", help="count processors' seconds, not the clock's")
    parser.add_argument("--way", choices=list(WAYS), help="run one of them in this process, and print its seconds")
    arguments = parser.parse_args()
    if arguments.way:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(WAYS[arguments.way](arguments)))
        return
    found = {name: [] for name in WAYS}
    for _ in range(arguments.turns):
        for name in WAYS:
            command = [sys.executable, str(HERE), *sys.argv[1:], "--way", name]
            environment = environment_of(name, arguments.threads)
            run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if run.returncode:
                sys.exit(run.stderr)
            found[name].append(json.loads(run.stdout.splitlines()[-1]))
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    report = {f"{name}_seconds_per_episode": round(median, 4) for name, median in medians.items()}
    report["accuracy"] = {name: runs[0]["accuracy"] for name, runs in found.items()}
    report["ratio"] = round(medians["rfs"] / medians["ours"], 1)
    print(json.dumps(report))


def environment_of(way: str, threads: int) -> dict[str, str]:
    """Ours is told its threads, as Snakemake tells each job; those of others wait as PyTorch's do by default."""
    return os.environ | ({"OMP_NUM_THREADS": str(threads)} if way == "ours" else SPINNING)


def clock(arguments: argparse.Namespace) -> Callable[[], float]:
    """Seconds by the clock, or of processors, those of processes that have ended included."""
    return (lambda: sum(os.times()[:4])) if arguments.processor else time.perf_counter


def make(arguments: argparse.Namespace) -> tuple[Model, Split]:
    if arguments.data:
        split = load_split(arguments.data, "test")
    else:
        labels = np.repeat(np.arange(28), 50)
        shape = (len(labels), arguments.size, arguments.size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        split = Split(images, labels, [str(label) for label in range(28)])
    if arguments.model:
        return load_model(arguments.model, CPU), split
    network = stack(GENOTYPE, cells=5, channels=16, classes=64)
    network.initialise_(devices.generator("weights", 0))
    network = network.to(memory_format=torch.channels_last).eval()
    return Model(network, RfsOptions(), rfs, {}, MEAN, STD, {}), split


def run_ours(arguments: argparse.Namespace) -> dict:
    """Seconds per episode, 1-shot and 5-shot together, and the two accuracies."""
    devices.keep_freed_memory()
    model, split = make(arguments)
    options = EvaluationOptions(
        episodes=arguments.episodes, augmentation={"padding": PADDING, "jitter": JITTER, "flip": True}
    )
    now = clock(arguments)
    began = now()
    rows = list(evaluate(model, split, options, where="here"))
    seconds = (now() - began) / len(rows)
    return {"seconds": seconds, "accuracy": [round(np.mean([row[shots] for row in rows]), 1) for shots in (1, 5)]}


class Episodes(Dataset):
    """RFS's way to an episode: images one by one through Pillow."""

    def __init__(self, split: Split, episodes: list[Episode], mean: list[float], std: list[float]) -> None:
        self.split, self.episodes = split, episodes
        size = split.images.shape[1]
        ending = [torchvision_transforms.ToTensor(), torchvision_transforms.Normalize(mean, std)]
        self.plain = torchvision_transforms.Compose(ending)
        self.augmented = torchvision_transforms.Compose(
            [
                torchvision_transforms.RandomCrop(size, padding=PADDING),
                torchvision_transforms.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
                torchvision_transforms.RandomHorizontalFlip(),
                *ending,
            ]
        )

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        episode = self.episodes[index]
        return tuple(
            torch.stack([change(Image.fromarray(self.split.images[image])) for image in images])
            for change, images in [
                (self.augmented, np.repeat(episode.support.ravel(), 5)),
                (self.plain, episode.query.ravel()),
            ]
        )


@torch.no_grad()
def run_rfs(arguments: argparse.Namespace) -> dict:
    """Seconds per episode, 1-shot and 5-shot together, the start of the workers left out; the two accuracies."""
    model, split = make(arguments)
    # As RFS would have it: PyTorch's own modules and order of axes.
    network = PlainNetwork(model.network).to(memory_format=torch.contiguous_format).eval()
    seconds, accuracies, now = 0.0, [], clock(arguments)
    for shots in (1, 5):
        sampler = EpisodeSampler(split.labels, ways=5, shots=shots, queries=15, where="here")
        episodes = list(sampler.episodes(arguments.their_episodes + 1, seed=0))
        loader = iter(DataLoader(Episodes(split, episodes, model.mean, model.std), batch_size=1, num_workers=2))
        before = now()
        correct = [answer(network, *next(loader), shots)]
        began = now()
        correct += [answer(network, *episode, shots) for episode in loader]
        if arguments.processor:  # the workers' seconds are known when they have ended
            del loader
            seconds += (now() - before) / len(correct)
        else:
            seconds += (now() - began) / (len(correct) - 1)
        accuracies.append(round(100 * np.mean(correct), 1))
    return {"seconds": seconds, "accuracy": accuracies}


def answer(network: nn.Module, support: Tensor, query: Tensor, shots: int) -> float:
    """The share of an episode's queries that are named rightly."""
    features = [torch.nn.functional.normalize(network.features(part[0])) for part in (support, query)]
    support, query = (part.numpy() for part in features)
    classifier = LogisticRegression(penalty="l2", random_state=0, C=1.0, solver="lbfgs", max_iter=1000)
    classifier.fit(support, np.repeat(np.arange(5), shots * 5))
    return float((classifier.predict(query) == np.repeat(np.arange(5), 15)).mean())


WAYS = {"ours": run_ours, "rfs": run_rfs}

if __name__ == "__main__":
    main()
