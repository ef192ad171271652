"""MAML, its first-order form, ANIL and the mathematics of MAML++: meta-training losses and test-time predictions.

Finn's code sums the inner loss over the supports and divides by the shots: `ways` times the mean that is taken
here, so that its nominal rate of 0.01 is a `rate` of 0.05 in 5-way tasks (cbfinn/maml).

All of MAML++ is there: the multi-step loss (`step_weights` and `multi_step_weights`), inner rates learned per step
and parameter (`rate` as a mapping and `initial_rates`), statistics, scales and offsets of batch normalisation per
step (`StepNorms`), the cosine schedule (`cosine_rate`); its annealed order of derivatives is `first_order` in the
first epochs. As in the published code, batches are normalised by their own statistics, in tests too: the averages
per step answer where `transductive` is false.
"""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.data.images import ImageData
from metantk.learners.base import Outcome, StepContext
from metantk.learners.episodic import TaskSampler, balanced, prepare, require_ways, steps_of_epoch
from metantk.meta_learning.adaptation import (
    Adapt,
    InnerLoop,
    Rate,
    Stateless,
    StepNorms,
    Weights,
    adapt_and_answer,
    adapted_names,
    adapted_network,
    check,
    key_of,
    name_of,
)
from metantk.meta_learning.schedules import cosine_rate
from metantk.meta_learning.statistics import answer_by_support_statistics, take_statistics
from metantk.models import Model, OnFeatures, Tasks
from metantk.options.learners.maml import Options
from metantk.runtime import devices
from metantk.runtime.files import InputError


def outputs(options: Options, classes: int) -> int:
    return options.ways


class Networks(nn.Module):
    """What is learned beside the first network: those of further numbers of shots, inner rates, norms per step.

    Attributes:
        networks: by number of shots.
        rates: by number of shots, by name of the parameter with `|` for `.`, `(steps,)` each.
        norms: by number of shots.
    """

    def __init__(self, network: nn.Module, options: Options) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({str(shots): copy.deepcopy(network) for shots in options.shots[1:]})
        self.rates = nn.ModuleDict()
        if options.learn_inner_lr:
            for shots in options.shots:
                rates = initial_rates(
                    network, steps=options.inner_steps, rate=options.inner_lr, adapt=options.adapt
                )
                self.rates[str(shots)] = nn.ParameterDict({key_of(name): rate for name, rate in rates.items()})
        self.norms = nn.ModuleDict()
        if options.per_step_batch_norm:
            self.norms.update({str(shots): StepNorms(network, options.inner_steps) for shots in options.shots})

    def rate_of(self, shots: int, otherwise: float) -> Rate:
        if str(shots) not in self.rates:
            return otherwise
        return {name_of(key): rate for key, rate in self.rates[str(shots)].items()}

    def norms_of(self, shots: int) -> StepNorms | None:
        return dict(self.norms).get(str(shots))


class Learner:
    """Adam on the loss of adapted networks; one network for each number of shots, all trained side by side."""

    def __init__(self, options: Options, network: nn.Module, data: ImageData, seed: int) -> None:
        devices.set_precision(options.precision)
        self.options, self.network, self.data = options, network, data
        self.epochs, self.steps = options.epochs, options.steps_per_epoch
        self.samplers = [
            TaskSampler(
                data, seed, tasks=options.meta_batch_size, ways=options.ways, shots=shots, queries=options.queries
            )
            for shots in options.shots
        ]
        self.extra = Networks(network, options)
        self.networks = [network, *self.extra.networks.values()]
        self.parameters = [*network.parameters(), *self.extra.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=options.meta_lr)

    def lr(self, epoch: int) -> float:
        if self.options.lr_schedule == "constant":
            return self.options.meta_lr
        return cosine_rate(epoch, steps=self.epochs, rate=self.options.meta_lr)

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        return steps_of_epoch(self.samplers, epoch, first, self.steps)

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        """Tasks go backward one by one, so that memory holds the graph of a single one."""
        inputs = prepare(images, self.data, self.options.augmentation, context)
        splits = inputs.split([sampler.size for sampler in self.samplers])
        outcomes = [
            self._learn(*each, context.epoch) for each in zip(self.networks, self.samplers, splits, strict=True)
        ]
        nn.utils.clip_grad_value_(self.parameters, self.options.clip_grad_value)
        losses, correct, seen = zip(*outcomes, strict=True)
        return Outcome(torch.stack(losses).mean(), torch.stack(correct).sum(), sum(seen))

    def _learn(self, network: nn.Module, sampler: TaskSampler, inputs: Tensor, epoch: int) -> Outcome:
        """Leave the mean gradient over the tasks of one number of shots in its network."""
        options = self.options
        support, query = sampler.split(inputs)
        support_labels = sampler.labels(sampler.shots, inputs.device)
        query_labels = sampler.labels(sampler.queries, inputs.device)
        network.train()
        step_weights = None
        if epoch < options.multi_step_loss_epochs:
            step_weights = multi_step_weights(
                epoch, steps=options.inner_steps, epochs=options.multi_step_loss_epochs
            )
        losses, correct = [], []
        for task in range(sampler.tasks):
            one = slice(task, task + 1)
            loss, logits = tasks_loss(
                network,
                support[one],
                support_labels[one],
                query[one],
                query_labels[one],
                steps=options.inner_steps,
                rate=self.extra.rate_of(sampler.shots, options.inner_lr),
                first_order=options.first_order or epoch < options.first_order_epochs,
                adapt=options.adapt,
                joint_statistics=options.joint_statistics,
                step_weights=step_weights,
                norms=self.extra.norms_of(sampler.shots),
            )
            (loss[0] / sampler.tasks).backward()
            losses.append(loss[0].detach())
            correct.append((logits.detach().argmax(-1) == query_labels[one]).sum())
        return Outcome(torch.stack(losses).mean(), torch.stack(correct).sum(), query_labels.numel())


