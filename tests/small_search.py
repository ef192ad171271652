"""A search as small as they come, on random pictures, for tests of its criteria and its rounds."""

import numpy as np
import torch

from metantk.config import SearchOptions
from metantk.criteria import Setting
from metantk.datasets.store import Split


def make_setting(device: str = "cpu", **options) -> Setting:
    """3 cells of 2 channels in float64; 4 classes of 6 pictures of 12×12."""
    images = np.random.default_rng(0).integers(256, size=(24, 12, 12, 3), dtype=np.uint8)
    train = Split(images, np.repeat(np.arange(4), 6), list("abcd"))
    values = {
        "criteria": ["meta_ntk_condition", "linear_regions"],
        "repeat": 1,
        "image_size": 8,
        "precision": "float64",
        "meta_ntk": {"ways": 2, "tasks": 2, "queries": 2},
        "ntk": {"pictures": 6},
        "linear_regions": {"pictures": 600, "batches": 2},
    }
    return Setting(SearchOptions(**values | options), 3, 2, train, torch.device(device), lambda networks: None)
