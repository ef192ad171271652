"""Criteria that summarise a Gram matrix of gradients: the NTK, and the MetaNTK; one Gram for all of each.

Networks have group norm, so that pictures do not mix. Titles and directions of both families' criteria stand here.
"""

from collections.abc import Sequence

from torch import Tensor

from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting, criterion_of
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.formulas import GRAM_SUMMARIES
from metantk.criteria.pictures import draw_batch, draw_tasks
from metantk.kernels import Kernels, meta_ntk
from metantk.options.criteria.meta_ntk import MetaNtkOptions
from metantk.options.criteria.ntk import NtkOptions

# Each summary's title, whether larger is better, and how changes of it are measured.
SUMMARIES = {
    "condition": ("condition number", False, "relative"),
    "trace": ("trace", True, "logarithm"),
    "frobenius": ("Frobenius norm", True, "logarithm"),
    "mean": ("mean", True, "logarithm"),
    "spectral_entropy": ("spectral entropy", True, "difference"),
}


def measure_ntk(
    setting: Setting, options: NtkOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    """Summaries of the NTK of a network with an output per training class, on pictures of any class."""
    bill = Bill(parts)
    with bill.of():
        pictures = draw_batch(setting, options.pictures, draws.pictures)
        kernels = kernels_of_candidates(setting, draws, masks, pictures, outputs=setting.classes)
    return _summarise(bill, kernels, kernels.ntk)


def measure_meta_ntk(
    setting: Setting, options: MetaNtkOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    """Summaries of the MetaNTK on few-shot tasks; supports are augmented, queries are not (published code)."""
    bill = Bill(parts)
    with bill.of():
        pictures = draw_tasks(setting, options, draws.pictures)
        kernels = kernels_of_candidates(setting, draws, masks, pictures, outputs=options.ways)
        adapted = meta_ntk(
            kernels.ntk,
            kernels.ntk if options.kernel == "maml" else kernels.nngp,
            tasks=options.tasks,
            queries=options.ways * options.queries,
            supports=options.ways * options.shots,
            time=float("inf") if options.time == "infinite" else options.time,
            ridge=options.ridge,
        )
    return _summarise(bill, kernels, adapted)


def _summarise(bill: Bill, kernels: Kernels, grams: Tensor) -> dict[str, Measured]:
    bill.count(kernels.operations)
    values = {}
    for part in bill.seconds:
        with bill.of(part):
            values[part] = GRAM_SUMMARIES[part](grams)
    return bill.measured(values)


def ntk_criterion(summary: str) -> Criterion:
    """A summary of the supervised network's NTK."""
    return _criterion(measure_ntk, summary, "NTK", "ntk", NtkOptions)


def meta_ntk_criterion(summary: str) -> Criterion:
    """A summary of the MetaNTK."""
    return _criterion(measure_meta_ntk, summary, "MetaNTK", "meta_ntk", MetaNtkOptions)


def _criterion(family, summary: str, kernel: str, section: str, options: type) -> Criterion:
    title, larger_is_better, change = SUMMARIES[summary]
    return criterion_of(
        family,
        summary,
        larger_is_better=larger_is_better,
        title=f"{title}\nof the {kernel}",
        change=change,
        logarithmic=change != "difference",
        section=section,
        options=options,
    )
