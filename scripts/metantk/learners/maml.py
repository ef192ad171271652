"""MAML, its first-order form, ANIL and the mathematics of MAML++: meta-training losses and test-time predictions.

Finn's code sums the inner loss over the supports and divides by the shots: `ways` times the mean that is taken
here, so that its nominal rate of 0.01 is a `rate` of 0.05 in 5-way tasks (cbfinn/maml).

Of MAML++ there are the multi-step loss (`step_weights` and `multi_step_weights`), inner rates learned per step and
parameter (`rate` as a mapping and `initial_rates`) and the cosine schedule (`cosine_rate`); its annealed order of
derivatives is `first_order` in the first epochs. Statistics, scales and offsets of batch normalisation per step are
not there.
"""

import copy
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.learners.adaptation import (
    Adapt,
    InnerLoop,
    Rate,
    Stateless,
    Weights,
    adapt_and_answer,
    adapted_names,
    check,
)
from metantk.storage import InputError


def task_loss(
    network: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    *,
    steps: int,
    rate: Rate,
    first_order: bool = False,
    adapt: Adapt = "all",
    joint_statistics: bool = False,
    step_weights: Tensor | None = None,
) -> Tensor:
    """`tasks_loss` of one task, without the axis of tasks; its backward pass frees the graph of that task."""
    losses, _ = tasks_loss(
        network,
        support[None],
        support_labels[None],
        query[None],
        query_labels[None],
        steps=steps,
        rate=rate,
        first_order=first_order,
        adapt=adapt,
        joint_statistics=joint_statistics,
        step_weights=step_weights,
    )
    return losses[0]


def tasks_loss(
    network: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    *,
    steps: int,
    rate: Rate,
    first_order: bool = False,
    adapt: Adapt = "all",
    joint_statistics: bool = False,
    step_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the network adapted to each task, on the task's queries.

    Tasks run in turn: as one pass over stacked weights (vmap, which makes grouped convolutions) they took as long
    with 8 channels, and a quarter longer with 32 (Conv4, 4 tasks of 5 ways and 5 shots, 32×32 pixels, CPU). On a
    CPU, channels-last pictures and weights take two thirds of the time at first order, and no less at second.

    The backward pass of the losses gives the outer gradient on `network.parameters()`, and on rates that want one.
    In training mode the running averages of batch normalisation move too: to the mean over tasks of what a task's
    passes (supports at each step, queries at each answer) would make of them, starting from the network's.

    Args:
        support: `(tasks, supports, 3, height, width)`.
        support_labels: int64 `(tasks, supports)`.
        query: `(tasks, queries, 3, height, width)`.
        query_labels: int64 `(tasks, queries)`.
        steps, rate, first_order, adapt, joint_statistics: as in `InnerLoop`.
        step_weights: `(steps,)`; the loss is then the sum over steps of the weight times the loss after that step
            (MAML++). Steps of weight 0 cost nothing. Without, the loss is that after the last step.

    Returns:
        Losses `(tasks,)`, and logits after the last step `(tasks, queries, ways)`, which carry the graph too.

    Raises:
        InputError: as `adaptation.check`, or weights that do not fit the steps.
    """
    inner = InnerLoop(steps, rate, adapt, first_order, joint_statistics)
    check(network, inner)
    after = _weights_of_steps(step_weights, steps)
    each, buffers = [], []
    for images, labels, asked in zip(support, support_labels, query, strict=True):
        stateless = Stateless(network, adapt)
        each.append(adapt_and_answer(stateless, images, labels, asked, inner, after))
        buffers.append(stateless.buffers)
    if network.training:
        _average_buffers(network, buffers)
    losses = [
        sum(
            weight * functional.cross_entropy(logits, labels)
            for weight, logits in zip(after.values(), answers, strict=True)
        )
        for answers, labels in zip(each, query_labels, strict=True)
    ]
    return torch.stack(losses), torch.stack([answers[-1] for answers in each])


def _weights_of_steps(step_weights: Tensor | None, steps: int) -> dict[int, float | Tensor]:
    """Numbers of steps after which queries are answered, and the weight of each answer's loss."""
    if step_weights is None:
        return {steps: 1.0}
    if len(step_weights) != steps or steps == 0:
        raise InputError(f"step_weights has {len(step_weights)} entries for {steps} steps")
    return {number: weight for number, weight in enumerate(step_weights, 1) if weight or number == steps}


@torch.no_grad()
def _average_buffers(network: nn.Module, buffers: Sequence[Weights]) -> None:
    """Set the network's buffers to the mean over tasks; counters, the same in all of them, to the first's."""
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.stack([each[name] for each in buffers]).mean(0))
        else:
            buffer.copy_(buffers[0][name])


