"""GradSign: Σ over weights of |Σ of the signs of the pictures' own gradients|; higher is better."""

from metantk.criteria.per_picture import per_picture_criterion

CRITERION = per_picture_criterion("gradsign", title="GradSign")
