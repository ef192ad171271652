"""A search as small as they come, on random images, for tests of its criteria and its rounds."""

import numpy as np
import torch

from metantk.criteria.base import Masks, MeasurementContext, RandomKeys, load_criterion, options_of
from metantk.data.store import Split
from metantk.options.searches.prune import PruneOptions
from metantk.searches.plan import Plan
from metantk.searches.plan import make_plan as plan_of_setting
from metantk.searches.prune import State, first_state
from metantk.space.genotype import CELL_TYPES, Space

CRITERIA = ("meta_ntk_condition", "ntk_condition", "ntk_spectral_entropy", "linear_regions")
SECTIONS = {
    "meta_ntk": {"ways": 2, "tasks": 2, "queries": 2},
    "ntk": {"images": 6},
    "linear_regions": {"images": 600, "batches": 2},
    "patterns": {"images": 8, "swap_images": 6},
    "gradients": {"ways": 3, "images": 9},
    "zen": {"images": 4},
}


def make_plan(device: str = "cpu", *, cells: int = 3, **options) -> Plan:
    """Cells of 2 channels in float64; 4 classes of 6 images of 12×12.

    Args:
        options: of the search; those of a criterion under its section's name, in full.
    """
    images = np.random.default_rng(0).integers(256, size=(24, 12, 12, 3), dtype=np.uint8)
    train = Split(images, np.repeat(np.arange(4), 6), list("abcd"))
    sections = {name: options.pop(name, default) for name, default in SECTIONS.items()}
    values = {
        "criteria": ["meta_ntk_condition", "linear_regions"],
        "repeats": 1,
        "image_size": 8,
        "precision": "float64",
        "criteria_options": sections,
    }
    search = PruneOptions(**values | options)
    context = MeasurementContext(
        space=search.space,
        cells=cells,
        channels=2,
        image_size=search.image_size,
        initialisation=search.initialisation,
        precision=search.precision,
        train=train,
        val=train,
        device=torch.device(device),
        advance=lambda networks: None,
    )
    return plan_of_setting(context, search)


def measure(plan: Plan, name: str, masks: Masks, draws: RandomKeys | None = None) -> np.ndarray:
    """Values of the candidates by any built-in criterion, of the plan or not."""
    criterion = load_criterion(name)
    options = options_of(criterion, plan.options.criteria_options)
    return criterion.measure(plan.context, options, draws or RandomKeys.of((0,)), masks).values


def two_operations_per_edge(space: Space, seed: int = 0) -> State:
    """Before a search's last rounds: 5 are left, of few candidates."""
    draws = torch.Generator().manual_seed(seed)
    state = first_state(space)
    for mask in state.masks.values():
        mask.zero_().scatter_(1, torch.rand(mask.shape, generator=draws).argsort(1)[:, :2], value=True)
    return state


def nearly_a_genotype(space: Space, seed: int = 0) -> State:
    """Before rounds of 2, 3 and 4 candidates: an edge of the reduction cell has two operations, others one."""
    state = two_operations_per_edge(space, seed)
    for mask in state.masks.values():
        mask.copy_(mask & (mask.cumsum(1) == 1))
    normal, reduce = (state.masks[cell] for cell in CELL_TYPES)
    for node in range(2, 2 + space.nodes):
        normal[[index for index, edge in enumerate(space.edges) if edge.node == node][2:]] = False
    reduce[0, (~reduce[0]).nonzero()[0]] = True
    return state
