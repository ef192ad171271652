"""Condition number of the MetaNTK (paper, Eqs. 10, 11 and 14); lower is better.

One batch of few-shot tasks of the training split; supports are augmented, queries are not (published code).
"""

from metantk.criteria.base import Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.pictures import draw_tasks
from metantk.kernels import condition_numbers, meta_ntk
from metantk.options.criteria.meta_ntk import MetaNtkOptions


def measure(setting: Setting, options: MetaNtkOptions, draws: Draws, masks: Masks) -> Measured:
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
    return Measured(condition_numbers(adapted).numpy(), kernels.operations)


CRITERION = Criterion(
    measure,
    larger_is_better=False,
    title="condition number\nof the MetaNTK",
    logarithmic=True,
    section="meta_ntk",
    options=MetaNtkOptions,
)
