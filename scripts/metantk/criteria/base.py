"""What a criterion is, and what it is given: many untrained candidates, which share the random draws behind a key.

Built-in criteria stand in modules of this package, several that share their expensive part in one, each with a dict
`CRITERIA` by name; a user's .py file holds one, `CRITERION`. A criterion measures the masks of many candidates at
once and returns one value per candidate. Equal keys give equal weights and images.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metantk.data.store import Split
from metantk.options.base import Options, parse
from metantk.runtime import plugins
from metantk.runtime.files import InputError
from metantk.space.genotype import SPACES, Space

Key = tuple[int, ...]
Masks = dict[str, Tensor]


class MeasurementContext(NamedTuple):
    """What candidates are and where they are measured.

    Attributes:
        space: name of the space.
        cells: cells in the stack.
        channels: after the stem.
        image_size: height and width of the images, in pixels.
        initialisation: of the weights, "kaiming_normal" or "pytorch".
        precision: "float32", "tf32" or "float64".
        train: the training split.
        val: the validation split, with classes of its own; only what trains looks at it.
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
    val: Split
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


class RandomKeys(NamedTuple):
    """Keys of the random draws of a measurement.

    Attributes:
        weights: of the network's weights.
        images: of the images and their augmentation.
        head: of the heads' weights, where each candidate has a head of its own, drawn apart from the body.
    """

    weights: Key
    images: Key
    head: Key | None = None

    @classmethod
    def of(cls, key: Key) -> "RandomKeys":
        """Everything drawn anew for a key."""
        return cls(key, key)


class Measured(NamedTuple):
    """Values of many candidates.

    Attributes:
        values: `(candidates,)` float64; infinite, towards the worse, where a candidate has none.
        operations: floating-point operations of its convolutions and products, two for a multiply-accumulate.
        seconds: of the threads that computed it, from the draws on; 0 where nobody took the time.
    """

    values: np.ndarray
    operations: int
    seconds: float = 0.0


