"""The one training loop, for all learners: images to the device, steps, epochs, what a checkpoint must hold."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.data.store import Split, block_bounds
from metantk.learners.base import Learner, StepContext
from metantk.runtime import devices
from metantk.runtime.files import DivergedError

log = logging.getLogger("metantk")
CURVE = ["epoch", "lr", "loss", "accuracy"]  # columns of training.csv, and validation_accuracy for some
SHARE_OF_FREE_MEMORY = 0.5  # of the device's, for images; the network and its activations need the rest


class ImageData(NamedTuple):
    """A training split, with what normalises it.

    Attributes:
        images: uint8 `(images, height, width, 3)`; on the device, or mapped from the disk.
        labels: int64 `(images,)`, on the CPU.
        device: where batches go.
        mean, std: per channel, for images in 0..1.
    """

    images: Tensor | np.ndarray
    labels: Tensor
    device: torch.device
    mean: list[float]
    std: list[float]

    def batches(self, orders: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, uint8, and labels on the device, by the numbers of each batch.

        The next batch is put together while the device is busy with this one. Nothing here waits for a GPU.
        """
        if self.device.type == "cpu" and isinstance(self.images, Tensor):
            for indices in orders:
                yield self.images[indices], self.labels[indices]
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            reading = (reader.submit(self._read, indices) for indices in orders)
            current = next(reading, None)
            while current is not None:
                following = next(reading, None)
                images, labels = current.result()
                images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
                yield (self.images[images] if isinstance(self.images, Tensor) else images), labels
                current = following

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images, or, where they are on the device, their numbers; and the labels."""
        on_device = isinstance(self.images, Tensor)
        images = indices if on_device else torch.from_numpy(self.images[indices.numpy()])
        return self._pinned(images), self._pinned(self.labels[indices])

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def load_images(train: Split, manifest: dict, device: torch.device) -> ImageData:
    """Put the images on a GPU where they fit; else they stay mapped and are read batch by batch."""
    fit = train.images.nbytes <= SHARE_OF_FREE_MEMORY * devices.free_memory(device)
    images = _copy_to(train.images, device) if fit else train.images
    log.info("images: %.1f GB, %s", train.images.nbytes / 1e9, "on the device" if fit else "read from the disk")
    return ImageData(images, torch.from_numpy(train.labels), device, manifest["mean"], manifest["std"])


def _copy_to(images: np.ndarray, device: torch.device) -> Tensor:
    """Copy block by block, so that the host never holds all of them."""
    copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start, stop in block_bounds(len(images), images.shape[1:]):
        copy[start:stop] = torch.from_numpy(np.array(images[start:stop]))
    return copy


class Trainer:
    """A learner in training and all that a checkpoint must hold.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch that runs.
        curve: a row for each finished epoch.
        best: the `epoch` of the best validation accuracy, counted from 1, where there is a validation: its
            `accuracy`, and the tensors of `network` and `extra`, on the CPU.
    """

    def __init__(
        self, learner: Learner, data: ImageData, *, seed: int, validation: ImageData | None = None
    ) -> None:
        # Images come as height × width × channels; convolutions are faster when weights lie the same way.
        learner.network.to(memory_format=torch.channels_last)
        self.learner, self.data, self.seed, self.validation = learner, data, seed, validation
        self.best: dict | None = None
        self.epoch = self.step = self.seen = self.counted = 0
        self.curve: list[dict] = []
        # Summed on the device: reading a number would wait for the device at every step.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=data.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=data.device)

    def state(self) -> dict:
        extra = self.learner.extra
        return {
            "network": self.learner.network.state_dict(),
            "extra": {} if extra is None else extra.state_dict(),
            "optimiser": self.learner.optimiser.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seen": self.seen,
            "counted": self.counted,
            "curve": self.curve,
            "loss_sum": self.loss_sum,
            "correct": self.correct,
            "best": self.best,
        }

    def load_state(self, state: dict) -> None:
        self.learner.network.load_state_dict(state["network"])
        if self.learner.extra is not None:
            self.learner.extra.load_state_dict(state["extra"])
        self.learner.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.seen, self.counted = state["seen"], state["counted"]
        self.curve, self.best = list(state["curve"]), state["best"]
        self.loss_sum.copy_(state["loss_sum"])
        self.correct.copy_(state["correct"])

    def train_epoch(self, advance: Callable[[int], None]) -> None:
        """What is left of an epoch; adds a row to the curve (loss in nats, accuracies in percent).

        After each step, and with 0 within a validation, `advance` is called, and may raise: the state is then that
        after the step.

        Raises:
            DivergedError: the loss is not finite, or, after the last epoch, the network.
        """
        learner = self.learner
        for group in learner.optimiser.param_groups:
            group["lr"] = learner.lr(self.epoch)
        learner.network.train()
        for images, labels in self.data.batches(learner.indices(self.epoch, self.step)):
            learner.optimiser.zero_grad(set_to_none=True)
            outcome = learner.step(images, labels, StepContext(self.seed, self.epoch, self.step))
            learner.optimiser.step()
            self.loss_sum += outcome.loss * outcome.seen
            if outcome.correct is not None:
                self.correct += outcome.correct
                self.counted += outcome.seen
            self.seen += outcome.seen
            self.step += 1
            advance(1)
        self._finish_epoch(advance)

    def _finish_epoch(self, advance: Callable[[int], None]) -> None:
        rate, loss = self.learner.lr(self.epoch), float(self.loss_sum) / self.seen
        is_last = self.epoch + 1 == self.learner.epochs
        what = (
            "loss is" if not math.isfinite(loss) else "weights are" if is_last and not self._is_finite() else None
        )
        if what:
            raise DivergedError(
                f"training: the {what} not finite in epoch {self.epoch + 1}, with a learning rate of {rate:g}:"
                " use a lower one"
            )
        accuracy = 100 * int(self.correct) / self.counted if self.counted else math.nan
        row = {"epoch": self.epoch + 1, "lr": rate, "loss": loss, "accuracy": accuracy}
        if self.validation is not None:
            row["validation_accuracy"] = self._validate(lambda: advance(0))
        self.curve.append(row)
        self.epoch, self.step, self.seen, self.counted = self.epoch + 1, 0, 0, 0
        self.loss_sum.zero_()
        self.correct.zero_()

    def _is_finite(self) -> bool:
        tensors = self.learner.network.state_dict().values()
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())

    def _validate(self, advance: Callable[[], None]) -> float:
        """Accuracy in percent; the epoch is kept if it is better than all before."""
        accuracy = self.learner.validate(self.validation, self.epoch, advance)
        if self.best is None or accuracy > self.best["accuracy"]:
            extra = self.learner.extra
            self.best = {
                "epoch": self.epoch + 1,
                "accuracy": accuracy,
                "network": _on_cpu(self.learner.network.state_dict()),
                "extra": {} if extra is None else _on_cpu(extra.state_dict()),
            }
        return accuracy

    def take_best(self) -> int:
        """Go back to the best epoch, where there is a validation; the epoch, counted from 1, or the last one."""
        if self.best is None:
            return self.epoch
        self.learner.network.load_state_dict(self.best["network"])
        if self.learner.extra is not None:
            self.learner.extra.load_state_dict(self.best["extra"])
        return self.best["epoch"]

    @property
    def steps_done(self) -> int:
        return self.epoch * self.learner.steps + self.step


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
