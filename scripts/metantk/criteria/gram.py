"""Criteria that summarise a Gram matrix of gradients, all of one Gram: what both kernels' families share."""

from torch import Tensor

from metantk.criteria.base import CostMeter, Criterion, Family, Measured, criterion_of
from metantk.criteria.formulas import GRAM_SUMMARIES
from metantk.options.base import Options

# Each summary's title, whether larger is better, and how changes of it are measured.
SUMMARIES = {
    "condition": ("condition number", False, "relative"),
    "trace": ("trace", True, "logarithm"),
    "frobenius": ("Frobenius norm", True, "logarithm"),
    "mean": ("mean entry", True, "logarithm"),
    "spectral_entropy": ("spectral entropy", True, "difference"),
}


def summarise(meter: CostMeter, grams: Tensor) -> dict[str, Measured]:
    """The summaries that a bill has parts for, of `(candidates, n, n)` Grams."""
    values = {}
    for part in meter.seconds:
        with meter.of(part):
            values[part] = GRAM_SUMMARIES[part](grams)
    return meter.measured(values)


def summary_criterion(
    family: Family, summary: str, *, kernel: str, section: str, options: type[Options]
) -> Criterion:
    """A summary of the Gram that is called `kernel`, as a criterion."""
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
