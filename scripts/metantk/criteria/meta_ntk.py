"""Criteria of the MetaNTK (paper, Eqs. 10 and 11).

One batch of few-shot tasks of the training split; supports are augmented, queries are not (published code).
Norms are group norms, so that images do not mix.
"""

from collections.abc import Sequence

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.gram import summarise, summary_criteria
from metantk.criteria.inputs import draw_tasks
from metantk.kernels import meta_ntk
from metantk.options.criteria.meta_ntk import MetaNtkOptions


def measure(
    context: MeasurementContext, options: MetaNtkOptions, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    meter = CostMeter(parts)
    with meter.of():
        images = draw_tasks(context, options, draws.images)
        kernels = kernels_of_candidates(context, draws, masks, images, outputs=options.ways)
        adapted = meta_ntk(
            kernels.ntk,
            kernels.ntk if options.kernel == "maml" else kernels.nngp,
            tasks=options.tasks,
            queries=options.ways * options.queries,
            supports=options.ways * options.shots,
            time=float("inf") if options.time == "infinite" else options.time,
            ridge=options.ridge,
        )
    meter.count(kernels.operations)
    return summarise(meter, adapted)


CRITERIA = summary_criteria(measure, "meta_ntk", kernel="MetaNTK", options=MetaNtkOptions)
