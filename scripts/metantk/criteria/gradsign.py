"""GradSign: Σ over weights of |Σ of the signs of the images' own gradients|; higher is better."""

from metantk.criteria.per_image import per_image_criterion

CRITERION = per_image_criterion("gradsign", title="GradSign")
