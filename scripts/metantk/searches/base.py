"""What a search is given and what it hands over.

Each search is a module of this package, or a .py file of one's own, that holds `Options` (a class of
`metantk.options.base.Options`) and

    find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pandas as pd
from tqdm import tqdm

from metantk.data.store import Split
from metantk.options.base import Options
from metantk.runtime import plugins
from metantk.runtime.files import InputError

if TYPE_CHECKING:
    # Not at run time: searches that compute nothing do without PyTorch, which takes seconds to load.
    import torch
    from torch import Tensor


class Problem(NamedTuple):
    """All that a search looks at.

    Attributes:
        backbone: options of the backbone that is searched for (`cells`, `channels`).
        train: the training split.
        val: the validation split, with classes of its own.
        mean, std: per channel, of images in 0..1.
        device: where networks are evaluated.
        bar: a progress bar; a search sets its `total` by `reset(total=...)` and calls `update`.
    """

    backbone: Options
    train: Split
    val: Split
    mean: list[float]
    std: list[float]
    device: torch.device
    bar: tqdm


class Checkpoint(Protocol):
    """Unfinished work: `state` is what an earlier run that was ended has saved last (plain values and tensors)."""

    state: dict | None

    def save(self, state: dict) -> None:
        """Replace what was saved."""


@dataclass
class Cost:
    """Seconds, evaluations of networks, floating-point operations of a phase of a search."""

    seconds: float = 0.0
    evaluations: int = 0
    operations: int = 0


@dataclass
class Found:
    """What a search hands over.

    Attributes:
        genotype: of the cells; None where there was nothing to find.
        trace: one row for each thing measured or decided; search.csv.
        costs: by phase of the search.
        facts: plain values for search.json.
        arrays: what was meta-trained on the way, such as the mixed network; search.safetensors.
    """

    genotype: dict | None
    trace: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["round", "stage"]))
    costs: dict[str, Cost] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)


def check_found(found: object, kind: str) -> None:
    """Refuse what a user's search hands over, if it is something else.

    Raises:
        InputError: it is of another type, or cannot be written.
    """
    plugins.expect(isinstance(found, Found), kind, "find", found, "metantk.searches.base.Found")
    types = {"trace": pd.DataFrame, "costs": dict, "facts": dict, "arrays": dict}
    for name, expected in types.items():
        value = getattr(found, name)
        plugins.expect(isinstance(value, expected), kind, f"find's {name}", value, expected.__name__)
    for key, value in found.costs.items():
        plugins.expect(isinstance(value, Cost), kind, f"find's costs[{key!r}]", value, "Cost")
    if found.arrays:
        import torch

        for key, value in found.arrays.items():
            plugins.expect(isinstance(value, torch.Tensor), kind, f"find's arrays[{key!r}]", value, "Tensor")
    try:
        json.dumps(found.facts, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind}: find's facts cannot be written as JSON ({error})") from None
