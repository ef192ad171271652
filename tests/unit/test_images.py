"""Where the training images lie: on the device where they fit, else mapped from the disk; equal batches."""

import numpy as np
import pytest
import torch

from metantk.data import images as loading
from metantk.data.store import Split
from metantk.runtime import devices

CPU = torch.device("cpu")
MANIFEST = {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def split(tmp_path):
    """A split as `load_split` gives it, its images mapped."""
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return Split(np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(50) % 5, list("abcde"))


def test_on_a_cpu_images_stay_mapped(split):
    data = loading.load_images(split, MANIFEST, CPU)
    assert data.images is split.images
    assert isinstance(data.images, np.memmap)


@pytest.mark.parametrize(("free", "fit"), [(2 * 50 * 108, True), (2 * 50 * 108 - 2, False)])
def test_on_a_device_images_are_copied_where_they_fit(split, monkeypatch, free, fit):
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    monkeypatch.setattr("metantk.data.store.BLOCK_BYTES", 7 * 108)
    data = loading.load_images(split, MANIFEST, CPU)
    assert isinstance(data.images, torch.Tensor) == fit
    np.testing.assert_array_equal(np.asarray(data.images), split.images)


@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_batches_are_the_same_wherever_the_images_lie(split, batches):
    orders = [torch.randperm(50, generator=torch.Generator().manual_seed(index))[:6] for index in range(batches)]
    mapped = loading.load_images(split, MANIFEST, CPU)
    placed = mapped._replace(images=torch.from_numpy(np.array(split.images)))
    taken = [list(data.batches(iter(orders))) for data in (mapped, placed)]
    assert len(taken[0]) == len(taken[1]) == batches
    for one, other, indices in zip(*taken, orders, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        np.testing.assert_array_equal(one[0].numpy(), split.images[indices.numpy()])
        np.testing.assert_array_equal(one[1].numpy(), split.labels[indices.numpy()])


def test_batches_are_read_no_further_ahead_than_one(split):
    asked = []

    def orders():
        for index in range(10):
            asked.append(index)
            yield torch.tensor([index])

    batches = loading.load_images(split, MANIFEST, CPU).batches(orders())
    for index in range(3):
        next(batches)
        assert max(asked) == index + 1
