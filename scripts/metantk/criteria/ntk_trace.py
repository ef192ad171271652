"""Trace of the supervised NTK (NASI); higher is better: the loss falls faster."""

from metantk.criteria.gram import ntk_criterion

CRITERION = ntk_criterion("trace")
