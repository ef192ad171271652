"""NASWOT: ln |det| of the numbers of ReLUs in which two images agree (nas-without-training); higher is better.

It grows with the number of units. Two images that agree in all units make it minus infinity.
"""

from metantk.criteria.patterns import patterns_criterion

CRITERION = patterns_criterion("naswot", title="NASWOT", change="difference")
