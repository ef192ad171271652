"""LogSynFlow: Σ |w ln(1 + ∂R/∂w)| in SynFlow's network (FreeREA, which averages 3 draws); higher is better."""

from metantk.criteria.synaptic import synaptic_criterion

CRITERION = synaptic_criterion("logsynflow", title="LogSynFlow")
