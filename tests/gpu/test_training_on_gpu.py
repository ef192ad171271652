"""Training on a CUDA device: steps that wait for nothing, and the CPU's batches and augmentation."""

import numpy as np
import pytest
import torch

from metantk import backbones, training
from metantk.data import images as loading
from metantk.data import transforms
from metantk.data.store import Split
from metantk.learners import rfs
from metantk.options.augmentation import AugmentationOptions
from metantk.options.backbones.cells import CellsOptions
from metantk.options.backbones.conv4 import Conv4Options
from metantk.options.backbones.resnet12 import ResNet12Options
from metantk.runtime import devices
from metantk.searches.sample import random_genotype
from metantk.space.genotype import SPACES

CUDA = torch.device("cuda", 0)
CLASSES, SIDE, STEPS = 4, 32, 6
NORMALISATION = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}
BACKBONES = {
    "cells": CellsOptions(kind="cells", cells=3, channels=4),
    "conv4": Conv4Options(channels=4),
    "resnet12": ResNet12Options(widths=[4, 8, 8, 16]),
}
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def make_split() -> Split:
    images = np.random.default_rng(0).integers(256, size=(48, SIDE, SIDE, 3), dtype=np.uint8)
    return Split(images, np.arange(48) % CLASSES, list("abcd"))


def make_trainer(kind: str, device: torch.device) -> training.Trainer:
    options = rfs.Options(epochs=3, batch_size=8, milestones=[1])
    genotype = random_genotype(SPACES["few-shot"], 0) if kind == "cells" else None
    network = backbones.build(BACKBONES[kind].architecture(SIDE, genotype), rfs.outputs(options, CLASSES))
    network.initialise_(devices.generator("initial weights", 0))
    data = loading.load_images(make_split(), NORMALISATION, device)
    return training.Trainer(rfs.Learner(options, network.to(device), data, 0), data, seed=0)


class Enough(Exception):
    pass


@pytest.mark.parametrize("on_device", [True, False], ids=["images on the device", "images from the disk"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_no_training_step_waits_for_the_device(kind, on_device, monkeypatch):
    """PyTorch raises an error at any operation that synchronises: reading a batch, its augmentation, the step."""
    if not on_device:
        monkeypatch.setattr(loading.devices, "free_memory", lambda device: 0)
    trainer = make_trainer(kind, CUDA)
    assert isinstance(trainer.data.images, torch.Tensor) == on_device
    assert trainer.learner.steps == STEPS
    trainer.train_epoch(lambda steps: None)  # constants are uploaded and kernels chosen
    taken = []

    def advance(steps: int) -> None:
        taken.append(steps)
        if len(taken) == STEPS:  # the end of an epoch reads its loss
            raise Enough

    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(Enough):
            trainer.train_epoch(advance)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(trainer.loss_sum)
    assert trainer.epoch == 1
    assert trainer.step == STEPS


def test_the_mode_notices_a_step_that_waits():
    value = torch.ones((), device=CUDA)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            float(value)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("on_device", [True, False], ids=["images on the device", "images from the disk"])
def test_batches_and_augmentation_are_those_of_the_cpu(on_device, monkeypatch):
    """Draws are made on the CPU; devices differ by rounding."""
    placed = {"cpu": loading.load_images(make_split(), NORMALISATION, torch.device("cpu"))}
    if not on_device:
        monkeypatch.setattr(loading.devices, "free_memory", lambda device: 0)
    placed["cuda"] = loading.load_images(make_split(), NORMALISATION, CUDA)
    orders = torch.randperm(48, generator=torch.Generator().manual_seed(0)).split(8)
    batches = {name: list(data.batches(orders)) for name, data in placed.items()}
    options = AugmentationOptions(padding=3)
    for (images, labels), (expected, expected_labels) in zip(batches["cuda"], batches["cpu"], strict=True):
        assert images.device == labels.device == CUDA
        assert torch.equal(images.cpu(), expected)
        assert torch.equal(labels.cpu(), expected_labels)
        augmented = transforms.augment(images, options, devices.generator("augmentation", 0))
        on_cpu = transforms.augment(expected, options, devices.generator("augmentation", 0))
        torch.testing.assert_close(augmented.cpu(), on_cpu, rtol=1e-5, atol=1e-6)
