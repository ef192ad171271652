"""AutoMeta (Kim et al. 2018): cells that grow block by block, each candidate meta-trained by Reptile.

Every candidate of one block is trained, a predictor is fitted on what was measured, and of all cells of one block
more those are trained which it likes best. A candidate's score is its mean accuracy on the queries of validation
tasks, after learning their support. One cell serves as normal and as reduction cell.

The paper leaves much open; `Found.facts["filled"]` lists what was filled in, and from where.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from metantk.backbones.cells import Network, stack
from metantk.backbones.counting import count_parameters
from metantk.backbones.initial import uniform_
from metantk.flops import count_operations
from metantk.meta_learning.reptile import learn_weights, make_adam, reptile_step, restore, snapshot
from metantk.meta_learning.schedules import cosine_rate
from metantk.options.searches.autometa import FILLED, AutoMetaOptions
from metantk.runtime.devices import generator, numpy_generator
from metantk.searches.base import Checkpoint, Cost, Found, Problem
from metantk.searches.pacing import Pacer
from metantk.searches.predictor import Ensemble
from metantk.searches.progressive import Candidate, Cell, genotype_of, grow, unique_blocks
from metantk.searches.tasks import TaskSource
from metantk.space.genotype import SPACES
from metantk.space.mixed import batch_norm

Options = AutoMetaOptions


class Trainee:
    """A candidate's network and its optimiser within tasks, whose moments go on from task to task."""

    def __init__(self, network: Network, options: AutoMetaOptions, seed: int) -> None:
        self.network, self.options, self.seed = network, options, seed
        self.weights = list(network.parameters())
        self.optimiser = make_adam(self.weights, options.inner_lr, options.weight_decay)
        self.iteration = 0

    def train_step(self, tasks: TaskSource) -> None:
        """One step of Reptile. All candidates see the same tasks and batches."""

        def learn(index: int) -> None:
            task = tasks.draw(self.seed, self.iteration, index)
            self._learn(
                task.support, task.support_labels, self.options.inner_steps, "training", self.iteration, index
            )

        rate = cosine_rate(self.iteration, steps=self.options.meta_steps, rate=self.options.meta_lr)
        reptile_step([(self.weights, rate)], self.options.meta_batch_size, learn)
        self.iteration += 1

    def _learn(self, images: Tensor, labels: Tensor, steps: int, *key: str | int) -> None:
        learn_weights(
            self.network,
            self.optimiser,
            images,
            labels,
            steps=steps,
            batch=self.options.inner_batch_size,
            generator=generator("autometa batches", self.seed, *key),
        )

    def score(self, tasks: TaskSource) -> float:
        """Mean accuracy, in 0..1, on the queries of validation tasks after learning their support.

        Every task begins with the same weights and moments.
        """
        weights, moments = snapshot(self.weights), copy.deepcopy(self.optimiser.state_dict())
        accuracies = []
        for index in range(self.options.validation_episodes):
            task = tasks.draw("validation", self.seed, index)
            self._learn(task.support, task.support_labels, self.options.validation_inner_steps, "validation", index)
            with torch.no_grad():
                correct = self.network(task.query).argmax(1) == task.query_labels
            accuracies.append(correct.double().mean().item())
            restore(self.weights, weights)
            self.optimiser.load_state_dict(copy.deepcopy(moments))
        return sum(accuracies) / len(accuracies)

    def state(self) -> dict:
        return {
            "iteration": self.iteration,
            "weights": [weight.detach().cpu() for weight in self.weights],
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state(self, state: dict) -> None:
        self.iteration = state["iteration"]
        restore(self.weights, state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])


