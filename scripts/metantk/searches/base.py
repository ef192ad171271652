"""What a search is given and what it hands over.

Each search is a module of this package, or a .py file of one's own, that holds `Options` (a class of
`metantk.options.base.Options`) and

    find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metantk.data.store import Split
from metantk.options.base import Options


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
