"""Condition number of the NTK of the supervised network (TE-NAS, Section 3.1.1); lower is better."""

from metantk.criteria.ntk import ntk_criterion

CRITERION = ntk_criterion("condition")
