"""KNAS as meant: mean of the Gram matrix of the images' loss gradients; higher is better.

It is the squared norm of the mean loss's gradient. The published program multiplies those of unrelated images.
"""

from metantk.criteria.per_image import per_image_criterion

CRITERION = per_image_criterion("knas", title="KNAS", change="logarithm", logarithmic=True)
