"""A split's images for training and validation: on the device, or read from the disk batch by batch."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.data.store import Split, block_bounds
from metantk.runtime import devices

log = logging.getLogger("metantk")
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
