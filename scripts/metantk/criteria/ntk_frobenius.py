"""Frobenius norm of the supervised NTK; higher is better."""

from metantk.criteria.gram import ntk_criterion

CRITERION = ntk_criterion("frobenius")
