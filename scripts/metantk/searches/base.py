"""What every search takes and gives."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metantk.datasets.store import Split


class Setting(NamedTuple):
    """All that a search looks at.

    Attributes:
        cells, channels: of the backbone that is searched for.
        train, val: parts of the data set.
        mean, std: of the training pictures, per channel, of values in 0..1.
        bar: progress; a search sets its total and moves it on.
    """

    cells: int
    channels: int
    train: Split
    val: Split
    mean: list[float]
    std: list[float]
    device: torch.device
    bar: tqdm


class Checkpoint(Protocol):
    """What a killed run leaves to the next.

    Attributes:
        kept: of an earlier run, plain values and tensors; None where there is none.
    """

    kept: dict | None

    def keep(self, state: dict) -> None:
        """Write the state at once, whole or not at all."""


@dataclass
class Cost:
    """What a part of a search has cost; of what its evaluations are, the search says."""

    seconds: float = 0.0
    evaluations: int = 0
    operations: int = 0


class Found(NamedTuple):
    """What a search gives.

    Attributes:
        trace: search.csv, what was measured and decided, a row per event.
        costs: by part of the search.
        extra: further facts for search.json, plain values.
        weights: what was learned on the way and can be used later, by name; None where nothing was.
    """

    genotype: dict
    trace: pd.DataFrame
    costs: dict[str, Cost]
    extra: dict
    weights: dict[str, Tensor] | None = None