class _Scorer:
    """Trains and scores candidates one by one, and knows those of an earlier, killed run."""

    def __init__(self, problem: Problem, options: AutoMetaOptions, seed: int, checkpoint: Checkpoint) -> None:
        self.problem, self.options, self.seed = problem, options, seed
        self.space = SPACES[options.space]
        self.cells = problem.backbone.cells if options.cells is None else options.cells
        self.channels = problem.backbone.channels if options.channels is None else options.channels
        self.training = self._tasks("training", options.shots, 0)
        self.validation = self._tasks("validation", options.validation_shots, options.validation_queries)
        self.checkpoint, self.pacer = checkpoint, Pacer(checkpoint)
        self.rows: list[dict] = []
        self.costs = {"training": Cost(), "validation": Cost()}
        self.unfinished: dict | None = None  # the state of a candidate that is being trained
        if checkpoint.state:
            self.rows, self.unfinished = checkpoint.state["rows"], checkpoint.state["unfinished"]
            self.costs = {name: Cost(**cost) for name, cost in checkpoint.state["costs"].items()}
        self.known = {row["cell"]: row["score"] for row in self.rows}

    def _tasks(self, name: str, shots: int, queries: int) -> TaskSource:
        return TaskSource(
            self.problem,
            self.problem.train if name == "training" else self.problem.val,
            ways=self.options.ways,
            shots=shots,
            queries=queries,
            image_size=self.options.image_size,
            where=f"search autometa, {name} classes",
        )

    def measure(self, cell: Cell, predicted: float | None) -> float:
        name = json.dumps(cell)
        if name in self.known:
            self.problem.bar.update(self.options.meta_steps)
            return self.known[name]
        genotype = genotype_of(cell, self.space)
        network = stack(
            genotype, cells=self.cells, channels=self.channels, classes=self.options.ways, norm=batch_norm
        )
        uniform_(network, generator("initial weights", self.seed))
        trainee = Trainee(network.to(self.problem.device), self.options, self.seed)
        if self.unfinished is not None:
            trainee.load_state(self.unfinished)
            self.problem.bar.update(trainee.iteration)
        step, query = self._operations(trainee)
        self._train(trainee, step)
        score = self._validate(trainee, step, query)
        self.rows.append(
            {
                "blocks": len(cell),
                "candidate": len(self.rows),
                "cell": name,
                "genotype": json.dumps(genotype["normal"]),
                "parameters": count_parameters(network) - count_parameters(network.head),
                "predicted": predicted,
                "score": score,
            }
        )
        self.unfinished = None
        self.checkpoint.save(self._state())
        return score

    def _train(self, trainee: Trainee, operations: int) -> None:
        steps, cost = self.options.meta_batch_size * self.options.inner_steps, self.costs["training"]
        while trainee.iteration < self.options.meta_steps:
            began = time.perf_counter()
            trainee.train_step(self.training)
            cost.seconds += time.perf_counter() - began
            cost.evaluations += steps
            cost.operations += steps * operations
            self.problem.bar.update(1)
            self.pacer.save(lambda: self._state() | {"unfinished": trainee.state()})

    def _validate(self, trainee: Trainee, operations: int, query_operations: int) -> float:
        began, cost = time.perf_counter(), self.costs["validation"]
        score = trainee.score(self.validation)
        cost.seconds += time.perf_counter() - began
        cost.evaluations += self.options.validation_episodes * (self.options.validation_inner_steps + 1)
        cost.operations += self.options.validation_episodes * (
            self.options.validation_inner_steps * operations + query_operations
        )
        return score

    def _operations(self, trainee: Trainee) -> tuple[int, int]:
        """Of a step on a batch, and of answering a task's queries."""
        support, labels, _, _ = self.training.draw("counting")
        chosen = torch.arange(self.options.inner_batch_size, device=labels.device) % len(labels)
        query = self.validation.draw("counting").query

        def step() -> None:
            loss = functional.cross_entropy(trainee.network(support[chosen]), labels[chosen])
            torch.autograd.grad(loss, trainee.weights, allow_unused=True)

        def answer() -> None:
            with torch.no_grad():
                trainee.network(query)

        return count_operations(step), count_operations(answer)

    def _state(self) -> dict:
        costs = {name: asdict(cost) for name, cost in self.costs.items()}
        return {"rows": self.rows, "costs": costs, "unfinished": None}


def first_cells(operations: int, count: int | None, seed: int) -> list[Cell]:
    """Cells of one block: all, or `count` of them sampled at random."""
    cells = [(block,) for block in unique_blocks(2, operations)]
    if count is None or count >= len(cells):
        return cells
    chosen = numpy_generator("autometa first level", seed).choice(len(cells), count, replace=False)
    return [cells[index] for index in np.sort(chosen)]


def find(problem: Problem, options: AutoMetaOptions, seed: int, checkpoint: Checkpoint) -> Found:
    """Grow cells to as many blocks as the space has nodes; the best measured one is the result.

    Costs are of the phases "training", "validation" and "predictor"; an evaluation is a gradient step of a network
    or an answer to a task's queries, and for the predictor a fit or a ranking, whose operations are not counted.

    Trace: a row per candidate: its number of `blocks`, `candidate` number, `cell` (blocks of two [input,
    operation number]), `genotype` of a cell, `parameters` of the network without its head, `predicted` score (empty
    on the first level) and measured `score`, the mean validation accuracy in 0..1.
    """
    scorer = _Scorer(problem, options, seed, checkpoint)
    operations, blocks = len(scorer.space.operations), scorer.space.nodes
    first = first_cells(operations, options.first_level, seed)
    problem.bar.reset(total=(len(first) + (blocks - 1) * options.beam) * options.meta_steps)
    predictor = _Timed(
        Ensemble(
            blocks=blocks,
            operations=operations,
            members=options.ensemble,
            epochs=options.predictor_steps,
            seed=seed,
        )
    )
    levels = grow(
        first,
        operations=operations,
        blocks=blocks,
        beam=options.beam,
        measure=scorer.measure,
        predictor=predictor,
    )
    problem.bar.total = problem.bar.n  # a small space has fewer candidates than the beam takes
    best = max(levels[-1], key=lambda candidate: candidate.score)
    extra = {
        "filled": {name: getattr(options, name) for name in FILLED}
        | {"cells": scorer.cells, "channels": scorer.channels, "blocks": blocks, "predictor": "LSTM"},
        "candidates": [len(level) for level in levels],
        "rank_correlations": [_rank_correlation(level) for level in levels[1:]],
        "best_score": best.score,
    }
    costs = scorer.costs | {"predictor": predictor.cost}
    return Found(genotype_of(best.cell, scorer.space), pd.DataFrame(scorer.rows), costs, extra)


class _Timed:
    """A predictor whose use is charged. A resumed search fits it anew on the same scores."""

    def __init__(self, predictor: Ensemble) -> None:
        self.predictor, self.cost = predictor, Cost()

    def fit(self, cells: list[Cell], scores: list[float]) -> None:
        self._charge(lambda: self.predictor.fit(cells, scores))

    def predict(self, cells: list[Cell]) -> list[float]:
        return self._charge(lambda: self.predictor.predict(cells))

    def _charge(self, use: Callable[[], list[float] | None]) -> list[float] | None:
        began = time.perf_counter()
        result = use()
        self.cost.seconds += time.perf_counter() - began
        self.cost.evaluations += 1
        return result


def _rank_correlation(level: list[Candidate]) -> float | None:
    """Spearman's, between predicted and measured scores; None where one of them is constant."""
    columns = pd.DataFrame([(candidate.predicted, candidate.score) for candidate in level]).rank()
    if (columns.nunique() < 2).any():
        return None
    return float(columns.corr().iloc[0, 1])
