"""The inner loop that MAML, ANIL and MAML++ share: gradient descent on a task's supports, as a function of weights.

A network is an `nn.Module` with `features(images)`, a linear `head` and `forward(images)`; its parameters are read,
never changed. Whether batch normalisation uses a batch's own statistics is its mode: `train()` or `eval()`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from metantk.storage import InputError

Adapt = Literal["all", "all but norms", "head"]
Weights = dict[str, Tensor]
Rate = float | Mapping[str, Tensor]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class InnerLoop(NamedTuple):
    """How a network is adapted to a task.

    Attributes:
        steps: of gradient descent on the mean cross-entropy of the supports; 0 adapts nothing.
        rate: of all steps, or of each adapted parameter by its name and each step, `(steps,)` (MAML++, learned).
        adapt: what moves. "all" is MAML (learn2learn), "all but norms" MAML where scales and offsets of
            normalisation belong to the outer loop alone (Finn), "head" ANIL.
        first_order: whether the gradients of the inner steps are constants to the outer gradient.
        joint_statistics: with "head", the body sees supports and queries as one batch (learn2learn's ANIL).
    """

    steps: int
    rate: Rate
    adapt: Adapt = "all"
    first_order: bool = False
    joint_statistics: bool = False


def adapted_names(network: nn.Module, adapt: Adapt) -> list[str]:
    """Names of the parameters that the inner loop moves.

    Raises:
        InputError: an unknown `adapt`.
    """
    names = [name for name, _ in network.named_parameters()]
    match adapt:
        case "all":
            return names
        case "all but norms":
            modules = [(prefix, module) for prefix, module in network.named_modules() if isinstance(module, _NORMS)]
            norms = {f"{prefix}.{name}" for prefix, module in modules for name, _ in module.named_parameters()}
            return [name for name in names if name not in norms]
        case "head":
            return [name for name in names if name.startswith("head.")]
    raise InputError(f"adapt is {adapt!r}; it may be 'all', 'all but norms' or 'head'")


def check(network: nn.Module, inner: InnerLoop) -> None:
    """Refuse an inner loop that says nothing sensible about this network.

    Raises:
        InputError: steps below 0, joint statistics without "head", or rates that do not fit steps and parameters.
    """
    names = adapted_names(network, inner.adapt)
    if inner.steps < 0:
        raise InputError(f"steps is {inner.steps}; it must be at least 0")
    if inner.joint_statistics and inner.adapt != "head":
        raise InputError(f"joint_statistics needs adapt 'head', found {inner.adapt!r}")
    if isinstance(inner.rate, Mapping):
        for name in names:
            if name not in inner.rate:
                raise InputError(f"rate has no entry for parameter {name}")
            if len(inner.rate[name]) < inner.steps:
                raise InputError(f"rate of {name} has {len(inner.rate[name])} entries for {inner.steps} steps")


class _Features(nn.Module):
    """`network.features` as a module, for it is modules that take weights from outside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)


class Stateless:
    """A network as functions of its weights.

    Running averages of batch normalisation, in training mode, move in `buffers`, copies of the network's.

    Attributes:
        weights: all parameters by name.
        adapted: names of the parameters that the inner loop moves.
        buffers: all buffers by name.
    """

    def __init__(self, network: nn.Module, adapt: Adapt) -> None:
        self.network = network
        self.adapted = adapted_names(network, adapt)
        self.weights: Weights = dict(network.named_parameters())
        self.buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}

    def logits(self, weights: Weights, images: Tensor) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, ways)`."""
        return functional_call(self.network, weights | self.buffers, (images,))

    def features(self, weights: Weights, images: Tensor) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, feature_dim)`."""
        state = {f"network.{name}": value for name, value in (weights | self.buffers).items()}
        return functional_call(_Features(self.network), state, (images,))

    def head(self, weights: Weights, features: Tensor) -> Tensor:
        """`(pictures, feature_dim)` to `(pictures, ways)`."""
        return functional.linear(features, weights["head.weight"], weights["head.bias"])


def descend(
    loss: Callable[[Weights], Tensor], weights: Weights, adapted: list[str], inner: InnerLoop
) -> Iterator[Weights]:
    """The weights before the first step and after each one: `steps + 1` times.

    Where no gradient is asked for outside (`torch.no_grad`), no step keeps a graph and memory stays flat.
    """
    yield weights
    second_order = torch.is_grad_enabled() and not inner.first_order
    for step in range(inner.steps):
        with torch.enable_grad():
            if second_order:
                moving = {name: weights[name] for name in adapted}
            else:
                moving = {name: weights[name].detach().requires_grad_() for name in adapted}
            # A cell need not use both of its inputs: what stands before an unused one has no gradient.
            slopes = torch.autograd.grad(
                loss(weights | moving),
                list(moving.values()),
                create_graph=second_order,
                allow_unused=True,
                materialize_grads=True,
            )
        moved = {
            name: weights[name] - _rate(inner.rate, name, step) * slope
            for name, slope in zip(adapted, slopes, strict=True)
        }
        weights = weights | moved
        yield weights


def _rate(rate: Rate, name: str, step: int) -> float | Tensor:
    return rate[name][step] if isinstance(rate, Mapping) else rate


def adapt_and_answer(
    network: Stateless, support: Tensor, labels: Tensor, query: Tensor, inner: InnerLoop, after: Collection[int]
) -> list[Tensor]:
    """Logits of the adapted network on the queries, after each of the numbers of steps that are asked for.

    Args:
        support: `(supports, 3, height, width)`.
        labels: int64 `(supports)`.
        query: `(queries, 3, height, width)`.
        after: numbers of steps, 0 to `inner.steps`.

    Returns:
        In the order of the steps, `(queries, ways)` each.
    """
    answer = network.logits
    if inner.adapt == "head":
        if inner.joint_statistics:
            both = network.features(network.weights, torch.cat([support, query]))
            support, query = both.split([len(support), len(query)])
        else:
            support = network.features(network.weights, support)
            query = network.features(network.weights, query)
        answer = network.head

    def loss(weights: Weights) -> Tensor:
        return functional.cross_entropy(answer(weights, support), labels)

    steps = descend(loss, network.weights, network.adapted, inner)
    return [answer(weights, query) for number, weights in enumerate(steps) if number in after]
