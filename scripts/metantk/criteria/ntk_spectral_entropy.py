"""Entropy of the supervised NTK's normalised eigenvalues, in nats; higher is better: directions are learned alike.

Spectral entropies are documented for other matrices (VKDNW: Fisher matrix; AZ-NAS: covariance of features). Equal
keys give the very kernels of `ntk_condition`.
"""

from metantk.criteria.base import Criterion, Draws, Masks, Measured, Setting
from metantk.criteria.chunks import kernels_of_candidates
from metantk.criteria.pictures import draw_batch
from metantk.kernels import spectral_entropies
from metantk.options.criteria.ntk import NtkOptions


def measure(setting: Setting, options: NtkOptions, draws: Draws, masks: Masks) -> Measured:
    pictures = draw_batch(setting, options.pictures, draws.pictures)
    kernels = kernels_of_candidates(setting, draws, masks, pictures, outputs=setting.classes)
    return Measured(spectral_entropies(kernels.ntk).numpy(), kernels.operations)


CRITERION = Criterion(
    measure,
    larger_is_better=True,
    title="spectral entropy\nof the NTK",
    change="difference",
    section="ntk",
    options=NtkOptions,
)
