"""Every learner through the one training loop: it learns, resumes to the same bytes, and answers tasks."""

import copy

import numpy as np
import pytest
import torch

import train_network
from metantk import backbones
from metantk.data.images import ImageData
from metantk.data.store import Split
from metantk.deployment.own_images import make_task
from metantk.evaluation import evaluate
from metantk.learners import heads
from metantk.learners.base import check_learner
from metantk.learners.episodic import TaskSampler
from metantk.learners.maml import predict
from metantk.meta_learning.balance import class_weights, repeat_to_equal
from metantk.models import load_model, save_model
from metantk.options.base import parse
from metantk.options.evaluation import EvaluationOptions
from metantk.runtime import devices, plugins
from metantk.runtime.checkpoints import freeze, thaw
from metantk.runtime.devices import generator
from metantk.runtime.files import DivergedError, InputError
from metantk.training import Trainer

SIZE = 16
MEAN, STD = [0.5, 0.5, 0.5], [0.3, 0.3, 0.3]
CONV4 = {"kind": "conv4", "channels": 8, "image_size": SIZE}
FLAT = {"kind": "resnet12", "widths": [4, 4, 8, 8], "pool": "none", "image_size": SIZE, "block_size": 2}
MIXED = {"kind": "mixed", "cells": 2, "channels": 2, "reductions": [1], "space": "few-shot"}
OPERATIONS = ("skip_connect", "sep_conv_3x3", "max_pool_3x3", "conv_1x5_5x1", "avg_pool_3x3", "conv_3x3")
NODES = [[[OPERATIONS[2 * n], 0], [OPERATIONS[2 * n + 1], 1]] for n in range(3)]
CELLS = {
    "kind": "cells",
    "cells": 3,
    "channels": 2,
    "genotype": {"normal": NODES, "reduce": NODES, "normal_concat": [2, 3, 4], "reduce_concat": [2, 3, 4]},
}
META = {"ways": 3, "meta_batch_size": 2, "steps_per_epoch": 2, "epochs": 2}
LEARNERS = {
    "rfs": {"epochs": 2, "batch_size": 12},
    "maml": META | {"kind": "maml", "shots": [1, 2], "queries": 2, "inner_steps": 2, "test_steps": 2},
    "maml++": META
    | {
        "kind": "maml",
        "shots": [1],
        "queries": 2,
        "inner_steps": 2,
        "test_steps": 2,
        "learn_inner_lr": True,
        "per_step_batch_norm": True,
        "multi_step_loss_epochs": 1,
        "first_order_epochs": 1,
        "lr_schedule": "cosine",
    },
    "nil": META | {"kind": "maml", "shots": [2], "queries": 2, "adapt": "head", "test_classifier": "nil"},
    "reptile": META | {"kind": "reptile", "shots": 3, "inner_batch_size": 4, "inner_steps": 2, "test_steps": 2},
    "metaoptnet": META
    | {"kind": "metaoptnet", "shots": 2, "queries": 2}
    | {"validation_episodes": 5, "validation_shots": 1, "validation_queries": 3},
    "ridge": META | {"kind": "metaoptnet", "head": "ridge", "shots": 2, "queries": 2, "validation_episodes": 0},
    "metanas": META
    | {
        "kind": "metanas",
        "warm_up_epochs": 1,
        "shots": 3,
        "inner_batch_size": 4,
        "inner_steps": 2,
        "prune_every_steps": 2,
        "adaptation": {"inner_steps": 2},
    },
}


