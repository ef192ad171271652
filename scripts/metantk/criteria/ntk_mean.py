"""Mean entry of the supervised NTK (KNAS, of outputs in place of losses); higher is better."""

from metantk.criteria.gram import ntk_criterion

CRITERION = ntk_criterion("mean")