class CostMeter:
    """What each of several criteria that are computed together would have cost alone."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)
        self.operations = dict.fromkeys(parts, 0)
        self._open: list[Sequence[str]] = []
        self._since = 0.0

    @contextmanager
    def of(self, *parts: str) -> Iterator[None]:
        """Charge the time within to each of `parts` (those of them that are asked for); to all if none is named.

        Time within an inner one is charged by that alone.
        """
        self._charge_time()
        self._open.append(parts)
        try:
            yield
        finally:
            self._charge_time()
            self._open.pop()

    def _charge_time(self) -> None:
        now = time.perf_counter()
        if self._open:
            for part in self._charged(self._open[-1]):
                self.seconds[part] += now - self._since
        self._since = now

    def count(self, operations: int, *parts: str) -> None:
        """Charge floating-point operations likewise."""
        for part in self._charged(parts):
            self.operations[part] += operations

    def _charged(self, parts: Sequence[str]) -> list[str]:
        return [part for part in parts or self.seconds if part in self.seconds]

    def measured(self, values: dict[str, Tensor]) -> dict[str, Measured]:
        """Values `(candidates,)` of each part with what they cost."""
        return {
            part: Measured(values[part].double().cpu().numpy(), self.operations[part], self.seconds[part])
            for part in self.seconds
        }


# Measures several criteria that share their expensive part: `(context, options, draws, masks, parts)`.
Family = Callable[[MeasurementContext, Options | None, RandomKeys, Masks, Sequence[str]], dict[str, Measured]]


class Criterion(NamedTuple):
    """A measure, which way is better, and how it is compared and shown.

    Attributes:
        measure: of many candidates at once: `(context, options, draws, masks)`; `options` are of the class below.
        larger_is_better: whether the search keeps what makes the value large (regions) or small (conditions).
        title: its name on an axis; a line break where it is long.
        change: how the value u of a network and p of the pruned one are compared: "relative", (u - p) / |u|;
            "difference", u - p, for scores that are logarithms already; "logarithm", ln u - ln p.
        logarithmic: whether its axis is.
        section: of the configuration's `criteria`, where its options stand; by default named as the module.
        options: the class of its options.
        weights_per_candidate: whether the published program draws the weights for each candidate anew, where
            for other criteria it keeps them for a round.
        family: what measures it together with others (see `measure_all`), and which of them it is.
    """

    measure: Callable[[MeasurementContext, Options | None, RandomKeys, Masks], Measured]
    larger_is_better: bool
    title: str
    change: Literal["relative", "difference", "logarithm"] = "relative"
    logarithmic: bool = False
    section: str | None = None
    options: type[Options] | None = None
    weights_per_candidate: bool = False
    family: tuple[Family, str] | None = None

    @property
    def worst(self) -> float:
        return -math.inf if self.larger_is_better else math.inf

    def settled(self, measured: Measured) -> Measured:
        """With the worst value for candidates that have none: NaN or infinite, whichever way."""
        values = np.asarray(measured.values, np.float64)
        return measured._replace(values=np.where(np.isfinite(values), values, self.worst))

    def published_draws(self, key: Key) -> RandomKeys:
        """Of the two networks of a pair, as the authors' program draws them.

        Weights are the same for all repeats of a round (thin networks: of a candidate), images are a pair's own,
        and each of its two networks has a fresh head.

        Args:
            key: (seed, round, repeat, candidate).
        """
        seed, index, _, candidate = key
        weights = (seed, index, candidate) if self.weights_per_candidate else (seed, index)
        return RandomKeys(weights, key, head=key)

    @property
    def facts(self) -> dict:
        """What figures need to know, for search.json."""
        return {
            "title": self.title,
            "larger_is_better": self.larger_is_better,
            "logarithmic": self.logarithmic,
        }


LOGARITHMIC = {"change": "logarithm", "logarithmic": True}  # of a positive score that varies by factors


def criterion_of(
    family: Family, part: str, *, title: str, larger_is_better: bool = True, **attributes: object
) -> Criterion:
    """A criterion that a family measures as its `part`; `attributes` are the others of `Criterion`."""

    def measure(context: MeasurementContext, options: Options | None, draws: RandomKeys, masks: Masks) -> Measured:
        return criterion.settled(family(context, options, draws, masks, [part])[part])

    criterion = Criterion(measure, larger_is_better, title, family=(family, part), **attributes)
    return criterion


def measure_all(
    criteria: dict[str, Criterion],
    context: MeasurementContext,
    criteria_options: dict[str, Options | None],
    draws: RandomKeys,
    masks: Masks,
) -> dict[str, Measured]:
    """Measure candidates by many criteria; those of a family, with equal options, at once.

    Args:
        criteria: by name.
        criteria_options: each criterion's own options, by name.

    Returns:
        By name, in the same order; values, and costs as if each were measured alone.

    Raises:
        InputError: a user-defined criterion returned anything but a value per candidate.
    """
    groups: dict[tuple, list[str]] = {}
    for name, criterion in criteria.items():
        alone = criterion.family is None
        key = (name,) if alone else (criterion.family[0], repr(criteria_options.get(name)))
        groups.setdefault(key, []).append(name)
    found: dict[str, Measured] = {}
    for names in groups.values():
        first, options = criteria[names[0]], criteria_options.get(names[0])
        if first.family is None:
            began = time.perf_counter()
            measured = checked(names[0], first.measure(context, options, draws, masks), len(masks["normal"]))
            seconds = measured.seconds or time.perf_counter() - began
            found[names[0]] = first.settled(measured)._replace(seconds=seconds)
            continue
        parts = list(dict.fromkeys(criteria[name].family[1] for name in names))
        together = first.family[0](context, options, draws, masks, parts)
        found |= {name: criteria[name].settled(together[criteria[name].family[1]]) for name in names}
    return {name: found[name] for name in criteria}


def checked(name: str, measured: object, candidates: int) -> Measured:
    """What a criterion returned, if it is a value per candidate.

    Raises:
        InputError: it is not.
    """
    if not isinstance(measured, Measured):
        found = type(measured).__name__
        raise InputError(f"criteria: {name}: measure returned {found}; expected metantk.criteria.base.Measured")
    shape, expected = np.shape(measured.values), (candidates,)
    if shape != expected:
        raise InputError(
            f"criteria: {name}: measure returned values of shape {shape}; expected {expected}, one per candidate"
        )
    return measured


def load_criterion(name: str) -> Criterion:
    """The built-in criterion of that name, or the one in a .py file.

    Raises:
        InputError: there is none, or a file is named as a built-in one.
    """
    if name.endswith(".py"):
        if Path(name).stem in plugins.kinds("criteria"):
            raise InputError(f"criteria: {name}: {Path(name).stem} is built in; choose another name for the file")
        criterion = _checking(plugins.load_whole("criteria", name).CRITERION, name)
    else:
        criterion = plugins.load("criteria", name).CRITERIA[name]
    section = criterion.section or plugins.module_file("criteria", name).stem
    return criterion._replace(section=section if criterion.options else None)


def _checking(criterion: Criterion, kind: str) -> Criterion:
    """A user's criterion, whose values are checked."""

    def measure(context: MeasurementContext, options: Options | None, draws: RandomKeys, masks: Masks) -> Measured:
        measured = criterion.measure(context, options, draws, masks)
        candidates = len(next(iter(masks.values())))
        plugins.expect(isinstance(measured, Measured), kind, "measure", measured, "metantk.criteria.base.Measured")
        values = np.asarray(measured.values)
        fits = values.shape == (candidates,) and values.dtype.kind in "biuf"
        plugins.expect(fits, kind, "measure's values", values, f"numbers ({candidates},), one for each candidate")
        missing = int(np.isnan(values).sum())
        plugins.expect(
            not missing,
            kind,
            "measure",
            f"{missing} values of {candidates} that are NaN",
            "numbers, or an infinite one",
        )
        plugins.expect(
            isinstance(measured.operations, int | np.integer),
            kind,
            "measure's operations",
            measured.operations,
            "int",
        )
        return measured._replace(values=values.astype(np.float64))

    return criterion._replace(measure=measure)


def options_of(criterion: Criterion, criteria_options: dict[str, dict]) -> Options | None:
    """A criterion's own options among those of all, by section; defaults where it has none there."""
    if criterion.options is None:
        return None
    return parse(
        criterion.options, criteria_options.get(criterion.section, {}), where=f"criteria.{criterion.section}"
    )
