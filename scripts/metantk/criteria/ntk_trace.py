"""Trace of the supervised NTK (NASI); higher is better: the loss falls faster."""

from metantk.criteria.ntk import ntk_criterion

CRITERION = ntk_criterion("trace")
