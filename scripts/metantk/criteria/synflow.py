"""SynFlow: Σ |w ∂R/∂w| of a network of absolute weights for ones (SynFlow; zero-cost-nas); higher is better."""

from metantk.criteria.synaptic import synaptic_criterion

CRITERION = synaptic_criterion("synflow", title="SynFlow")
