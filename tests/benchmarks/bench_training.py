"""Images per second of RFS's training: ours, and RFS's own loop, with the same network on the same machine.

RFS's loop, written anew: each image through Pillow and torchvision's transforms in a DataLoader with two workers;
the network of PyTorch's own modules, as it reads, in PyTorch's default order of axes and with its default memory
settings; SGD. Ours: `metantk.training` with the learner `rfs`. Neither drops paths. The ways take turns, each in a
process of its own; the start of the workers and a first step are left out. `--processor` counts the seconds of
processors instead of the clock's, those of the workers included, for machines that are busy with other things.

Example:
    python tests/benchmarks/bench_training.py --size 32 --threads 2
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "scripts"), str(HERE.parents[1]), str(HERE.parent)]
import metantk  # isort: skip  # noqa: F401  # before torch: how its threads wait
import torch
from bench_evaluation import GENOTYPE, JITTER, MEAN, PADDING, STD, clock, environment_of
from PIL import Image
from plain_cells import PlainNetwork
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as torchvision_transforms

from metantk.backbones.cells import stack
from metantk.data.images import ImageData
from metantk.learners.rfs import Learner
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime import devices
from metantk.training import Trainer

CPU = torch.device("cpu")
CLASSES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="of images [32]")
    parser.add_argument("--channels", type=int, default=16, help="of the first cells [16]")
    parser.add_argument("--batch", type=int, default=64, help="images per step [64]")
    parser.add_argument("--steps", type=int, default=24, help="per turn [24]")
    parser.add_argument("--turns", type=int, default=3, help="of each way [3]")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch [2]")
    parser.add_argument("--precision", default="float32", help="of ours [float32]")
    parser.add_argument("--processor", action="store_true", help="count processors' seconds")
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
            found[name].append(arguments.batch * arguments.steps / json.loads(run.stdout.splitlines()[-1]))
    rates = {name: statistics.median(values) for name, values in found.items()}
    report = {f"{name}_images_per_second": round(rate, 1) for name, rate in rates.items()}
    report["ratio"] = round(rates["ours"] / rates["rfs"], 2)
    print(json.dumps(report))


def draw(arguments: argparse.Namespace) -> tuple[np.ndarray, Tensor]:
    """Images for a first step and those that count."""
    count = arguments.batch * (arguments.steps + 1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, arguments.size, arguments.size, 3), dtype=np.uint8)
    return images, torch.from_numpy(rng.integers(0, CLASSES, count))


def make_network(arguments: argparse.Namespace) -> nn.Module:
    network = stack(GENOTYPE, cells=5, channels=arguments.channels, classes=CLASSES)
    network.initialise_(devices.generator("weights", 0))
    return network


def run_ours(arguments: argparse.Namespace) -> float:
    devices.keep_freed_memory()
    images, labels = draw(arguments)
    options = RfsOptions(
        epochs=1,
        batch_size=arguments.batch,
        drop_rate=0.0,
        precision=arguments.precision,
        augmentation={"padding": PADDING, "jitter": JITTER, "flip": True},
    )
    data = ImageData(torch.from_numpy(images), labels, CPU, MEAN, STD)
    trainer = Trainer(Learner(options, make_network(arguments), data, 0), data, seed=0)
    moments, now = [], clock(arguments)
    trainer.train_epoch(lambda _: moments.append(now()))
    return moments[-1] - moments[0]


class ImageByImage(Dataset):
    """RFS's way."""

    def __init__(self, images: np.ndarray, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.transform = torchvision_transforms.Compose(
            [
                torchvision_transforms.RandomCrop(images.shape[1], padding=PADDING),
                torchvision_transforms.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
                torchvision_transforms.RandomHorizontalFlip(),
                torchvision_transforms.ToTensor(),
                torchvision_transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def run_rfs(arguments: argparse.Namespace) -> float:
    images, labels = draw(arguments)
    network = PlainNetwork(make_network(arguments)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    dataset = ImageByImage(images, labels)
    moments: list[float] = []
    now = (
        (lambda: sum(os.times()[:2])) if arguments.processor else time.perf_counter
    )  # without the workers' seconds
    for batch, targets in DataLoader(dataset, arguments.batch, shuffle=True, num_workers=2, drop_last=True):
        loss = nn.functional.cross_entropy(network(batch), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
        moments.append(now())
    seconds = moments[-1] - moments[0]
    if arguments.processor:
        seconds += sum(os.times()[2:4]) * arguments.steps / len(moments)
    return seconds


WAYS = {"ours": run_ours, "rfs": run_rfs}

if __name__ == "__main__":
    main()