def make_split(classes: int = 8, per_class: int = 12, seed: int = 0) -> Split:
    """Stripes of a class's own direction and colour, under noise: quickly learned, not trivial."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    data, labels = [], []
    for label in range(classes):
        angle, colour = np.pi * draws.random(), draws.random(3)
        wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * draws.uniform(0.6, 1.6))
        for _ in range(per_class):
            image = 0.5 + 0.3 * wave[..., None] * colour + 0.12 * draws.standard_normal((SIZE, SIZE, 3))
            data.append(np.clip(255 * image, 0, 255).astype(np.uint8))
            labels.append(label)
    return Split(np.stack(data), np.array(labels), [f"class {label}" for label in range(classes)])


def architecture_for(name: str) -> dict:
    return MIXED if name == "metanas" else CONV4


def make_trainer(options: dict, architecture: dict, split: Split | None = None, *, seed: int = 0) -> Trainer:
    split = make_split() if split is None else split
    module = plugins.load("learners", options.get("kind", "rfs"))
    parsed = parse(module.Options, options, where="options")
    network = backbones.build(architecture, module.outputs(parsed, len(split.class_names)))
    network.initialise_(generator("initial weights", seed))
    data = images_of(split)
    learner = module.Learner(parsed, network, data, seed)
    check_learner(learner, options.get("kind", "rfs"))
    validation = images_of(make_split(seed=5)) if getattr(learner, "validate", None) else None
    return Trainer(learner, data, seed=seed, validation=validation)


def images_of(split: Split) -> ImageData:
    return ImageData(torch.from_numpy(split.images), torch.from_numpy(split.labels), torch.device("cpu"), MEAN, STD)


def train(trainer: Trainer) -> Trainer:
    while trainer.epoch < trainer.learner.epochs:
        trainer.train_epoch(lambda _: None)
    return trainer


def model_of(trainer: Trainer, architecture: dict, folder):
    """The model that the stage would write, read back."""
    learner = trainer.learner
    options = learner.options
    facts = {
        "architecture": architecture,
        "learner": options.model_dump(),
        "outputs": learner.network.head.out_features,
        "image_size": SIZE,
        "mean": MEAN,
        "std": STD,
    }
    folder.mkdir(exist_ok=True)
    save_model(folder, learner.network, learner.extra, facts)
    return load_model(folder, torch.device("cpu"))


def accuracy(model, split: Split, *, ways: int = 3, shots: int = 2, episodes: int = 30) -> np.ndarray:
    options = EvaluationOptions(
        episodes=episodes, ways=ways, shots=[shots], queries=4, support_copies=1, augmentation={"padding": 0}
    )
    return np.array([result[shots] for result in evaluate(model, split, options, where="test")])


def assert_same(one: object, other: object, where: str = "state") -> None:
    """Equal to the last bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        equal = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other or one != one
        assert equal, where


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_a_training_that_is_ended_after_any_step_ends_with_the_same_bytes(name):
    options, architecture = LEARNERS[name], architecture_for(name)
    whole = train(make_trainer(options, architecture)).state()
    trainer = make_trainer(options, architecture)
    steps = 0
    while trainer.epoch < trainer.learner.epochs:

        def stop(_: int) -> None:
            raise Stopped

        with pytest.raises(Stopped):  # after every single step: all that goes on stands in the checkpoint
            trainer.train_epoch(stop)
        steps += 1
        state = thaw(freeze(trainer.state()))
        trainer = make_trainer(options, architecture)
        trainer.load_state(state)
        if trainer.step == trainer.learner.steps:
            trainer.train_epoch(lambda _: None)
    assert steps == trainer.learner.epochs * trainer.learner.steps
    assert_same(trainer.state(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "metanas"])
def test_every_learner_trains_cells_and_answers(name, tmp_path):
    before = make_trainer(LEARNERS[name], CELLS)
    start = copy.deepcopy(before.learner.network.state_dict())
    trainer = train(before)
    assert all(np.isfinite(row["loss"]) for row in trainer.curve)
    moved = trainer.learner.network.state_dict()
    assert any(not torch.equal(start[key], moved[key]) for key in start if "weight" in key)
    accuracies = accuracy(model_of(trainer, CELLS, tmp_path), make_split(seed=1), episodes=3)
    assert accuracies.shape == (3,)
    assert ((accuracies >= 0) & (accuracies <= 100)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maml", "reptile", "metaoptnet", "metanas"])
def test_a_learner_answers_as_the_network_in_memory_would_after_it_was_read_back(name, tmp_path):
    trainer = train(make_trainer(LEARNERS[name], architecture_for(name)))
    model = model_of(trainer, architecture_for(name), tmp_path)
    for key, tensor in trainer.learner.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[key], tensor), key
    for key, tensor in trainer.learner.extra.state_dict().items() if trainer.learner.extra else ():
        assert torch.equal(model.extra[key], tensor), key


