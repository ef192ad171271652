"""Blocks whose inner activations are computed again in the backward pass instead of kept."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def apply(block: nn.Module, *inputs: Tensor | float | None, recompute: bool) -> Tensor:
    """`block(*inputs)`; with `recompute` the same gradients and running statistics, in less memory and more time.

    A block must not draw random numbers: draws come in as inputs.
    """
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)

    def contexts() -> tuple:
        return contextlib.nullcontext(), _statistics_kept(block)

    # Draws come in from outside: the state of PyTorch's own generators does not matter.
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextlib.contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, running statistics of batches stay as they are: what passes has been counted before."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    state = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, state, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
