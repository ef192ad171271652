"""KNAS as meant: mean of the Gram matrix of the pictures' loss gradients; higher is better.

It is the squared norm of the mean loss's gradient. The published program multiplies those of unrelated pictures.
"""

from metantk.criteria.per_picture import per_picture_criterion

CRITERION = per_picture_criterion("knas", title="KNAS", change="logarithm", logarithmic=True)
