"""Frobenius norm of the supervised NTK; higher is better."""

from metantk.criteria.ntk import ntk_criterion

CRITERION = ntk_criterion("frobenius")