def test_metaoptnet_is_validated_by_the_classifier_of_each_episode():
    trainer = train(make_trainer(LEARNERS["metaoptnet"], CONV4))
    learner, data = trainer.learner, trainer.validation
    correct = []
    sampler = TaskSampler(data, 0, tasks=1, ways=3, shots=1, queries=3)
    for index in range(5):
        images = torch.from_numpy(np.asarray(data.images))[sampler.indices(1, index)]
        scaled = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.3
        with torch.no_grad():
            features = learner.network.eval().features(scaled)
            logits = heads.svm_logits(features[:3], torch.arange(3), features[3:], ways=3)
        correct += (logits.argmax(1) == torch.arange(3).repeat_interleave(3)).tolist()
    assert learner.validate(data, 1, lambda: None) == pytest.approx(100 * np.mean(correct))
    assert [row["validation_accuracy"] for row in trainer.curve][1] == pytest.approx(100 * np.mean(correct))
    assert learner.validate(data, 0, lambda: None) != learner.validate(data, 1, lambda: None)


def test_the_first_epoch_of_the_best_validation_is_kept():
    trainer = make_trainer(LEARNERS["metaoptnet"] | {"epochs": 4}, CONV4)
    trainer.learner.validate = lambda data, epoch, advance: [40.0, 60.0, 50.0, 60.0][epoch]
    for _ in range(2):
        trainer.train_epoch(lambda _: None)
    after_two = [copy.deepcopy(part.state_dict()) for part in (trainer.learner.network, trainer.learner.extra)]
    last = train(trainer).learner.network.state_dict()
    assert any(not torch.equal(last[name], tensor) for name, tensor in after_two[0].items())
    assert trainer.take_best() == 2
    assert_same([trainer.learner.network.state_dict(), trainer.learner.extra.state_dict()], after_two)


def test_without_a_validation_the_last_epoch_stays():
    trainer = train(make_trainer(LEARNERS["ridge"], CONV4))
    last = copy.deepcopy(trainer.learner.network.state_dict())
    assert trainer.take_best() == 2
    assert_same(trainer.learner.network.state_dict(), last)
    assert "validation_accuracy" not in trainer.curve[0]


META_LEARNERS = {
    "maml": {
        "kind": "maml",
        "shots": [2],
        "queries": 4,
        "inner_steps": 3,
        "test_steps": 3,
        "meta_lr": 0.01,
        "steps_per_epoch": 8,
    },
    "anil": {"kind": "maml", "shots": [2], "queries": 4, "adapt": "head", "meta_lr": 0.01},
    "reptile": {
        "kind": "reptile",
        "shots": 6,
        "inner_lr": 0.01,
        "test_steps": 10,
        "lr_schedule": "constant",
        "steps_per_epoch": 8,
    },
    "metaoptnet": {
        "kind": "metaoptnet",
        "validation_episodes": 0,
        "shots": 3,
        "queries": 3,
        "drop_rate": 0.0,
        "augmentation": {"padding": 0},
    },
}


@pytest.fixture(scope="module")
def hard_splits() -> tuple[Split, Split]:
    return make_split(classes=16, per_class=14, seed=2), make_split(classes=10, per_class=14, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", META_LEARNERS)
def test_a_meta_learner_beats_its_own_untrained_start_by_more_than_the_interval(name, hard_splits, tmp_path):
    seen, unseen = hard_splits
    options = {"ways": 5, "meta_batch_size": 4, "steps_per_epoch": 20} | META_LEARNERS[name]
    untrained = make_trainer(options | {"epochs": 0}, CONV4, seen)
    trained = train(make_trainer(options | {"epochs": 3}, CONV4, seen))
    accuracies = [
        accuracy(model_of(trainer, CONV4, tmp_path / str(index)), unseen, ways=5, episodes=60)
        for index, trainer in enumerate((untrained, trained))
    ]
    gain = accuracies[1] - accuracies[0]  # on the same episodes
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain)), [values.mean() for values in accuracies]


def test_first_and_second_order_anil_and_metaoptnet_learn_different_networks():
    second = LEARNERS["maml"] | {"shots": [2]}
    variants = [second, second | {"first_order": True}, second | {"adapt": "head"}, LEARNERS["metaoptnet"]]
    weights = [
        train(make_trainer(options, CONV4)).learner.network.state_dict()["block2.conv.weight"]
        for options in variants
    ]
    for index, one in enumerate(weights):
        assert all(not torch.allclose(one, other, atol=1e-6) for other in weights[:index])


