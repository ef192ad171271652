"""Criteria of the NTK of the supervised network (TE-NAS, Section 3.1.1).

An output per class, images of any class. Norms are group norms, so that images do not mix.
"""

from collections.abc import Sequence

from metantk.criteria.base import CostMeter, Masks, Measured, MeasurementContext, RandomKeys
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.gram import summarise, summary_criteria
from metantk.criteria.inputs import draw_batch
from metantk.options.criteria.ntk import NtkOptions


def measure(
    context: MeasurementContext, options: NtkOptions, draws: RandomKeys, masks: Masks, parts: Sequence[str]
) -> dict[str, Measured]:
    meter = CostMeter(parts)
    with meter.of():
        images = draw_batch(context, options.images, draws.images)
        kernels = kernels_of_candidates(context, draws, masks, images, outputs=context.classes)
    meter.count(kernels.operations)
    return summarise(meter, kernels.ntk)


CRITERIA = summary_criteria(measure, "ntk", kernel="NTK", options=NtkOptions)
