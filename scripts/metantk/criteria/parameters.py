"""Number of weights; higher is better: a baseline that every criterion has to beat."""

from metantk.criteria.counts import count_criterion

CRITERION = count_criterion("parameters", title="parameters", change="logarithm", logarithmic=True)
