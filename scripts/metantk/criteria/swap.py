"""SWAP: number of different patterns of single ReLUs over a few images (SWAP); higher is better.

The published program takes the mean of 32 draws of weights.
"""

from metantk.criteria.patterns import patterns_criterion

CRITERION = patterns_criterion("swap", title="SWAP")
