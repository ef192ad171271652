"""Multiply-accumulates of the convolutions and the head for one image; higher is better: a baseline."""

from metantk.criteria.counts import count_criterion

CRITERION = count_criterion(
    "multiply_accumulates", title="multiply-\naccumulates", change="logarithm", logarithmic=True
)
