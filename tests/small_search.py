"""A search as small as they come, on random pictures, for tests of its criteria and its rounds."""

import numpy as np
import torch

from metantk.criteria.base import Draws, Masks, Setting, load_criterion, options_of
from metantk.datasets.store import Split
from metantk.options.searches.prune import PruneOptions
from metantk.searches.plan import Plan
from metantk.searches.plan import make_plan as plan_of_setting

CRITERIA = ("meta_ntk_condition", "ntk_condition", "ntk_spectral_entropy", "linear_regions")
SECTIONS = {
    "meta_ntk": {"ways": 2, "tasks": 2, "queries": 2},
    "ntk": {"pictures": 6},
    "linear_regions": {"pictures": 600, "batches": 2},
    "patterns": {"pictures": 8, "swap_pictures": 6},
    "gradients": {"ways": 3, "pictures": 9},
    "zen": {"pictures": 4},
}


def make_plan(device: str = "cpu", **options) -> Plan:
    """3 cells of 2 channels in float64; 4 classes of 6 pictures of 12×12.

    Args:
        options: of the search; those of a criterion under its section's name, in full.
    """
    images = np.random.default_rng(0).integers(256, size=(24, 12, 12, 3), dtype=np.uint8)
    train = Split(images, np.repeat(np.arange(4), 6), list("abcd"))
    sections = {name: options.pop(name, default) for name, default in SECTIONS.items()}
    values = {
        "criteria": ["meta_ntk_condition", "linear_regions"],
        "repeat": 1,
        "image_size": 8,
        "precision": "float64",
        "settings": sections,
    }
    search = PruneOptions(**values | options)
    setting = Setting(
        space=search.space,
        cells=3,
        channels=2,
        image_size=search.image_size,
        initialisation=search.initialisation,
        precision=search.precision,
        train=train,
        val=train,
        device=torch.device(device),
        advance=lambda networks: None,
    )
    return plan_of_setting(setting, search)


def measure(plan: Plan, name: str, masks: Masks, draws: Draws | None = None) -> np.ndarray:
    """Values of the candidates by any built-in criterion, of the plan or not."""
    criterion = load_criterion(name)
    options = options_of(criterion, plan.options.settings)
    return criterion.measure(plan.setting, options, draws or Draws.of((0,)), masks).values
