"""ZiCo: ln of mean over standard deviation of two batches' gradients, summed by tensor; higher is better.

Each tensor adds at least about the logarithm of its size: close to a count of layers. Weights whose gradients
nearly agree dominate, so that values of float32 are noisier than those of float64.
"""

from metantk.criteria.loss import loss_criterion

CRITERION = loss_criterion("zico", title="ZiCo", change="difference")
