"""The inner loop that MAML, ANIL and MAML++ share: gradient descent on a task's supports, as a function of weights.

A network is an `nn.Module` with `features(images)`, a linear `head` and `forward(images)`; its parameters are read,
never changed. Whether batch normalisation uses a batch's own statistics is its mode: `train()` or `eval()`.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from metantk.meta_learning.second_derivatives import TwiceDifferentiable
from metantk.meta_learning.statistics import answer_by_support_statistics, take_statistics
from metantk.runtime.files import InputError

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


class StepNorms(nn.Module):
    """Scales, offsets and running averages of a network's norms, apart for each step of the inner loop (MAML++).

    All steps begin with the network's own. Step s normalises its supports by those of index s, and the queries are
    answered after it by the same ones (AntreasAntoniou/HowToTrainYourMAMLPytorch).

    Attributes:
        learned: by name of the network's parameter with `|` for `.`, `(steps, ...)` each.
        averages: buffers alike.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        modules = [(prefix, module) for prefix, module in network.named_modules() if isinstance(module, _NORMS)]
        self.learned = nn.ParameterDict()
        self.averages = nn.Module()
        for prefix, module in modules:
            for name, parameter in module.named_parameters():
                self.learned[key_of(f"{prefix}.{name}")] = nn.Parameter(_repeat(parameter, steps))
            for name, buffer in module.named_buffers():
                if buffer.is_floating_point():  # a counter is of no use to averages of a fixed momentum
                    self.averages.register_buffer(key_of(f"{prefix}.{name}"), _repeat(buffer, steps))
        self.steps = steps

    def weights(self, step: int) -> Weights:
        """Scales and offsets of a step, by the network's names."""
        return {name_of(key): parameter[step] for key, parameter in self.learned.items()}

    def buffers_of(self, step: int) -> Weights:
        """Copies of a step's running averages, by the network's names."""
        return {name_of(key): buffer[step].clone() for key, buffer in self.averages.named_buffers()}

    @torch.no_grad()
    def set_buffers(self, each: Sequence[list[Weights]]) -> None:
        """Set the running averages to the mean over tasks; `each`: of a task, those of its steps."""
        for key, buffer in self.averages.named_buffers():
            of_tasks = [torch.stack([of_step[name_of(key)] for of_step in of_task]) for of_task in each]
            buffer.copy_(torch.stack(of_tasks).mean(0))


def _repeat(tensor: Tensor, steps: int) -> Tensor:
    return tensor.detach().expand(steps, *tensor.shape).clone()


def key_of(name: str) -> str:
    """A parameter's name as a key of a ParameterDict, where a dot would mean a module within."""
    return name.replace(".", "|")


def name_of(key: str) -> str:
    """Back from `key_of`."""
    return key.replace("|", ".")


def check(network: nn.Module, inner: InnerLoop, norms: StepNorms | None = None) -> None:
    """Refuse an inner loop that says nothing sensible about this network.

    Raises:
        InputError: steps below 0, joint statistics without "head", norms per step that the inner loop would move or
            does not reach, or rates or norms that do not fit the steps.
    """
    names = adapted_names(network, inner.adapt)
    if inner.steps < 0:
        raise InputError(f"steps is {inner.steps}; it must be at least 0")
    if inner.joint_statistics and inner.adapt != "head":
        raise InputError(f"joint_statistics needs adapt 'head', found {inner.adapt!r}")
    if norms is not None and inner.adapt != "all but norms":
        raise InputError(f"norms per step need adapt 'all but norms', found {inner.adapt!r}")
    if norms is not None and norms.steps < inner.steps:
        raise InputError(f"there are norms of {norms.steps} steps for {inner.steps} steps")
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
        step_buffers: of each step, running averages in the place of those of `buffers`; none without `norms`.
    """

    def __init__(self, network: nn.Module, adapt: Adapt, norms: StepNorms | None = None) -> None:
        self.network = network
        self.adapted = adapted_names(network, adapt)
        self.weights: Weights = dict(network.named_parameters())
        self.buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
        self.norms = norms
        self.step_buffers = [] if norms is None else [norms.buffers_of(step) for step in range(norms.steps)]

    def logits(self, weights: Weights, images: Tensor, step: int) -> Tensor:
        """`(images, 3, height, width)` to `(images, ways)`, by the norms of a step."""
        state = weights | self.buffers
        if self.norms is not None:
            state |= self.norms.weights(step) | self.step_buffers[step]
        return functional_call(self.network, state, (images,))

    def features(self, weights: Weights, images: Tensor) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`."""
        state = {f"network.{name}": value for name, value in (weights | self.buffers).items()}
        return functional_call(_Features(self.network), state, (images,))

    def head(self, weights: Weights, features: Tensor, step: int) -> Tensor:
        """`(images, feature_dim)` to `(images, ways)`, the same in all steps."""
        return functional.linear(features, weights["head.weight"], weights["head.bias"])


