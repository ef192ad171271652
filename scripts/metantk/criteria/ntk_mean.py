"""Mean entry of the supervised NTK (KNAS, of outputs in place of losses); higher is better."""

from metantk.criteria.ntk import ntk_criterion

CRITERION = ntk_criterion("mean")
