"""Blocks whose inner activations are computed again in the backward pass instead of kept."""

import contextlib
import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint


def apply(block: nn.Module, *inputs: Tensor | float | None, recompute: bool) -> Tensor:
    """`block(*inputs)`; with `recompute` the same gradients and running statistics, in less memory and more time.

    A block must not draw random numbers: draws come in as inputs.
    """
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)
    # Those of now: an inner loop has other weights, and its own norms, by the time of the backward pass.
    weights = dict(block.named_parameters())
    modes = _get_current_function_mode_stack()
    passes = itertools.count()

    def run(*inputs: Tensor | float | None) -> Tensor:
        if next(passes) == 0:
            return block(*inputs)
        # Copies, so that running statistics stay as they are: what passes has been counted before.
        buffers = {name: own.clone() for name, own in block.named_buffers()}
        with contextlib.ExitStack() as again:
            for mode in modes:
                again.enter_context(mode)
            return functional_call(block, weights | buffers, inputs)

    # Draws come in from outside: the state of PyTorch's own generators does not matter.
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
