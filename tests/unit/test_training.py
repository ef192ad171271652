"""The training loop and the RFS recipe: schedule, resumption, memory, and losses that are not finite."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import train_network
from metantk.backbones.cells import stack
from metantk.backbones.counting import count_parameters
from metantk.backbones.drop import Drop
from metantk.data import transforms
from metantk.data.images import ImageData
from metantk.data.store import Source, Split, stream_split, write_dataset
from metantk.learners.base import StepContext
from metantk.learners.rfs import Learner
from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import parse
from metantk.options.learners.maml import MamlOptions
from metantk.options.learners.metanas import MetaNasLearnerOptions
from metantk.options.learners.metaoptnet import MetaOptNetOptions
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime.checkpoints import CheckpointFile
from metantk.runtime.devices import generator
from metantk.runtime.divergence import advice
from metantk.runtime.files import InputError
from metantk.space.genotype import check_genotype
from metantk.training import Trainer

FIXTURES = Path(__file__).parents[1] / "fixtures"
PUBLISHED = json.loads((FIXTURES / "published_genotypes.json").read_text())["architectures"]
GENOTYPE = check_genotype(PUBLISHED[0]["genotype"])


def make_images(images_on_device: bool = True) -> ImageData:
    """33 images of 8×8 in three classes that differ by brightness."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(11)
    images = torch.randint(0, 60, (33, 8, 8, 3), generator=draws) + 80 * labels.view(-1, 1, 1, 1)
    images = images.to(torch.uint8)
    return ImageData(
        images if images_on_device else images.numpy(), labels, torch.device("cpu"), [0.5] * 3, [0.25] * 3
    )


def make_trainer(seed: int = 0, data: ImageData | None = None, **changes) -> Trainer:
    options = RfsOptions(**{"epochs": 4, "milestones": [2, 3], "batch_size": 8, "lr": 0.05, **changes})
    network = stack(GENOTYPE, cells=3, channels=4, classes=3)
    network.initialise_(generator("initial weights", seed))
    data = data or make_images()
    return Trainer(Learner(options, network, data, seed), data, seed=seed)


def train(trainer: Trainer, epochs: int) -> dict[str, torch.Tensor]:
    for _ in range(epochs):
        trainer.train_epoch(lambda steps: None)
    return trainer.learner.network.state_dict()


def assert_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- The recipe --------------------------------------------------------------------------------------------


def test_training_learns_and_follows_the_schedule():
    # The classes differ by brightness, so brightness must not be jittered.
    trainer = make_trainer(
        epochs=8,
        milestones=[5, 7],
        lr=0.01,
        drop_rate=0.0,
        augmentation=AugmentationOptions(padding=0, jitter=0.0),
    )
    train(trainer, 8)
    rates = [row["lr"] for row in trainer.curve]
    assert rates == pytest.approx([0.01] * 5 + [0.001] * 2 + [0.0001])
    assert trainer.curve[-1]["loss"] < 0.6 * trainer.curve[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_lower_precision_learns_as_well(name):
    """Within the spread over seeds; weights and what a model keeps stay in float32."""
    criteria_options = {
        "epochs": 6,
        "milestones": [5],
        "lr": 0.01,
        "drop_rate": 0.0,
        "augmentation": AugmentationOptions(padding=0, jitter=0.0),
    }
    losses = []
    for seed in range(3):
        trainer = make_trainer(seed, precision=name, **criteria_options)
        weights = train(trainer, 6)
        losses.append(trainer.curve[-1]["loss"])
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}
    expected = []
    for seed in range(3):
        trainer = make_trainer(seed, **criteria_options)
        train(trainer, 6)
        expected.append(trainer.curve[-1]["loss"])
    assert (losses == expected) == (name == "float32")
    assert abs(np.mean(losses) - np.mean(expected)) < 2 * np.std(expected, ddof=1) + 0.05 * np.mean(expected)


@pytest.mark.parametrize(
    ("epochs", "falls"), [(100, [60, 80]), (60, [36, 48]), (10, [6, 8]), (3, [2]), (2, [1]), (1, [])]
)
def test_without_milestones_the_rate_falls_after_60_and_80_percent(epochs, falls):
    assert RfsOptions(epochs=epochs).falls == falls


def test_the_rate_falls_at_each_milestone_and_not_without_one():
    for milestones, expected in (([1, 3], [0.05, 0.01, 0.01, 0.002]), ([], [0.05] * 4)):
        learner = make_trainer(milestones=milestones, lr_decay=0.2).learner
        assert [learner.lr(epoch) for epoch in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ([3, 2], "must ascend"),
        ([2, 2], "must ascend"),
        ([0], "greater than or equal to 1"),
        ([2, 4], "4 is not below epochs, 4: the rate would never fall"),
        ([9], "9 is not below epochs, 4"),
    ],
)
def test_milestones_that_cannot_be_are_refused(milestones, message):
    with pytest.raises(ValidationError, match=message):
        RfsOptions(epochs=4, milestones=milestones)


