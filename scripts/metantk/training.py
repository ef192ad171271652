"""Training of a backbone by plain classification of all training classes (RFS; paper, section 6.1)."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from metantk import devices, transforms
from metantk.backbones.cells import Network
from metantk.backbones.drop import Drop
from metantk.config import TrainingOptions
from metantk.datasets.store import Split, block_starts
from metantk.devices import generator

log = logging.getLogger("metantk")
SHARE_OF_FREE_MEMORY = 0.5  # of the device's, for pictures; the network and its activations need the rest


class Pictures(NamedTuple):
    """A training split, with what normalises it.

    Attributes:
        images: uint8 `(pictures, height, width, 3)`; on the device, or mapped from the disk.
        labels: int64 `(pictures,)`, on the device.
        mean, std: per channel, for pictures in 0..1.
    """

    images: Tensor | np.ndarray
    labels: Tensor
    mean: list[float]
    std: list[float]

    def batches(self, orders: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures, uint8, and labels on the device, by the numbers of each batch."""
        device = self.labels.device
        if isinstance(self.images, Tensor):
            for numbers in orders:
                numbers = numbers.to(device)
                yield self.images[numbers], self.labels[numbers]
            return
        # The next batch is read from the disk while the device is busy with this one.
        with ThreadPoolExecutor(max_workers=1) as reader:
            reading = ((numbers, reader.submit(self._read, numbers)) for numbers in orders)
            current = next(reading, None)
            while current is not None:
                following = next(reading, None)
                numbers, images = current
                yield images.result().to(device, non_blocking=True), self.labels[numbers.to(device)]
                current = following

    def _read(self, numbers: Tensor) -> Tensor:
        images = torch.from_numpy(self.images[numbers.numpy()])
        return images.pin_memory() if self.labels.device.type == "cuda" else images


def place(train: Split, manifest: dict, device: torch.device) -> Pictures:
    """Put the pictures on a GPU where they fit; else they stay mapped and are read batch by batch."""
    fit = train.images.nbytes <= SHARE_OF_FREE_MEMORY * devices.free_memory(device)
    images = _copy_to(train.images, device) if fit else train.images
    log.info("pictures: %.1f GB, %s", train.images.nbytes / 1e9, "on the device" if fit else "read from the disk")
    return Pictures(images, torch.from_numpy(train.labels).to(device), manifest["mean"], manifest["std"])


def _copy_to(images: np.ndarray, device: torch.device) -> Tensor:
    """Copy block by block, so that the host never holds all of them."""
    copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start, stop in block_starts(0, len(images), images.shape[1:]):
        copy[start:stop] = torch.from_numpy(np.array(images[start:stop]))
    return copy


class Trainer:
    """A network in training and all that a checkpoint must hold.

    The random draws of a step come from generators named by seed, epoch and step, so that a training resumed at any
    step draws what an uninterrupted one draws.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch that runs.
        curve: a row for each finished epoch.
    """

    def __init__(self, network: Network, options: TrainingOptions, *, seed: int) -> None:
        # Pictures come as height × width × channels; convolutions are faster when weights lie the same way.
        self.network = network.to(memory_format=torch.channels_last)
        self.options, self.seed = options, seed
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        self.epoch = self.step = 0
        self.curve: list[dict] = []
        # Summed on the device: reading a number would wait for the device at every step.
        device = next(network.parameters()).device
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def learning_rate(self) -> float:
        passed = sum(self.epoch >= milestone for milestone in self.options.milestones)
        return self.options.learning_rate * self.options.decay**passed

    def state(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "curve": self.curve,
            "loss_sum": self.loss_sum,
            "correct": self.correct,
        }

    def load_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.curve = state["epoch"], state["step"], list(state["curve"])
        self.loss_sum.copy_(state["loss_sum"])
        self.correct.copy_(state["correct"])

    def train_epoch(self, pictures: Pictures, advance: Callable[[int], None]) -> None:
        """What is left of one pass over the pictures; adds a row to the curve (loss in nats, accuracy in percent).

        After each step `advance` is called, and may raise: the state is then that after the step.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        self.network.train()
        for raw, labels in pictures.batches(self._batches(len(pictures.labels))):
            self._train_step(raw, labels, pictures)
            self.step += 1
            advance(1)
        self._finish_epoch(seen=self.step * self._batch_size(len(pictures.labels)))

    def _train_step(self, raw: Tensor, labels: Tensor, pictures: Pictures) -> None:
        moment = self.seed, self.epoch, self.step
        draws, drops = (generator(name, *moment, device=raw.device) for name in ("augmentation", "drop path"))
        images = transforms.augment(raw, self.options.augmentation, draws)
        images = transforms.normalise(images, pictures.mean, pictures.std)
        progress = (self.epoch + 1) / self.options.epochs
        steps = self.steps_done(self.steps_per_epoch(len(pictures.labels)))
        outputs = self.network(images, Drop(self.options.drop_path, progress, steps, drops))
        loss = nn.functional.cross_entropy(outputs, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.loss_sum += loss.detach() * len(labels)
        self.correct += (outputs.detach().argmax(1) == labels).sum()

    def _finish_epoch(self, *, seen: int) -> None:
        rate = self.learning_rate
        self.epoch, self.step = self.epoch + 1, 0
        self.curve.append(
            {
                "epoch": self.epoch,
                "learning_rate": rate,
                "loss": float(self.loss_sum) / seen,
                "accuracy": 100 * int(self.correct) / seen,
            }
        )
        self.loss_sum.zero_()
        self.correct.zero_()

    def _batches(self, count: int) -> Iterator[Tensor]:
        """Picture numbers of each step that is left, shuffled; an incomplete last batch is dropped."""
        order = torch.randperm(count, generator=generator("order", self.seed, self.epoch))
        size = self._batch_size(count)
        for start in range(self.step * size, count - size + 1, size):
            yield order[start : start + size]

    def _batch_size(self, count: int) -> int:
        return min(self.options.batch_size, count)

    def steps_per_epoch(self, count: int) -> int:
        return count // self._batch_size(count)

    def steps_done(self, steps_per_epoch: int) -> int:
        return self.epoch * steps_per_epoch + self.step


def initialise(network: Network, seed: int) -> None:
    """Draw all weights as the network's kind has it, from a generator of our own."""
    network.initialise_(generator("initial weights", seed))
