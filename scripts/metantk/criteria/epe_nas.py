"""How little the gradients of images of a class resemble one another (EPE-NAS); higher is better.

It grows with the size of the classes: episodes, whose classes are of one size, suit it.
"""

from metantk.criteria.jacobian import jacobian_criterion

CRITERION = jacobian_criterion("epe_nas", title="EPE-NAS")