def test_incomplete_batches_are_dropped_and_order_changes():
    learner = make_trainer().learner
    batches = list(learner.indices(0, 0))
    assert [len(batch) for batch in batches] == [8] * 4 == [8] * learner.steps
    assert len(torch.cat(batches).unique()) == 32
    assert not torch.equal(batches[0], next(learner.indices(1, 0)))
    assert not torch.equal(batches[0], next(make_trainer(seed=1).learner.indices(0, 0)))
    for later, batch in zip(learner.indices(0, 2), batches[2:], strict=True):
        assert torch.equal(later, batch)


def test_fewer_images_than_a_batch_are_one_batch():
    assert [len(batch) for batch in make_trainer(batch_size=64).learner.indices(0, 0)] == [33]


def test_sgd_is_the_recipes():
    trainer = make_trainer(momentum=0.9, weight_decay=5.0e-4)
    group = trainer.learner.optimiser.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5.0e-4, False)
    assert sum(p.numel() for p in group["params"]) == count_parameters(trainer.learner.network)


def test_a_step_is_the_one_written_out():
    """Augmented, normalised, dropped and compared with the labels as the recipe says, from draws of its own."""
    trainer, data = make_trainer(drop_rate=0.3), make_images()
    network, indices = trainer.learner.network.train(), torch.arange(5)
    outcome = trainer.learner.step(data.images[indices], data.labels[indices], StepContext(0, 1, 2))
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    inputs = transforms.augment(data.images[indices], AugmentationOptions(), generator("augmentation", 0, 1, 2))
    inputs = transforms.normalise(inputs, [0.5] * 3, [0.25] * 3)
    drop = Drop(0.3, progress=2 / 4, step=1 * 4 + 2, generator=generator("drop path", 0, 1, 2))
    loss = torch.nn.functional.cross_entropy(network(inputs, drop), data.labels[indices])
    loss.backward()
    assert torch.equal(outcome.loss, loss.detach())
    assert outcome.seen == 5
    for parameter, expected in zip(network.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, expected)


def test_the_curve_has_the_means_over_all_images_of_an_epoch():
    trainer = make_trainer()
    outcomes, step = [], trainer.learner.step
    trainer.learner.step = lambda *inputs: outcomes.append(step(*inputs)) or outcomes[-1]
    train(trainer, 2)
    for epoch, row in enumerate(trainer.curve):
        own = outcomes[4 * epoch : 4 * epoch + 4]
        assert row["loss"] == pytest.approx(np.mean([float(outcome.loss) for outcome in own]))
        assert row["accuracy"] == pytest.approx(100 * sum(int(outcome.correct) for outcome in own) / 32)


def test_images_on_the_disk_give_the_same_training():
    mapped = make_trainer(data=make_images(images_on_device=False))
    assert_equal(train(mapped, 2), train(make_trainer(), 2))


# --- Going on ----------------------------------------------------------------------------------------------


def test_training_resumed_after_an_epoch_is_bit_for_bit_the_same():
    whole = train(make_trainer(), 4)
    first = make_trainer()
    train(first, 2)
    resumed = make_trainer(seed=0)
    resumed.load_state(first.state())
    assert_equal(train(resumed, 2), whole)
    other = train(make_trainer(seed=1), 4)
    assert not all(torch.equal(other[name], whole[name]) for name in whole)


class Stop(Exception):
    """Asks a training to end."""


def stop_after(steps):
    """To be called after each step."""
    left = iter(range(steps - 1))

    def advance(count):
        if next(left, None) is None:
            raise Stop

    return advance


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_training_resumed_in_mid_epoch_is_bit_for_bit_the_same(steps):
    whole = make_trainer()
    expected = train(whole, 2)
    first = make_trainer()
    train(first, 1)
    with pytest.raises(Stop):
        first.train_epoch(stop_after(steps))
    assert (first.epoch, first.step) == (1, steps)
    resumed = make_trainer()
    resumed.load_state(first.state())
    assert_equal(train(resumed, 1), expected)
    assert resumed.curve == whole.curve


# --- Memory ------------------------------------------------------------------------------------------------


def test_recomputed_activations_change_nothing_but_the_memory():
    expected = train(make_trainer(drop_rate=0.3), 2)
    saving = make_trainer(drop_rate=0.3)
    network = saving.learner.network
    network.recompute = True
    assert_equal(train(saving, 2), expected)
    state = {}
    for recompute in (False, True):
        network.recompute = recompute
        state[recompute] = bytes_kept(network)
    assert state[True] < state[False] / 3


