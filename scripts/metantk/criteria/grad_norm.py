"""Sum over weight tensors of the norm of the loss's gradient (zero-cost-nas); higher is better."""

from metantk.criteria.loss import loss_criterion

CRITERION = loss_criterion("grad_norm", title="gradient norm", change="logarithm", logarithmic=True)
