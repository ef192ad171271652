"""Statement 7: do condition numbers and linear regions tell how well an architecture trains?"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metantk import transforms
from metantk.backbones.cells import Network
from metantk.config import (
    AugmentationOptions,
    EvaluationOptions,
    MetaNtkOptions,
    SearchOptions,
    TrainabilityOptions,
    TrainingOptions,
)
from metantk.criteria import CRITERIA, Masks, Setting
from metantk.datasets.glyphs import make_glyphs
from metantk.datasets.store import Split
from metantk.devices import numpy_generator
from metantk.episodes import EpisodeSampler
from metantk.evaluation import Backbone, evaluate
from metantk.pruning import random_genotype
from metantk.space.genotype import CELL_TYPES, SPACES, Edge
from metantk.theory.maml import InnerLoop, Tasks, meta_output, square_loss
from metantk.training import Pictures, Trainer, initialise

SPACE = "few-shot"
WAYS, SHOTS, QUERIES = 5, 1, 5  # of the tasks of the meta-training
PADDING = 2  # pixels of the RFS augmentation, for pictures this small


def measure_trainability(
    options: TrainabilityOptions, device: torch.device, advance: Callable[[], object]
) -> pd.DataFrame:
    """One row per architecture: its criteria at initialisation and what training reached.

    Columns: `architecture`, the names of `CRITERIA`, `maml_loss` (after the last step, same tasks for all),
    `rfs_accuracy` (percent, 1-shot, test classes).
    """
    splits = make_glyphs(image_size=options.image_size, images_per_class=options.images_per_class, seed=0)
    genotypes = [random_genotype(SPACES[SPACE], number) for number in range(options.architectures)]
    table = pd.DataFrame({"architecture": range(options.architectures)})
    for name, values in _measure_criteria(genotypes, splits["train"], options, device).items():
        table[name] = values
    tasks = _draw_tasks(splits["train"], options, device)
    losses, accuracies = [], []
    for number, genotype in enumerate(genotypes):
        losses.append(_meta_train(genotype, tasks, options, number, device))
        accuracies.append(_train_and_test(genotype, splits, options, number, device))
        advance()
    return table.assign(maml_loss=losses, rfs_accuracy=accuracies)


def _measure_criteria(
    genotypes: list[dict], train: Split, options: TrainabilityOptions, device: torch.device
) -> dict[str, np.ndarray]:
    """Mean of each criterion over draws that all architectures share, `(architectures,)` each."""
    search = SearchOptions(
        criteria=list(CRITERIA), space=SPACE, image_size=options.image_size, meta_ntk=MetaNtkOptions()
    )
    setting = Setting(search, options.cells, options.channels, train, device, lambda count: None)
    masks = to_masks(genotypes)
    return {
        name: np.mean(
            [criterion.measure(setting, (0, draw), masks).values for draw in range(options.repeat)], axis=0
        )
        for name, criterion in CRITERIA.items()
    }


def to_masks(genotypes: list[dict]) -> Masks:
    """Supernet masks of single-path architectures, by cell type `(genotypes, edges, operations)` bool."""
    space = SPACES[SPACE]
    masks = {
        kind: torch.zeros(len(genotypes), len(space.edges), len(space.operations), dtype=torch.bool)
        for kind in CELL_TYPES
    }
    for number, genotype in enumerate(genotypes):
        for kind in CELL_TYPES:
            for node, pairs in enumerate(genotype[kind], start=2):
                for operation, source in pairs:
                    edge = space.edges.index(Edge(source, node))
                    masks[kind][number, edge, space.operations.index(operation)] = True
    return masks


def _draw_tasks(train: Split, options: TrainabilityOptions, device: torch.device) -> list[Tasks]:
    sampler = EpisodeSampler(train.labels, ways=WAYS, shots=SHOTS, queries=QUERIES, where="glyphs, train")
    draws = numpy_generator("trainability tasks")
    mean, std = _channel_statistics(train.images)

    def load(numbers: np.ndarray) -> Tensor:
        pictures = torch.from_numpy(train.images[numbers.ravel()]).to(device)
        return transforms.normalise(transforms.to_float(pictures), mean, std)

    labels = torch.eye(WAYS, device=device)
    tasks = []
    for _ in range(options.maml_tasks):
        episode = sampler.draw(draws)
        tasks.append(
            Tasks(
                query=load(episode.query),
                query_targets=labels.repeat_interleave(QUERIES, 0),
                support=load(episode.support),
                support_targets=labels.repeat_interleave(SHOTS, 0),
            )
        )
    return tasks


def _layer_norm(channels: int) -> nn.Module:
    """One group: BatchNorm would mix pictures, and norms by channel leave the global average pool nothing."""
    return nn.GroupNorm(1, channels)


def _meta_train(
    genotype: dict, tasks: list[Tasks], options: TrainabilityOptions, seed: int, device: torch.device
) -> float:
    """Loss of Eq. 2 after the last step of full-batch MAML (Adam, one inner step, second order)."""
    network = Network(genotype, cells=options.cells, channels=options.channels, classes=WAYS, norm=_layer_norm)
    initialise(network, seed)
    network.to(device)
    weights = dict(network.named_parameters())
    inner = InnerLoop(options.maml_inner_rate / (WAYS * SHOTS), 0)

    def model(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
        return functional_call(network, weights, (pictures,))

    def loss() -> Tensor:
        return sum(square_loss(meta_output(model, weights, task, inner), task.query_targets) for task in tasks)

    optimiser = torch.optim.Adam(weights.values(), lr=options.maml_rate)
    for _ in range(options.maml_steps):
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()
    return float(loss().detach())


def _train_and_test(
    genotype: dict, splits: dict[str, Split], options: TrainabilityOptions, seed: int, device: torch.device
) -> float:
    """1-shot accuracy in percent after the RFS recipe on the training classes."""
    train = splits["train"]
    mean, std = _channel_statistics(train.images)
    network = Network(genotype, cells=options.cells, channels=options.channels, classes=len(train.class_names))
    initialise(network, seed)
    augmentation = AugmentationOptions(padding=PADDING)
    training = TrainingOptions(
        epochs=options.epochs,
        learning_rate=0.1,
        milestones=[],
        batch_size=32,
        drop_path=0.0,
        augmentation=augmentation,
    )
    trainer = Trainer(network.to(device), training, seed=seed)
    images = torch.from_numpy(train.images).to(device)
    pictures = Pictures(images, torch.from_numpy(train.labels).to(device), mean, std)
    for _ in range(options.epochs):
        trainer.train_epoch(pictures, lambda count: None)
    evaluation = EvaluationOptions(
        episodes=options.episodes, shots=[1], queries=15, copies=1, augmentation=augmentation
    )
    backbone = Backbone(trainer.network.eval(), mean, std)
    accuracies = evaluate(backbone, splits["test"], evaluation, device, where="glyphs, test")
    return float(np.mean([accuracy[1] for accuracy in accuracies]))


def _channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel of uint8 `(pictures, height, width, 3)`, scaled to 0..1."""
    pixels = images.reshape(-1, 3) / 255
    return pixels.mean(0).tolist(), pixels.std(0).tolist()
