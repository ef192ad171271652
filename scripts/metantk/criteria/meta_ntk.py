"""Criteria of the MetaNTK (paper, Eqs. 10 and 11).

One batch of few-shot tasks of the training split; supports are augmented, queries are not (published code).
Norms are group norms, so that pictures do not mix.
"""

from collections.abc import Sequence

from metantk.criteria.base import Bill, Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.gram import summarise, summary_criterion
from metantk.criteria.pictures import draw_tasks
from metantk.kernels import meta_ntk
from metantk.options.criteria.meta_ntk import MetaNtkOptions


def meta_ntk_criterion(summary: str) -> Criterion:
    """A summary of the MetaNTK."""
    return summary_criterion(measure, summary, kernel="MetaNTK", section="meta_ntk", options=MetaNtkOptions)


def measure(
    setting: Setting, options: MetaNtkOptions, draws: Draws, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
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
    bill.count(kernels.operations)
    return summarise(bill, adapted)
