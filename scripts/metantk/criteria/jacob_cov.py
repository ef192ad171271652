"""How little the images' gradients resemble one another (nas-without-training, version 1); higher is better.

Never above minus the number of images.
"""

from metantk.criteria.jacobian import jacobian_criterion

CRITERION = jacobian_criterion("jacob_cov", title="jacob_cov", change="difference")
