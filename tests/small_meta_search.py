"""Searches by meta-training as small as they come, and a checkpoint that kills them, for tests."""

import io

import numpy as np
import torch
from tqdm import tqdm

from metantk.data.store import Split
from metantk.options.backbones.cells import CellsOptions
from metantk.searches.base import Found, Problem


def make_split(seed: int, classes: int = 4, images_per_class: int = 12) -> Split:
    """12×12 images; each class has a brightness of its own in each channel, so that it can be learned."""
    draws = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images_per_class)
    means = draws.integers(60, 196, size=(classes, 1, 1, 3))
    images = np.clip(means[labels] + draws.normal(0, 20, size=(len(labels), 12, 12, 3)), 0, 255).astype(np.uint8)
    return Split(images, labels, [f"class {label}" for label in range(classes)])


def make_problem() -> Problem:
    """2 cells of 4 channels."""
    return Problem(
        backbone=CellsOptions(cells=2, channels=4),
        train=make_split(0),
        val=make_split(1),
        mean=[0.5, 0.5, 0.5],
        std=[0.25, 0.25, 0.25],
        device=torch.device("cpu"),
        bar=tqdm(disable=True),
    )


class Interrupted(Exception):
    pass


class Memory:
    """A checkpoint as a file in memory; `kills_at` is the number of the state that is kept and ends the search."""

    def __init__(self, state: dict | None = None, kills_at: int | None = None) -> None:
        self.state, self.kills_at, self.calls = state, kills_at, 0

    def save(self, state: dict) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        self.state, self.calls = torch.load(file, weights_only=True), self.calls + 1
        if self.calls == self.kills_at:
            raise Interrupted


def assert_resumes(search, options, whole: Found, *, kills_at: list[int]) -> None:
    """A search of seed 0 that is killed at these states, run after run, ends as the `whole` that was not."""
    state = None
    for index in kills_at:
        checkpoint = Memory(state, index)
        try:
            search.find(make_problem(), options, 0, checkpoint)
        except Interrupted:
            state = checkpoint.state
        else:
            raise AssertionError(f"the search ended before it was killed at state {index}")
    resumed = search.find(make_problem(), options, 0, Memory(state))
    assert resumed.genotype == whole.genotype
    assert resumed.trace.equals(whole.trace)
    assert resumed.facts == whole.facts
    for name, cost in whole.costs.items():
        if name != "predictor":  # fitted anew on the same scores
            assert (resumed.costs[name].evaluations, resumed.costs[name].operations) == (
                cost.evaluations,
                cost.operations,
            )
    assert resumed.arrays.keys() == whole.arrays.keys()
    for name, value in whole.arrays.items():
        assert torch.equal(resumed.arrays[name], value), name
