"""Condition number of the MetaNTK (paper, Eqs. 10, 11 and 14); lower is better."""

from metantk.criteria.meta_ntk import meta_ntk_criterion

CRITERION = meta_ntk_criterion("condition")