def bytes_kept(network) -> int:
    """Of the activations that a forward pass keeps for the backward pass."""
    storages = {}

    def save(tensor):
        storages[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = torch.rand(2, 3, 16, 16)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        network(images)
    parameters = {parameter.data_ptr() for parameter in network.parameters()}
    return sum(size for pointer, size in storages.items() if pointer not in parameters)


def hungry(trainer: Trainer, fails) -> None:
    """Let the steps of a trainer run out of memory, after the work, where `fails()`."""
    step = trainer.learner.step

    def step_that_fails(*inputs):
        outcome = step(*inputs)
        if fails():
            raise torch.OutOfMemoryError
        return outcome

    trainer.learner.step = step_that_fails


def test_a_training_without_memory_goes_on_with_less(tmp_path, caplog):
    expected = train(make_trainer(), 4)
    trainer = make_trainer()
    network = trainer.learner.network
    hungry(trainer, lambda: trainer.epoch == 1 and trainer.step == 2 and not network.recompute)
    train_network._train(trainer, CheckpointFile(tmp_path, "training", {}))
    assert_equal(network.state_dict(), expected)
    assert [row["epoch"] for row in trainer.curve] == [1, 2, 3, 4]
    assert "out of GPU memory" in caplog.text


def test_a_training_that_never_has_the_memory_says_so(tmp_path):
    trainer = make_trainer()
    hungry(trainer, lambda: True)
    with pytest.raises(InputError, match="out of GPU memory: use a smaller batch") as error:
        train_network._train(trainer, CheckpointFile(tmp_path, "training", {}))
    assert "\n" not in str(error.value)


# --- Losses that are not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [0, 3])
def test_a_loss_that_is_not_finite_stops_the_training(value, step, tmp_path):
    """At the end of its epoch: asking at every step would wait for the device."""
    trainer = make_trainer()
    original = trainer.learner.step

    def broken(images, labels, context):
        outcome = original(images, labels, context)
        ours = (context.epoch, context.step) == (2, step)
        return outcome._replace(loss=torch.tensor(value)) if ours else outcome

    trainer.learner.step = broken
    with pytest.raises(InputError) as error:
        train_network._train(trainer, CheckpointFile(tmp_path, "training", {}))
    assert str(error.value).startswith("training: the loss is not finite in epoch 3: lower lr (")
    state = CheckpointFile(tmp_path, "training", {}).state  # of the last good epoch
    assert state["trainer"]["epoch"] == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RfsOptions(lr=3.0), "lower lr (3; default 0.02)"),
        (RfsOptions(weight_decay=1e9), "lower weight_decay (1e+09; default 0.0005)"),
        (RfsOptions(lr=0.01), "lower lr (0.01)"),
        (MetaOptNetOptions(head="ridge", ridge=1e-300), "raise ridge (1e-300; default 50)"),
        (MamlOptions(inner_lr=10.0), "lower inner_lr (10; default 0.05)"),
        (MamlOptions(learn_inner_lr=True, test_steps=5), "lower inner_lr (0.05) or meta_lr (0.001)"),
    ],
)
def test_divergence_names_the_options_that_were_moved(options, expected):
    assert advice(options) == expected


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MamlOptions, {"epochs": 2, "first_order_epochs": 2}),
        (MamlOptions, {"epochs": 2, "multi_step_loss_epochs": 3}),
        (MetaNasLearnerOptions, {"epochs": 5}),
    ],
)
def test_phases_that_never_begin_are_refused(kind, options):
    with pytest.raises(InputError, match=r"epochs"):
        parse(kind, options, where="learner")
    parse(kind, options | {"epochs": 0}, where="learner")  # an untrained network has no phases


def test_metaoptnet_begins_at_its_whole_learning_rate():
    assert [MetaOptNetOptions(epochs=epochs).factor(0) for epochs in range(1, 7)] == [1.0] * 6
    published = MetaOptNetOptions(epochs=60)
    assert [published.factor(epoch) for epoch in (19, 20, 40, 50)] == [1.0, 0.06, 0.012, 0.0024]


@pytest.fixture
def data(tmp_path):
    data = make_images()
    splits = {}
    for index, part in enumerate(("train", "val", "test")):
        names = [f"{part} {letter}" for letter in "abc"]
        split = Split(data.images.numpy(), data.labels.numpy(), names)
        splits[part] = stream_split(split._replace(images=split.images + np.uint8(index)))
    write_dataset(tmp_path / "data", Source(splits, "free", [], [], False), name="n", source="s")
    return tmp_path / "data"


def test_the_program_ends_with_one_line_and_leaves_no_model(data, tmp_path, monkeypatch):
    architecture = {"kind": "cells", "genotype": GENOTYPE, "cells": 2, "channels": 2}
    (tmp_path / "architecture.json").write_text(json.dumps(architecture))
    words = [
        "train_network.py", "--data", data, "--architecture", tmp_path / "architecture.json",
        "--epochs", 2, "--batch-size", 8, "--lr", 1e30, "--output", tmp_path / "out",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    with pytest.raises(InputError, match=r"the loss is not finite in epoch 1: lower lr \(1e\+30; default 0\.02\)"):
        train_network.main()
    assert [path for path in (tmp_path / "out").iterdir() if path.name != ".checkpoints"] == []
