"""Condition number of the NTK of the supervised network (TE-NAS, Section 3.1.1); lower is better."""

from metantk.criteria.base import Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.pictures import draw_batch
from metantk.kernels import condition_numbers
from metantk.options.criteria.ntk import NtkOptions


def measure(setting: Setting, options: NtkOptions, draws: Draws, masks: Masks) -> Measured:
    pictures = draw_batch(setting, options.pictures, draws.pictures)
    kernels = kernels_of_candidates(setting, draws, masks, pictures, outputs=setting.classes)
    return Measured(condition_numbers(kernels.ntk).numpy(), kernels.operations)


CRITERION = Criterion(
    measure,
    larger_is_better=False,
    title="condition number\nof the NTK",
    logarithmic=True,
    section="ntk",
    options=NtkOptions,
)
