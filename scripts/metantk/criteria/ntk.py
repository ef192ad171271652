"""Criteria of the NTK of the supervised network (TE-NAS, Section 3.1.1).

An output per class, pictures of any class. Norms are group norms, so that pictures do not mix.
"""

from collections.abc import Sequence

from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.gram import summarise, summary_criterion
from metantk.criteria.pictures import draw_batch
from metantk.options.criteria.ntk import NtkOptions


def ntk_criterion(summary: str) -> Criterion:
    """A summary of the supervised network's NTK."""
    return summary_criterion(measure, summary, kernel="NTK", section="ntk", options=NtkOptions)


def measure(
    setting: Setting, options: NtkOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    bill = Bill(parts)
    with bill.of():
        pictures = draw_batch(setting, options.pictures, draws.pictures)
        kernels = kernels_of_candidates(setting, draws, masks, pictures, outputs=setting.classes)
    bill.count(kernels.operations)
    return summarise(bill, kernels.ntk)
