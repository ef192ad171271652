"""Criteria that summarise a Gram matrix of gradients: what the families of both kernels share."""

from torch import Tensor

from metantk.criteria.base import CostMeter, Criterion, Family, Measured, criterion_of
from metantk.criteria.formulas import GRAM_SUMMARIES
from metantk.options.base import Options

# Each summary's title, whether larger is better, and how changes of it are measured. A larger trace lets the loss
# fall faster (NASI); at a larger entropy, in nats, directions are learned more alike.
SUMMARIES = {
    "condition": ("condition number", False, "relative"),
    "trace": ("trace", True, "logarithm"),
    "frobenius": ("Frobenius norm", True, "logarithm"),
    "mean": ("mean entry", True, "logarithm"),
    "spectral_entropy": ("spectral entropy", True, "difference"),
}


def summarise(meter: CostMeter, grams: Tensor) -> dict[str, Measured]:
    """The summaries that a cost meter has parts for, of `(candidates, n, n)` Grams."""
    values = {}
    for part in meter.seconds:
        with meter.of(part):
            values[part] = GRAM_SUMMARIES[part](grams)
    return meter.measured(values)


def summary_criteria(family: Family, prefix: str, *, kernel: str, options: type[Options]) -> dict[str, Criterion]:
    """All summaries of the Gram that is called `kernel`, as criteria by name, `{prefix}_condition` and so on."""
    return {
        f"{prefix}_{summary}": criterion_of(
            family,
            summary,
            title=f"{title}\nof the {kernel}",
            larger_is_better=larger_is_better,
            change=change,
            logarithmic=change != "difference",
            options=options,
        )
        for summary, (title, larger_is_better, change) in SUMMARIES.items()
    }