@pytest.mark.slow
def test_maml_trains_a_network_for_each_number_of_shots_and_answers_with_the_nearest(tmp_path):
    trainer = train(make_trainer(LEARNERS["maml"] | {"shots": [1, 4]}, CONV4))
    model = model_of(trainer, CONV4, tmp_path)
    split = make_split(seed=1)
    own = {1: model.network, 4: trainer.learner.extra.networks["4"]}
    for shots, nearest in ((1, 1), (2, 1), (4, 4)):
        alone = make_trainer(LEARNERS["maml"] | {"shots": [shots], "epochs": 0}, CONV4)
        alone.learner.network.load_state_dict(own[nearest].state_dict())
        expected = accuracy(model_of(alone, CONV4, tmp_path / f"{shots}"), split, shots=shots)
        assert np.array_equal(accuracy(model, split, shots=shots), expected)


def test_adapting_learners_refuse_tasks_of_another_number_of_classes(tmp_path):
    for name in ("maml", "reptile"):
        model = model_of(make_trainer(LEARNERS[name] | {"epochs": 0}, CONV4), CONV4, tmp_path / name)
        with pytest.raises(InputError, match="3-way"):
            accuracy(model, make_split(seed=1), ways=4)


@pytest.mark.parametrize("transductive", [True, False])
def test_answers_depend_on_the_other_queries_only_where_they_are_transductive(transductive):
    options = LEARNERS["maml"] | {"shots": [2], "transductive": transductive}
    trainer = train(make_trainer(options, CONV4))
    draws = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, count, 3, SIZE, SIZE, generator=draws) for count in (6, 30))
    labels = torch.arange(3).repeat_interleave(2)[None]
    together, alone = (
        predict(trainer.learner.network, support, labels, part, steps=2, rate=0.05, transductive=transductive)
        for part in (query, query[:, :3])
    )
    # Three queries at a time have other statistics: some answers change, unless running averages are used.
    by_threes = torch.cat(
        [
            predict(trainer.learner.network, support, labels, part, steps=2, rate=0.05, transductive=transductive)
            for part in query.split(3, dim=1)
        ],
        dim=1,
    )
    assert torch.equal(by_threes[:, :3], alone)
    assert torch.equal(together, by_threes) is not transductive


@pytest.fixture(scope="module", params=LEARNERS)
def untrained(request, tmp_path_factory):
    """A model of each learner that was never trained, apart from what it answers by."""
    options = LEARNERS[request.param] | ({} if request.param == "rfs" else {"epochs": 0})
    trainer = make_trainer(options, architecture_for(request.param))
    return model_of(trainer, architecture_for(request.param), tmp_path_factory.mktemp(request.param))


def own_images(model, supports, labels, queries) -> torch.Tensor:
    """Scores `(queries, ways)` outside of the evaluation, by indices of images of a split."""
    images, labels = torch.from_numpy(make_split(seed=1).images), torch.tensor(labels)
    return model.scores(make_task(model, images[supports], labels, images[queries], ways=3))[0]


QUERIES = [*range(5, 12), *range(17, 24), *range(29, 36)]


def test_outside_of_the_evaluation_an_image_gets_its_answer_whatever_comes_with_it(untrained):
    supports, labels = [0, 1, 12, 13, 24, 25], [0, 0, 1, 1, 2, 2]
    together = own_images(untrained, supports, labels, QUERIES)
    alone = torch.cat([own_images(untrained, supports, labels, [query]) for query in QUERIES[::5]])
    torch.testing.assert_close(alone, together[::5], rtol=1e-4, atol=1e-4)
    assert len(together[:, 0].unique()) > 10  # and the answers are not one and the same


def test_classes_weigh_alike_however_many_supports_they_have(untrained):
    """As if the supports of the smaller classes were listed as often as those of the larger one."""
    uneven = own_images(untrained, [0, 1, 2, 3, 12, 24], [0, 0, 0, 0, 1, 2], QUERIES)
    repeated = own_images(untrained, [0, 1, 2, 3, *[12] * 4, *[24] * 4], [0] * 4 + [1] * 4 + [2] * 4, QUERIES)
    if untrained.learner.kind in ("maml", "reptile", "metanas"):
        torch.testing.assert_close(uneven, repeated)
    else:  # the sum of weights differs, and with it the regularisation
        assert (uneven.argmax(1) == repeated.argmax(1)).double().mean() > 0.8


def test_smaller_classes_repeat_their_supports_in_turn():
    labels = torch.tensor([1, 0, 0, 2, 0, 2])
    assert repeat_to_equal(labels, 3).tolist() == [1, 2, 4, 0, 0, 0, 3, 5, 3]
    assert repeat_to_equal(torch.tensor([1, 0, 0, 1]), 2).tolist() == [0, 1, 2, 3]


