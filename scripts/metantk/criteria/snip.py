"""SNIP: Σ |w ∂L/∂w| over all weights (zero-cost-nas); higher is better."""

from metantk.criteria.loss import loss_criterion

CRITERION = loss_criterion("snip", title="SNIP", change="logarithm", logarithmic=True)
