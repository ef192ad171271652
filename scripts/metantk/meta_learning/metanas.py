"""A task of MetaNAS: weights and architecture learned side by side, with DARTS and soft pruning.

Softmaxes over operations and over pairs of inputs sharpen as their temperature falls, and what falls below a
threshold is skipped. The search `metanas` and the learner `metanas` share this.

Gradients of the architecture are first order and at the current weights. (The published code takes them at a copy
that its commands never update; that is not meant, and not done here.)
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from metantk.meta_learning.reptile import draw_batch, make_adam, step_on
from metantk.meta_learning.statistics import answer_by_support_statistics
from metantk.options.searches.metanas import Adaptation, TaskLearning
from metantk.runtime.devices import generator
from metantk.space.genotype import CELL_TYPES, Space
from metantk.space.mixed import Arch, MixedNetwork, pairs_of, pairwise_mixture

REMOVED = -1e9  # logit of an operation that is removed for good: no step of a float32 moves it


class TaskGenerators(NamedTuple):
    """Generators of a task: of its batches, on the CPU, and of drop path, on the images' device."""

    batches: torch.Generator
    paths: torch.Generator


def make_generators(device: torch.device, *key: int | str) -> TaskGenerators:
    return TaskGenerators(generator("metanas batches", *key), generator("metanas paths", *key, device=device))


class Alphas(NamedTuple):
    """Logits of the architecture of a type of cell: of operations `(edges, operations)`, of pairs `(pairs,)`."""

    operations: Tensor
    pairs: Tensor


def temperature_at(step: int, steps: int, minimum: float) -> float:
    """Linear from 1 at a task's first architecture step to `minimum` at its last, and so from there on."""
    if step >= steps - 1:
        return minimum if steps > 1 or step > 0 else 1.0
    return 1 - step * (1 - minimum) / (steps - 1)