def predict(
    network: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    *,
    steps: int,
    rate: Rate,
    adapt: Adapt = "all",
    transductive: bool = True,
    joint_statistics: bool = False,
) -> Tensor:
    """Adapt to each episode's supports and name the class of its queries; the network stays as it is.

    Episodes run in turn in channels-last order, which takes 0.5 to 0.6 of the processor time of PyTorch's own order
    (Conv4-32, 5 steps); on a CPU as many side by side as PyTorch has threads, one thread each.

    Args:
        support: `(episodes, supports, 3, height, width)`.
        support_labels: int64 `(episodes, supports)`.
        query: `(episodes, queries, 3, height, width)`.
        steps, rate, adapt, joint_statistics: as in `InnerLoop`.
        transductive: normalise each batch by its own statistics, queries together (MAML as published); else by the
            running averages of meta-training, in the steps too.

    Returns:
        int64 `(episodes, queries)`.

    Raises:
        InputError: as `adaptation.check`.
    """
    inner = InnerLoop(steps, rate, adapt, joint_statistics=joint_statistics)
    check(network, inner)

    @torch.no_grad()
    def answer(part: slice) -> Tensor:
        # A copy: threads lend the network their weights, and the mode and the order of axes are another's.
        own = copy.deepcopy(network).train(transductive).to(memory_format=torch.channels_last)
        episodes = (support[part], support_labels[part], query[part])
        return torch.stack(
            [_argmax(Stateless(own, adapt), *episode, inner) for episode in zip(*episodes, strict=True)]
        )

    threads = torch.get_num_threads()
    workers = 1 if support.device.type != "cpu" else min(threads, len(support))
    if workers == 1:
        return answer(slice(None))
    torch.set_num_threads(1)
    bounds = [len(support) * worker // workers for worker in range(workers + 1)]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return torch.cat(list(pool.map(answer, map(slice, bounds, bounds[1:]))))
    finally:
        torch.set_num_threads(threads)


def _argmax(network: Stateless, support: Tensor, labels: Tensor, query: Tensor, inner: InnerLoop) -> Tensor:
    support = support.contiguous(memory_format=torch.channels_last)
    query = query.contiguous(memory_format=torch.channels_last)
    return adapt_and_answer(network, support, labels, query, inner, [inner.steps])[0].argmax(-1)


def nil_scores(
    support_features: Tensor, support_labels: Tensor, query_features: Tensor, *, ways: int, softmax: bool = False
) -> Tensor:
    """Scores of classes without a head: each support votes for its class with its cosine to the query (NIL).

    Args:
        support_features: `(..., supports, feature_dim)`.
        support_labels: int64 `(..., supports)`.
        query_features: `(..., queries, feature_dim)`.
        softmax: take the softmax of the cosines over the supports first, as Matching Networks do.

    Returns:
        `(..., queries, ways)`.
    """
    cosines = functional.normalize(query_features, dim=-1) @ functional.normalize(support_features, dim=-1).mT
    votes = cosines.softmax(-1) if softmax else cosines
    return votes @ functional.one_hot(support_labels, ways).to(votes.dtype)


def multi_step_weights(epoch: int, *, steps: int, epochs: int) -> Tensor:
    """`step_weights` of MAML++ in an epoch, counted from 0: float64 `(steps,)`, sum 1.

    All equal at first; each but the last falls linearly to 0.03 / steps, and from epoch `epochs` on the last step
    alone counts (AntreasAntoniou/HowToTrainYourMAMLPytorch).
    """
    weights = torch.zeros(steps, dtype=torch.float64)
    if epoch < epochs:
        weights[:-1] = max((1 - epoch / epochs) / steps, 0.03 / steps)
    weights[-1] = 1 - weights[:-1].sum()
    return weights


def initial_rates(network: nn.Module, *, steps: int, rate: float, adapt: Adapt = "all") -> dict[str, nn.Parameter]:
    """Inner rates of each adapted parameter, `(steps,)` each, to be learned with the outer loop (MAML++)."""
    parameters = dict(network.named_parameters())
    return {
        name: nn.Parameter(parameters[name].new_full((steps,), rate, requires_grad=False))
        for name in adapted_names(network, adapt)
    }


def cosine_rate(epoch: int, *, epochs: int, rate: float, last: float = 0.0) -> float:
    """The outer rate in an epoch, counted from 0: half a cosine from `rate` down to `last` in epoch `epochs`."""
    return last + (rate - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2
