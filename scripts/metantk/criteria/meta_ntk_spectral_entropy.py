"""Entropy of the MetaNTK's normalised eigenvalues, in nats; higher is better, as for the NTK."""

from metantk.criteria.meta_ntk import meta_ntk_criterion

CRITERION = meta_ntk_criterion("spectral_entropy")
