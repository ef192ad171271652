"""Number of weight tensors (VKDNW); higher is better: a baseline, near a count of operations with weights."""

from metantk.criteria.counts import count_criterion

CRITERION = count_criterion("layers", title="layers")