def descend(
    loss: Callable[[Weights, int], Tensor], weights: Weights, adapted: list[str], inner: InnerLoop
) -> Iterator[Weights]:
    """The weights before the first step and after each one: `steps + 1` times. `loss` takes the index of the step.

    Without gradients outside (`torch.no_grad`), no step keeps a graph and memory stays flat.
    """
    yield weights
    second_order = torch.is_grad_enabled() and not inner.first_order
    for step in range(inner.steps):
        with torch.enable_grad(), TwiceDifferentiable() if second_order else contextlib.nullcontext():
            if second_order:
                moving = {name: weights[name] for name in adapted}
            else:
                moving = {name: weights[name].detach().requires_grad_() for name in adapted}
            # A cell need not use both of its inputs: what stands before an unused one has no gradient.
            gradients = torch.autograd.grad(
                loss(weights | moving, step),
                list(moving.values()),
                create_graph=second_order,
                allow_unused=True,
                materialize_grads=True,
            )
        moved = {
            name: weights[name] - _rate(inner.rate, name, step) * gradient
            for name, gradient in zip(adapted, gradients, strict=True)
        }
        weights = weights | moved
        yield weights


def _rate(rate: Rate, name: str, step: int) -> float | Tensor:
    return rate[name][step] if isinstance(rate, Mapping) else rate


def adapt_and_answer(
    network: Stateless,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    inner: InnerLoop,
    after: Collection[int],
    *,
    inductive: bool = False,
) -> list[Tensor]:
    """Logits of the adapted network on the queries, after each number of steps in `after`.

    Args:
        support: `(supports, 3, height, width)`.
        labels: int64 `(supports)`.
        query: `(queries, 3, height, width)`.
        after: numbers of steps, 0 to `inner.steps`.
        inductive: normalise queries by the statistics of the supports, not their own; for networks in training
            mode, without gradients.

    Returns:
        In the order of the steps, `(queries, ways)` each.
    """
    answer, images = network.logits, support
    if inner.adapt == "head":
        if inductive:
            features = functools.partial(network.features, network.weights)
            query = answer_by_support_statistics(network.network, features, images, query)
            support = features(images)
            inductive = False  # the head has no statistics
        elif inner.joint_statistics:
            both = network.features(network.weights, torch.cat([support, query]))
            support, query = both.split([len(support), len(query)])
        else:
            support = network.features(network.weights, support)
            query = network.features(network.weights, query)
        answer = network.head

    def loss(weights: Weights, step: int) -> Tensor:
        return functional.cross_entropy(answer(weights, support, step), labels)

    def answer_queries(weights: Weights, step: int) -> Tensor:
        if not inductive:
            return answer(weights, query, step)
        return answer_by_support_statistics(
            network.network, lambda images: answer(weights, images, step), support, query
        )

    steps = descend(loss, network.weights, network.adapted, inner)
    return [answer_queries(weights, max(index - 1, 0)) for index, weights in enumerate(steps) if index in after]


@torch.no_grad()
def adapted_network(
    network: nn.Module,
    support: Tensor,
    labels: Tensor,
    inner: InnerLoop,
    norms: StepNorms | None = None,
    *,
    transductive: bool,
) -> nn.Module:
    """A copy of the network adapted to a task, in evaluation mode: what answers `inductive` queries, as a module.

    Args:
        support, labels: as of `adapt_and_answer`.
        transductive: of the learner: its running averages become the statistics of the supports.
    """
    own = copy.deepcopy(network).train(transductive)
    stateless = Stateless(own, inner.adapt, norms)
    answer, inputs = stateless.logits, support
    if inner.adapt == "head":
        answer, inputs = stateless.head, stateless.features(stateless.weights, support)

    def loss(weights: Weights, step: int) -> Tensor:
        return functional.cross_entropy(answer(weights, inputs, step), labels)

    *_, weights = descend(loss, stateless.weights, stateless.adapted, inner)
    state = weights | stateless.buffers
    if norms is not None:
        last = max(inner.steps - 1, 0)
        state |= norms.weights(last) | stateless.step_buffers[last]
    own.load_state_dict({name: value.clone() for name, value in state.items()})
    if transductive:
        take_statistics(own, own, support)
    return own.eval()
