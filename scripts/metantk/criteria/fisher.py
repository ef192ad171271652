"""Fisher: half the mean square of each channel's Σ z ∂L/∂z, times its weights (zero-cost-nas); higher is better.

Its value goes with the inverse square of the number of images.
"""

from metantk.criteria.loss import loss_criterion

CRITERION = loss_criterion("fisher", title="Fisher", change="logarithm", logarithmic=True)
