"""Training of a backbone by plain classification of all training classes (RFS; paper, section 6.1)."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metantk import transforms
from metantk.config import TrainingOptions
from metantk.devices import generator
from metantk.space.network import Network

log = logging.getLogger("metantk")


class Pictures(NamedTuple):
    """A training split on the device, with what normalises it.

    Attributes:
        images: uint8 `(pictures, height, width, 3)`.
        labels: int64 `(pictures,)`.
        mean, std: per channel, for pictures in 0..1.
    """

    images: Tensor
    labels: Tensor
    mean: list[float]
    std: list[float]


class Trainer:
    """A network in training and all that a checkpoint must hold.

    The random draws of an epoch come from generators named by seed and epoch, so that a run resumed at an epoch
    draws what an uninterrupted one draws.
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
        self.epoch = 0
        self.curve: list[dict] = []

    @property
    def learning_rate(self) -> float:
        passed = sum(self.epoch >= milestone for milestone in self.options.milestones)
        return self.options.learning_rate * self.options.decay**passed

    def state(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "curve": self.curve,
        }

    def load_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.curve = state["epoch"], state["curve"]

    def train_epoch(self, pictures: Pictures, advance: Callable[[int], None]) -> None:
        """One pass over the pictures; appends a row to the curve (loss in nats, accuracy in percent)."""
        rate = self.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        device = pictures.images.device
        draws = generator("augmentation", self.seed, self.epoch, device=device)
        drops = generator("drop path", self.seed, self.epoch, device=device)
        drop_rate = self.options.drop_path * (self.epoch + 1) / self.options.epochs
        self.network.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        seen = 0
        for batch in self._batches(len(pictures.labels)):
            batch = batch.to(device)
            images = transforms.to_float(pictures.images[batch])
            images = transforms.augment(images, self.options.augmentation, draws)
            images = transforms.normalise(images, pictures.mean, pictures.std)
            labels = pictures.labels[batch]
            outputs = self.network(images, drop_rate, drops)
            loss = nn.functional.cross_entropy(outputs, labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            # Summed on the device: reading a number here would wait for the device at every step.
            loss_sum += loss.detach() * len(batch)
            correct += (outputs.detach().argmax(1) == labels).sum()
            seen += len(batch)
            advance(1)
        self.epoch += 1
        self.curve.append(
            {
                "epoch": self.epoch,
                "learning_rate": rate,
                "loss": float(loss_sum) / seen,
                "accuracy": 100 * int(correct) / seen,
            }
        )

    def _batches(self, count: int) -> Iterator[Tensor]:
        """Picture numbers of each step, shuffled; an incomplete last batch is dropped."""
        order = torch.randperm(count, generator=generator("order", self.seed, self.epoch))
        size = min(self.options.batch_size, count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]

    def steps_per_epoch(self, count: int) -> int:
        return count // min(self.options.batch_size, count)


@torch.no_grad()
def initialise(network: Network, seed: int) -> None:
    """Draw all weights as PyTorch's constructors do (uniform within ±1/√fan-in), from a generator of our own."""
    draws = generator("initial weights", seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=draws)
