"""What searches that measure criteria measure: candidates and the criteria that judge them."""

from typing import NamedTuple

from metantk.criteria.base import Criterion, MeasurementContext, load_criterion, options_of
from metantk.options.base import Options, glance
from metantk.options.searches.measuring import MeasuringOptions
from metantk.runtime import devices
from metantk.runtime.files import InputError
from metantk.searches.base import Problem
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
        InputError: as of `make_plan`, or options of a section that none of the criteria has.
    """
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