class TaskLearner:
    """The mixed network, the architecture's parameters and an optimiser of each: all that is meta-learned.

    The optimisers' moments go on from task to task (published code).
    """

    def __init__(self, network: MixedNetwork, alphas: dict[str, Alphas], options: TaskLearning) -> None:
        self.network, self.alphas, self.options = network, alphas, options
        self.weights = list(network.parameters())
        self.weight_optimiser = make_adam(self.weights, options.inner_lr)
        self.alpha_optimiser = make_adam(self.alpha_tensors, options.arch_inner_lr, options.arch_weight_decay)

    @property
    def alpha_tensors(self) -> list[Tensor]:
        return [tensor for kind in CELL_TYPES for tensor in self.alphas[kind]]

    def arch(self, temperature: float, threshold: float) -> Arch:
        """The mixture of each type of cell; differentiable."""
        space = self.network.space
        return {
            kind: pairwise_mixture(*alphas, space, temperature=temperature, threshold=threshold)
            for kind, alphas in self.alphas.items()
        }

    def loss(
        self, images: Tensor, labels: Tensor, arch: Arch, threshold: float, rate: float, generators: TaskGenerators
    ) -> Tensor:
        logits = self.network(images, arch, threshold=threshold, rate=rate, generator=generators.paths)
        return functional.cross_entropy(logits, labels)

    def learn(
        self,
        images: Tensor,
        labels: Tensor,
        generators: TaskGenerators,
        *,
        steps: int,
        architecture_steps: int | None,
        batch: int,
        threshold: float,
        drop_path: float,
    ) -> float:
        """Learn a task in place.

        Args:
            steps: of the weights.
            architecture_steps: the first steps, that learn the architecture too while the temperature falls; None
                is warm-up, where neither happens.
            batch: images of a step.
            threshold: of what is skipped.
            drop_path: probability.

        Returns:
            the loss of the last step's batch, in nats; nan without steps.
        """
        loss = torch.tensor(float("nan"))
        for step in range(steps):
            temperature = 1.0
            if architecture_steps is not None:
                temperature = temperature_at(step, architecture_steps, self.options.min_temperature)
            if step < (architecture_steps or 0):
                chosen = draw_batch(labels, batch, generators.batches)
                arch = self.arch(temperature, threshold)
                loss = self.loss(images[chosen], labels[chosen], arch, threshold, drop_path, generators)
                step_on(loss, self.alpha_optimiser)
            chosen = draw_batch(labels, batch, generators.batches)
            with torch.no_grad():
                arch = self.arch(temperature, threshold)
            loss = self.loss(images[chosen], labels[chosen], arch, threshold, drop_path, generators)
            step_on(loss, self.weight_optimiser)
        return loss.item()

    @torch.no_grad()
    def remove_tiny(self) -> int:
        """Remove operations of less weight than the threshold at the lowest temperature; how many are removed."""
        weights = self.final_weights()
        for kind in CELL_TYPES:
            logits = self.alphas[kind].operations
            logits[weights[kind] < self.options.threshold] = REMOVED
        return sum(int((alphas.operations == REMOVED).sum()) for alphas in self.alphas.values())

    @torch.no_grad()
    def final_weights(self) -> dict[str, Tensor]:
        """Weights of the operations at the lowest temperature, by type of cell."""
        arch = self.arch(self.options.min_temperature, 0.0)
        return {kind: mixture.operations for kind, mixture in arch.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that is meta-learned, by name: weights, alphas and the optimisers' second moments, on the CPU."""
        named = {f"weights.{name}": value for name, value in self.network.named_parameters()}
        for kind, alphas in self.alphas.items():
            named |= {f"alphas.{kind}.{name}": value for name, value in alphas._asdict().items()}
        tensors = {name: value.detach().cpu().clone() for name, value in named.items()}
        for name, value in named.items():
            state = self._optimiser_of(name).state.get(value)
            if state:
                tensors[f"moments.{name}"] = state["exp_avg_sq"].cpu().clone()
                tensors[f"steps.{name}"] = state["step"].cpu().clone()
        return tensors

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """As `tensors()` gave them."""
        named = {f"weights.{name}": value for name, value in self.network.named_parameters()}
        for kind, alphas in self.alphas.items():
            named |= {f"alphas.{kind}.{name}": value for name, value in alphas._asdict().items()}
        for name, value in named.items():
            with torch.no_grad():
                value.copy_(tensors[name])
            states = self._optimiser_of(name).state
            states.pop(value, None)
            if f"moments.{name}" in tensors:
                states[value] = {
                    "step": tensors[f"steps.{name}"].clone(),
                    "exp_avg": torch.zeros_like(value),  # of no weight: it is overwritten by the next gradient
                    "exp_avg_sq": tensors[f"moments.{name}"].to(value.device, copy=True),
                }

    def _optimiser_of(self, name: str) -> torch.optim.Adam:
        return self.weight_optimiser if name.startswith("weights.") else self.alpha_optimiser


def initial_alphas(space: Space, seed: int, device: torch.device) -> dict[str, Alphas]:
    """Logits of an architecture that mixes all nearly alike: normal, of deviation 0.001 (published code)."""
    generators = generator("metanas alphas", seed)
    shapes = [(len(space.edges), len(space.operations)), (sum(len(pairs) for pairs in pairs_of(space)),)]
    return {
        kind: Alphas(*((1e-3 * torch.randn(s, generator=generators)).to(device).requires_grad_() for s in shapes))
        for kind in CELL_TYPES
    }


class Adapted(NamedTuple):
    """What the network that is adapted to a task says.

    Attributes:
        logits: of the queries, `(queries, ways)`.
        parameters: that survive in the network of this task.
    """

    logits: Tensor
    parameters: int


def adapt_to_task(
    learner: TaskLearner,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    options: Adaptation,
    generators: TaskGenerators,
    *,
    inductive: bool = False,
) -> Adapted:
    """Learn a task from its support, weights and architecture, and answer its queries all at once.

    Batch normalisation uses the statistics of the queries, so the answers depend on each other: the published,
    transductive protocol (one query per class). Afterwards the learner is as it was before, moments included.

    Args:
        support, query: normalised images, `(images, 3, height, width)`.
        labels: of the support, in 0..ways - 1.
        inductive: normalise queries by the statistics of the supports instead.
    """
    network = learner.network
    before = learner.tensors()
    learner.learn(
        support,
        labels,
        generators,
        steps=options.inner_steps,
        architecture_steps=round(options.inner_steps * options.architecture_share),
        batch=options.inner_batch_size,
        threshold=options.threshold,
        drop_path=0.0,
    )
    with torch.no_grad():
        arch = learner.arch(learner.options.min_temperature, options.threshold)

        def forward(images: Tensor) -> Tensor:
            return network(images, arch, threshold=options.threshold)

        logits = answer_by_support_statistics(network, forward, support, query) if inductive else forward(query)
        parameters = network.count_surviving(arch, options.threshold)
    learner.load_tensors(before)
    return Adapted(logits, parameters)
