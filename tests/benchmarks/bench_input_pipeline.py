"""Augmented batches of 64 images of 84 × 84 per second: ours, and the usual way of RFS, on the same machine.

RFS's way: each image through Pillow and torchvision's transforms (crop, colour jitter, flip, tensor, normalise)
in a DataLoader with two workers. Ours: the same changes on whole batches of a mapped array, in this process, with
two threads, and another that reads ahead (the rules give a training one: --threads 1). The ways take turns, so that
a change of the machine's load meets both; the figures are medians.

Example:
    python tests/benchmarks/bench_input_pipeline.py
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as torchvision_transforms

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from metantk.data import transforms
from metantk.data.store import Split
from metantk.options.augmentation import AugmentationOptions
from metantk.runtime import devices
from metantk.training import place

CPU = torch.device("cpu")
SIDE, BATCH, PADDING, JITTER = 84, 64, 8, 0.4
MEAN, STD = [0.4721, 0.4533, 0.4100], [0.2772, 0.2678, 0.2845]


class ImageByImage(Dataset):
    """RFS's way, written anew."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.transform = torchvision_transforms.Compose(
            [
                torchvision_transforms.RandomCrop(SIDE, padding=PADDING),
                torchvision_transforms.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
                torchvision_transforms.RandomHorizontalFlip(),
                torchvision_transforms.ToTensor(),
                torchvision_transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.fromarray(self.images[index]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60, help="per turn [60]")
    parser.add_argument("--turns", type=int, default=5, help="of each way [5]")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, for ours [2]")
    arguments = parser.parse_args()
    devices.keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.batches * BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        mapped = np.load(Path(folder) / "images.npy", mmap_mode="r")
        ways = {"ours": lambda: run_ours(mapped), "image_by_image": lambda: run_image_by_image(images)}
        rates = {name: [] for name in ways}
        for turn in range(arguments.turns + 1):
            for name, run in ways.items():
                rate = arguments.batches * BATCH / run()
                if turn:  # the first is to warm up
                    rates[name].append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    report = {f"{name}_images_per_second": round(median) for name, median in medians.items()}
    report["ratio"] = round(medians["ours"] / medians["image_by_image"], 2)
    print(json.dumps(report))


def run_ours(mapped: np.ndarray) -> float:
    """Seconds for all batches."""
    options = AugmentationOptions(padding=PADDING, jitter=JITTER, flip=True)
    split = Split(mapped, np.zeros(len(mapped), np.int64), ["class"])
    data = place(split, {"mean": MEAN, "std": STD}, CPU)
    draws = devices.generator("augmentation", 0)
    began = time.perf_counter()
    for raw, _ in data.batches(torch.randperm(len(mapped)).split(BATCH)):
        images = transforms.augment(raw, options, draws)
        transforms.normalise(images, data.mean, data.std)
    return time.perf_counter() - began


def run_image_by_image(images: np.ndarray) -> float:
    """Seconds for all batches, the start of the workers left out."""
    loader = DataLoader(ImageByImage(images), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True)
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    count = 1 + sum(1 for _ in batches)
    return (time.perf_counter() - began) * count / (count - 1)


if __name__ == "__main__":
    main()