def test_equal_supports_weigh_one_to_the_last_digit():
    for ways, shots in ((5, 1), (5, 5), (3, 7), (20, 15)):
        assert (class_weights(torch.arange(ways).repeat_interleave(shots), ways) == 1).all()


def test_a_training_that_diverges_and_stays_finite_says_so():
    trainer = train(make_trainer(LEARNERS["reptile"] | {"inner_lr": 1e4}, CONV4))
    loss, *_ = trainer.warnings()
    assert "is far above that of guessing, 1.10" in loss
    assert "lower inner_lr (10000; default 0.001)" in loss
    trainer.curve[-1] |= {"loss": 0.9, "accuracy": 34.0}
    trainer.last_counted = 1000
    (accuracy,) = trainer.warnings()
    assert "the training accuracy, 34.00 %, is not above that of guessing: below 36.26 %" in accuracy
    trainer.curve[-1] |= {"accuracy": 37.0}
    assert trainer.warnings() == []


def test_a_mixture_without_an_operation_left_is_one_line():
    options = LEARNERS["metanas"] | {"warm_up_epochs": 0, "min_temperature": 1e-50}
    with pytest.raises(DivergedError, match="a node is left without an operation: the architecture's weights"):
        train(make_trainer(options, MIXED))


@pytest.mark.parametrize("name", ["maml", "reptile", "metaoptnet", "metanas"])
def test_steps_that_no_memory_holds_are_refused_before_they_begin(name):
    with pytest.raises(InputError, match=r"meta_batch_size.*: a step takes \d+ images, .* GB, but the memory here"):
        make_trainer(LEARNERS[name] | {"meta_batch_size": 10**9}, architecture_for(name))


def test_a_learner_of_nothing_leaves_the_network_as_it_was_drawn():
    trainer = train(make_trainer({"kind": "none"}, CONV4))
    fresh = make_trainer({"kind": "none"}, CONV4)
    assert trainer.curve == []
    for key, tensor in fresh.learner.network.state_dict().items():
        assert torch.equal(trainer.learner.network.state_dict()[key], tensor)


@pytest.mark.parametrize("first_order", [False, True])
def test_recomputed_activations_are_those_of_the_adapted_weights(first_order):
    """The backward pass comes when the network has its own weights again; those of a task are meant."""
    small = {"shots": [1], "queries": 1, "meta_batch_size": 1, "steps_per_epoch": 1, "epochs": 1}
    options = LEARNERS["maml"] | small | {"inner_lr": 0.5, "first_order": first_order}
    found = []
    for recompute in (False, True):
        trainer = make_trainer(options, CELLS)
        trainer.learner.network.recompute = recompute
        found.append(train(trainer).learner.network.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_what_a_training_asks_for(name):
    make_trainer(LEARNERS[name], architecture_for(name))


def test_memory_is_saved_in_all_networks_of_a_learner():
    """MAML has one for each number of shots; the others would run out of it next."""
    trainer = make_trainer(LEARNERS["maml"] | {"shots": [1, 2]}, CONV4)
    assert len(trainer.networks) == 2
    train_network._save_memory(trainer)
    assert [network.recompute for network in trainer.networks] == [True, True]
    with pytest.raises(InputError, match="use a smaller batch"):
        train_network._save_memory(trainer)


def test_weights_that_are_not_finite_are_seen_in_all_that_is_learned():
    trainer = make_trainer(LEARNERS["maml"] | {"shots": [1, 2], "epochs": 1}, CONV4)
    _, other = trainer.networks

    def spoil(count):
        if trainer.step == trainer.learner.steps:
            next(other.parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match="the weights are not finite in epoch 1"):
        trainer.train_epoch(spoil)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_model_computes_in_the_precision_of_its_training(tmp_path, monkeypatch, precision):
    """PyTorch by itself lets convolutions round to TF32."""
    devices.set_precision("tf32")
    model = model_of(make_trainer(LEARNERS["rfs"] | {"precision": precision}, CONV4), CONV4, tmp_path)
    assert model.learner.precision == precision
    found = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    assert found == ((precision == "tf32",) * 2)
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    devices.start()
    assert not torch.backends.cudnn.allow_tf32
