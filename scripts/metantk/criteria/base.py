"""What a criterion is, and what it is given: many untrained candidates, which share the draws behind a key.

Each criterion is a module of this package, named as the criterion, or a .py file of one's own, that holds
`CRITERION`. It measures the masks of many candidates at once and returns one value per candidate. Equal draws give
equal weights and pictures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk import plugins
from metantk.datasets.store import Split
from metantk.options.base import Options, parse
from metantk.space.genotype import SPACES, Space

Key = tuple[int, ...]
Masks = dict[str, Tensor]


class Setting(NamedTuple):
    """What candidates are and where they are measured.

    Attributes:
        space: name of the space.
        cells: cells in the stack.
        channels: after the stem.
        image_size: height and width of the pictures, in pixels.
        initialisation: of the weights, "kaiming_normal" or "pytorch".
        precision: "float32", "tf32" or "float64".
        train: the training split.
        device: where candidates are evaluated.
        advance: called with the number of candidates just evaluated, for a progress bar.
    """

    space: str
    cells: int
    channels: int
    image_size: int
    initialisation: str
    precision: str
    train: Split
    device: torch.device
    advance: Callable[[int], None]

    @property
    def operations(self) -> Space:
        return SPACES[self.space]

    @property
    def classes(self) -> int:
        return len(self.train.class_names)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32


class Draws(NamedTuple):
    """Keys of the random draws of a measurement.

    Attributes:
        weights: of the network's weights.
        pictures: of the pictures and their augmentation.
        head: of the heads' weights, where each candidate has a head of its own, drawn apart from the body.
    """

    weights: Key
    pictures: Key
    head: Key | None = None

    @classmethod
    def of(cls, key: Key) -> "Draws":
        """Everything drawn anew for a key."""
        return cls(key, key)


class Measured(NamedTuple):
    """Values of many candidates.

    Attributes:
        values: `(candidates,)` float64; infinite, towards the worse, where a candidate has none.
        operations: floating-point operations of its convolutions and products, two for a multiply-accumulate.
    """

    values: np.ndarray
    operations: int


class Criterion(NamedTuple):
    """A measure, which way is better, and how it is compared and shown.

    Attributes:
        measure: of many candidates at once: `(setting, options, draws, masks)`; `options` are of the class below.
        larger_is_better: whether the search keeps what makes the value large (regions) or small (conditions).
        title: its name on an axis; a line break where it is long.
        change: how the value u of a network and p of the pruned one are compared: "relative", (u - p) / |u|;
            "difference", u - p, for scores that are logarithms already; "logarithm", ln u - ln p.
        logarithmic: whether its axis is.
        section: of the configuration's `criteria`, where its options stand; none where it has no options.
        options: the class of its options.
        weights_per_candidate: whether the published program draws the weights for each candidate anew, where
            for other criteria it keeps them for a round.
    """

    measure: Callable[[Setting, Options | None, Draws, Masks], Measured]
    larger_is_better: bool
    title: str
    change: Literal["relative", "difference", "logarithm"] = "relative"
    logarithmic: bool = False
    section: str | None = None
    options: type[Options] | None = None
    weights_per_candidate: bool = False

    def published_draws(self, key: Key) -> Draws:
        """Of the two networks of a pair, as the authors' program draws them.

        Weights are the same for all repeats of a round (thin networks: of a candidate), pictures are a pair's own,
        and each of its two networks has a fresh head.

        Args:
            key: (seed, round, repeat, candidate).
        """
        seed, number, _, candidate = key
        weights = (seed, number, candidate) if self.weights_per_candidate else (seed, number)
        return Draws(weights, key, head=key)

    @property
    def facts(self) -> dict:
        """What figures need to know, for search.json."""
        return {
            "title": self.title,
            "larger_is_better": self.larger_is_better,
            "logarithmic": self.logarithmic,
        }


def load_criterion(name: str) -> Criterion:
    """The built-in criterion of that name, or the one in a .py file, whose section is named as the file."""
    criterion = plugins.load_whole("criteria", name).CRITERION
    own_section = Path(name).stem if criterion.options else None
    return criterion._replace(section=criterion.section or own_section)


def options_of(criterion: Criterion, settings: dict[str, dict]) -> Options | None:
    """A criterion's own options among those of all, by section; defaults where it has none there."""
    if criterion.options is None:
        return None
    return parse(criterion.options, settings.get(criterion.section, {}), where=f"criteria.{criterion.section}")
