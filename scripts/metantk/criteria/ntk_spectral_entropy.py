"""Entropy of the supervised NTK's normalised eigenvalues, in nats; higher is better: directions are learned alike.

Spectral entropies are documented for other matrices (VKDNW: Fisher matrix; AZ-NAS: covariance of features). Equal
keys give the very kernels of `ntk_condition`.
"""

from metantk.criteria.ntk import ntk_criterion

CRITERION = ntk_criterion("spectral_entropy")
