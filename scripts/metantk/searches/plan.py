"""What searches that measure criteria measure: candidates and the criteria that judge them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from metantk.criteria.base import (
    Criterion,
    Key,
    Measured,
    MeasurementContext,
    RandomKeys,
    load_criterion,
    measure_all,
    options_of,
)
from metantk.options.base import Options, glance
from metantk.options.searches.measuring import MeasuringOptions, check_layout
from metantk.runtime import devices
from metantk.runtime.files import InputError
from metantk.searches.base import Cost, Problem
from metantk.space import paths
from metantk.space.genotype import Space


class Plan(NamedTuple):
    """What candidates are, and by what they are judged.

    Attributes:
        setting: shared by all criteria.
        options: of the search.
        criteria: by name, in the order of the options.
        settings: each criterion's own options.
    """

    context: MeasurementContext
    options: MeasuringOptions
    criteria: dict[str, Criterion]
    criteria_options: dict[str, Options | None]

    @property
    def space(self) -> Space:
        return self.context.operations


def plan_of(problem: Problem, options: MeasuringOptions) -> Plan:
    """What a search of this problem measures; sets the precision of the device.

    Raises:
        InputError: as of `make_plan`, or options of a section that none of the criteria has, or a stack of another
            layout than the criteria measure.
    """
    check_layout(problem.backbone, where="backbone")
    devices.set_precision(options.precision)
    context = MeasurementContext(
        options.space,
        problem.backbone.cells,
        problem.backbone.channels,
        options.image_size,
        options.initialisation,
        options.precision,
        problem.train,
        problem.val,
        problem.device,
        problem.bar.update,
    )
    plan = make_plan(context, options)
    _check_sections(plan)
    return plan


def _check_sections(plan: Plan) -> None:
    """Refuse options that no criterion of the search would look at: a section that is misspelt, for instance."""
    sections = {criterion.section for criterion in plan.criteria.values() if criterion.section}
    if getattr(plan.options, "short_training_epochs", None):
        sections.add("short_training")
    if unknown := sorted(plan.options.criteria_options.keys() - sections):
        known = ", ".join(sorted(sections)) or "none"
        raise InputError(f"criteria_options: no criterion has a section {glance(unknown[0])} (there is {known})")


def make_plan(context: MeasurementContext, options: MeasuringOptions) -> Plan:
    """Load the criteria and check their options.

    Raises:
        InputError: an unknown criterion, or options that are not its own.
    """
    criteria = {name: load_criterion(kind) for name, kind in options.kinds.items()}
    criteria_options = {
        name: options_of(criterion, options.criteria_options) for name, criterion in criteria.items()
    }
    return Plan(context, options, criteria, criteria_options)


def measure(
    plan: Plan, rows: np.ndarray, key: Key, costs: dict[str, Cost], update: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """Values of each architecture by criterion, with the draws of the key; on a CPU one per thread."""
    began = time.perf_counter()
    threads = torch.get_num_threads() if plan.context.device.type == "cpu" else 1

    def one(row: np.ndarray) -> dict[str, Measured]:
        if threads > 1:
            torch.set_num_threads(1)
        masks = paths.masks_of(plan.space, row)
        return measure_all(plan.criteria, plan.context, plan.criteria_options, RandomKeys.of(key), masks)

    found = []
    pool = ThreadPoolExecutor(threads)
    try:
        for result in pool.map(one, rows):
            found.append(result)
            update(1)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    spent = {name: sum(result[name].seconds for result in found) for name in plan.criteria}
    elapsed = time.perf_counter() - began
    for name in plan.criteria:
        cost = costs.setdefault(name, Cost())
        cost.seconds += elapsed * spent[name] / sum(spent.values())  # threads work on several at once
        cost.evaluations += len(rows)
        cost.operations += sum(result[name].operations for result in found)
    return {name: np.array([float(result[name].values[0]) for result in found]) for name in plan.criteria}