def scores(model: Model, tasks: Tasks) -> Tensor:
    """Logits of the network adapted to each task, or NIL's votes, `(episodes, queries, ways)`.

    Raises:
        InputError: the tasks have not as many classes as those of the training.
    """
    options = model.learner
    require_ways(options.ways, tasks.ways)
    network, rate, norms = _network_for(model, len(tasks.labels) // tasks.ways)
    tasks = balanced(tasks)
    support, query = tasks.support_images(), tasks.query_images()
    labels = tasks.labels.expand(len(support), -1)
    inductive = options.transductive and not tasks.transductive
    if options.test_classifier == "nil":
        return _nil(network, support, labels, query, options, inductive=inductive)
    return adapted_logits(
        network,
        support,
        labels,
        query,
        steps=options.test_steps,
        rate=rate,
        adapt=options.adapt,
        transductive=options.transductive,
        inductive=inductive,
        joint_statistics=options.joint_statistics,
        norms=norms,
    )


def classifier(model: Model, tasks: Tasks) -> nn.Module:
    """The network adapted to one task, or NIL's votes on its features; see `metantk.learners.base`."""
    options = model.learner
    require_ways(options.ways, tasks.ways)
    network, rate, norms = _network_for(model, len(tasks.labels) // tasks.ways)
    tasks = balanced(tasks)
    support = tasks.support_images()[0]
    if options.test_classifier == "nil":
        return _nil_classifier(network, support, tasks.labels, options)
    inner = InnerLoop(options.test_steps, rate, options.adapt, joint_statistics=options.joint_statistics)
    check(network, inner, norms)
    return adapted_network(network, support, tasks.labels, inner, norms, transductive=options.transductive)


@torch.no_grad()
def _nil_classifier(network: nn.Module, support: Tensor, labels: Tensor, options: Options) -> nn.Module:
    network = copy.deepcopy(network).train(options.transductive)
    features = functional.normalize(network.features(support), dim=-1)
    if options.transductive:
        take_statistics(network, network.features, support)
    votes = functional.one_hot(labels, options.ways).to(features).mT @ features
    return OnFeatures(network.eval(), votes, None, normalises=True)


def _network_for(model: Model, shots: int) -> tuple[nn.Module, Rate, StepNorms | None]:
    """The network that was trained with the nearest number of shots, its inner rates and norms per step."""
    options = model.learner
    nearest = min(options.shots, key=lambda trained: abs(trained - shots))
    extra = Networks(model.network, options).to(model.device)
    extra.load_state_dict(model.extra)
    network = model.network if nearest == options.shots[0] else extra.networks[str(nearest)]
    return network, extra.rate_of(nearest, options.inner_lr), extra.norms_of(nearest)


@torch.no_grad()
def _nil(
    network: nn.Module, support: Tensor, labels: Tensor, query: Tensor, options: Options, *, inductive: bool
) -> Tensor:
    """Supports and queries of an episode pass the body apart, or normalised together."""
    network = copy.deepcopy(network).train(options.transductive)

    def features(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        if inductive:
            queries = answer_by_support_statistics(network, network.features, support, query)
            return network.features(support), queries
        if options.joint_statistics:
            return network.features(torch.cat([support, query])).split([len(support), len(query)])
        return network.features(support), network.features(query)

    each = [features(*episode) for episode in zip(support, query, strict=True)]
    supports, queries = (torch.stack(features) for features in zip(*each, strict=True))
    return nil_scores(supports, labels, queries, ways=options.ways)


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
    norms: StepNorms | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the network adapted to each task, on the task's queries.

    Tasks run in turn: as one pass over stacked weights (vmap, which makes grouped convolutions) they took as long
    with 8 channels, and a quarter longer with 32 (Conv4, 4 tasks of 5 ways and 5 shots, 32×32 pixels, CPU). On a
    CPU, channels-last images and weights take two thirds of the time.

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
        norms: of each step, in the place of the network's own; their running averages move as the network's do.

    Returns:
        Losses `(tasks,)`, and logits after the last step `(tasks, queries, ways)`, which carry the graph too.

    Raises:
        InputError: as `adaptation.check`, or weights that do not fit the steps.
    """
    inner = InnerLoop(steps, rate, adapt, first_order, joint_statistics)
    check(network, inner, norms)
    after = _weights_of_steps(step_weights, steps)
    each, moved = [], []
    for images, labels, queries in zip(support, support_labels, query, strict=True):
        stateless = Stateless(network, adapt, norms)
        each.append(adapt_and_answer(stateless, images, labels, queries, inner, after))
        moved.append(stateless)
    if network.training:
        _average_buffers(network, [stateless.buffers for stateless in moved])
        if norms is not None:
            norms.set_buffers([stateless.step_buffers for stateless in moved])
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
    return {index: weight for index, weight in enumerate(step_weights, 1) if weight or index == steps}


@torch.no_grad()
def _average_buffers(network: nn.Module, buffers: Sequence[Weights]) -> None:
    """Set the network's buffers to the mean over tasks; counters, the same in all of them, to the first's."""
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.stack([each[name] for each in buffers]).mean(0))
        else:
            buffer.copy_(buffers[0][name])


def predict(network: nn.Module, support: Tensor, support_labels: Tensor, query: Tensor, **how) -> Tensor:
    """Classes of the queries by `adapted_logits`, whose arguments it takes; int64 `(episodes, queries)`."""
    return adapted_logits(network, support, support_labels, query, **how).argmax(-1)


def adapted_logits(
    network: nn.Module,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    *,
    steps: int,
    rate: Rate,
    adapt: Adapt = "all",
    transductive: bool = True,
    inductive: bool = False,
    joint_statistics: bool = False,
    norms: StepNorms | None = None,
) -> Tensor:
    """Logits of the queries by the network adapted to each episode's supports; the network stays as it is.

    Episodes run in turn in channels-last order, which takes 0.5 to 0.6 of the processor time of PyTorch's own order
    (Conv4-32, 5 steps); on a CPU as many side by side as PyTorch has threads, one thread each.

    Args:
        support: `(episodes, supports, 3, height, width)`.
        support_labels: int64 `(episodes, supports)`.
        query: `(episodes, queries, 3, height, width)`.
        steps, rate, adapt, joint_statistics: as in `InnerLoop`.
        transductive: normalise each batch by its own statistics, queries together (MAML as published); else by the
            running averages of meta-training, in the steps too.
        inductive: with `transductive`, normalise the queries by the statistics of the supports instead.

    Returns:
        `(episodes, queries, ways)`.

    Raises:
        InputError: as `adaptation.check`.
    """
    inner = InnerLoop(steps, rate, adapt, joint_statistics=joint_statistics)
    check(network, inner, norms)

    @torch.no_grad()
    def answer(chunk: slice) -> Tensor:
        # A copy: threads lend the network their weights, and the mode and the order of axes are another's.
        own = copy.deepcopy(network).train(transductive).to(memory_format=torch.channels_last)
        logits = []
        for images, labels, queries in zip(support[chunk], support_labels[chunk], query[chunk], strict=True):
            images, queries = (part.contiguous(memory_format=torch.channels_last) for part in (images, queries))
            logits += adapt_and_answer(
                Stateless(own, adapt, norms),
                images,
                labels,
                queries,
                inner,
                [steps],
                inductive=inductive,
            )
        return torch.stack(logits)

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
