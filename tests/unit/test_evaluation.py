"""Few-shot evaluation: answers, classifiers by number of shots, and evaluations that were interrupted."""

import json
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

import evaluate_episodes
from metantk import evaluation
from metantk.backbones.conv4 import build as build_conv4
from metantk.data import transforms
from metantk.data.episodes import Episode, EpisodeSampler
from metantk.data.store import Source, Split, checksum_of, stream_split, write_dataset
from metantk.evaluation import evaluate
from metantk.learners import linear, rfs
from metantk.models import Model, load_model, save_model
from metantk.options.evaluation import EvaluationOptions
from metantk.options.learners.rfs import RfsOptions
from metantk.runtime.checkpoints import CheckpointFile
from metantk.runtime.devices import generator, numpy_generator
from metantk.runtime.files import InputError, read_json, write_json
from metantk.statistics import confidence_95

LABELS = np.repeat(np.arange(7), 10)
NAMES = [f"class {index}" for index in range(7)]


class Pixels(nn.Module):
    """A backbone whose features are the pixels."""

    feature_dim = 3 * 4 * 4

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(self.feature_dim, 2)

    def features(self, images):
        return images.flatten(1)


def make_model(network: nn.Module | None = None, module=rfs) -> Model:
    return Model(network or Pixels(), RfsOptions(), module, {}, [0.5] * 3, [0.25] * 3, {})


def colours(noise: float) -> Split:
    """Classes that differ by colour."""
    rng = np.random.default_rng(0)
    palette = rng.integers(30, 220, size=(7, 1, 1, 3))
    images = palette[LABELS] + rng.normal(0, noise, size=(70, 4, 4, 3))
    return Split(images.clip(0, 255).astype(np.uint8), LABELS, NAMES)


def make_options(**changes) -> EvaluationOptions:
    values = {"episodes": 30, "queries": 3, "support_copies": 2, "augmentation": {"padding": 0, "jitter": 0.1}}
    return EvaluationOptions(**values | changes)


def accuracies(split: Split, *, done: int = 0, **changes) -> list[dict[int, float]]:
    return list(evaluate(make_model(), split, make_options(**changes), where="here", done=done))


# --- Answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classifier", ["logistic_regression", "svm"])
def test_separable_classes_are_told_apart_and_noise_is_not(classifier):
    easy = accuracies(colours(2), classifier=classifier)
    assert np.mean([row[5] for row in easy]) > 95
    rng = np.random.default_rng(1)
    noise = Split(rng.integers(0, 256, size=(70, 4, 4, 3), dtype=np.uint8), LABELS, NAMES)
    assert 10 < np.mean([row[1] for row in accuracies(noise, classifier=classifier)]) < 30


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (None, "support_copies: a step takes 25000000000 images, .* GB, but the memory here is"),
        (10, "support_copy_pool: the pool holds features of 70000000000 copies, .* GB, but the memory here is"),
    ],
)
def test_copies_that_no_memory_holds_are_refused(pool, message):
    with pytest.raises(InputError, match=message):
        accuracies(colours(2), support_copies=10**9, support_copy_pool=pool)


def test_a_model_that_takes_no_copies_needs_no_memory_for_them():
    """As MAML and MetaOptNet, on a data set whose pool would take more than there is."""
    nearest = SimpleNamespace(
        scores=lambda model, tasks: -torch.cdist(tasks.query_features(), tasks.support_features())
    )
    options = make_options(shots=[1], support_copies=10**9, support_copy_pool=10**9)
    found = list(evaluate(make_model(module=nearest), colours(2), options, where="here"))
    assert np.mean([row[1] for row in found]) > 90


def test_evaluation_is_reproducible_and_longer_runs_begin_alike():
    first = accuracies(colours(60))
    assert accuracies(colours(60)) == first
    assert accuracies(colours(60), episodes=10) == first[:10]
    assert accuracies(colours(60), seed=1) != first


def test_more_shots_help():
    rows = accuracies(colours(60), episodes=60)
    assert np.mean([row[5] for row in rows]) > np.mean([row[1] for row in rows]) + 3


@pytest.mark.parametrize(("copies", "pool"), [(1, None), (3, None), (1, 4), (3, 4), (3, 2)])
def test_accuracies_are_those_of_episodes_answered_one_by_one(copies, pool):
    """Literally: draw, augment, normalise, divide by the norm, fit, compare; image by image."""
    options, split, model = (
        make_options(support_copies=copies, episodes=12, support_copy_pool=pool),
        colours(60),
        make_model(),
    )
    sampler = EpisodeSampler(split.labels, ways=5, shots=5, queries=3, where="here")
    got = list(evaluate(model, split, options, where="here"))
    for index, episode in enumerate(sampler.episodes(12, seed=0)):
        if copies > 1:
            images = copies_of(split, episode, index, options)
        else:
            images = transforms.to_float(torch.from_numpy(split.images[episode.support.ravel()]))
        supports = features_of(model, images).view(5, 5, copies, -1)
        queries = features_of(model, transforms.to_float(torch.from_numpy(split.images[episode.query.ravel()])))
        for shots in (1, 5):
            features = supports[:, :shots].flatten(0, 2)
            labels = torch.arange(5).repeat_interleave(shots * copies)
            scores = linear.logistic_regression(features[None], labels, queries[None], ways=5)[0]
            correct = (scores.argmax(1) == torch.arange(5).repeat_interleave(3)).double().mean()
            assert got[index][shots] == pytest.approx(100 * float(correct))


def copies_of(split: Split, episode: Episode, index: int, options: EvaluationOptions) -> torch.Tensor:
    """Augmented copies of an episode's supports, one by one: drawn for it, or taken from all that there are."""
    if options.support_copy_pool is None:
        images = torch.from_numpy(split.images[np.repeat(episode.support.ravel(), options.support_copies)])
        return transforms.augment(images, options.augmentation, generator("support augmentation", 0, index))
    each = max(options.support_copy_pool, options.support_copies)
    draws = transforms.sample_parameters(70 * each, options.augmentation, generator("support copies", 0))
    chosen = numpy_generator("copies of supports", 0, index)
    copies = []
    for shares, position in zip(
        chosen.random((5, 5, each)).reshape(25, each), episode.support.ravel(), strict=True
    ):
        for copy in shares.argsort()[: options.support_copies]:
            drawn = draws.of(torch.tensor([position * each + copy]))
            image = torch.from_numpy(split.images[position][None])
            copies.append(transforms.augment(image, options.augmentation, drawn))
    return torch.cat(copies)


def features_of(model: Model, images: torch.Tensor) -> torch.Tensor:
    features = [model.network.features(transforms.normalise(p[None], model.mean, model.std)) for p in images]
    return nn.functional.normalize(torch.cat(features), dim=-1)


class Recorder:
    """A learner that notes what it is asked, and answers what it is told."""

    def __init__(self, value: float = 0.0) -> None:
        self.asked, self.value = [], value

    def scores(self, model, tasks):
        self.asked.append(tasks)
        return torch.full((len(tasks.query_images()), 5 * 3, 5), self.value)


def test_learners_are_asked_for_images_and_features_of_the_same_supports_and_queries():
    module = Recorder()
    model = make_model(module=module)
    list(evaluate(model, colours(60), make_options(episodes=4), where="here"))
    one, five = module.asked  # all episodes at once, by shots
    assert (one.ways, one.labels.tolist()) == (5, [0, 1, 2, 3, 4])
    assert five.support_images().shape == (4, 25, 3, 4, 4)
    assert one.query_images().shape == (4, 15, 3, 4, 4)
    for tasks in (one, five):
        assert torch.equal(tasks.support_images().flatten(2), tasks.support_features())
        assert torch.equal(tasks.query_images().flatten(2), tasks.query_features())
    # Fewer shots are the first of each class, on the same queries.
    assert torch.equal(one.support_images(), five.support_images().unflatten(1, (5, 5))[:, :, 0])
    assert torch.equal(one.query_images(), five.query_images())
    copies, labels = five.augmented_features()
    assert copies.shape == (4, 50, 48)
    assert labels.tolist() == [label for label in range(5) for _ in range(10)]


def test_an_episode_takes_no_copy_twice_and_one_image_has_its_own_copies(monkeypatch):
    """Features of all copies are distinct here, so that an equal one is the same copy."""
    asked = []
    module = SimpleNamespace(scores=lambda model, tasks: asked.append(tasks) or rfs.scores(model, tasks))
    options = make_options(episodes=40, support_copy_pool=4, support_copies=3)
    list(evaluate(make_model(module=module), colours(60), options, where="here"))
    copies, _ = asked[1].augmented_features()  # 5 shots
    by_image: dict[int, set] = {}
    for episode, features in zip(asked[1].support_images(), copies.unflatten(1, (25, 3)), strict=True):
        for image, own in zip(episode, features, strict=True):
            kinds = {tuple(copy.tolist()) for copy in own}
            assert len(kinds) == 3
            by_image.setdefault(tuple(image.flatten().tolist()), set()).update(kinds)
    assert len(by_image) == 70
    assert {len(kinds) for kinds in by_image.values()} == {4}
    assert len(set().union(*by_image.values())) == 70 * 4


@pytest.mark.slow
def test_copies_from_a_pool_and_copies_made_anew_give_the_same_mean_and_interval(monkeypatch):
    """Over several sets of draws; what the pool adds to the mean's spread is small against the interval."""
    fresh, pooled = [], []
    for draw in range(8):
        monkeypatch.setattr(evaluation, "generator", lambda *key, draw=draw: generator(*key, draw))
        monkeypatch.setattr(evaluation, "numpy_generator", lambda *key, draw=draw: numpy_generator(*key, draw))
        for rows, pool in ((fresh, None), (pooled, 10)):
            changes = {
                "episodes": 200,
                "support_copy_pool": pool,
                "shots": [1],
                "augmentation": {"padding": 0, "jitter": 0.2},
            }
            values = np.array([row[1] for row in accuracies(colours(60), **changes)])
            rows.append((values.mean(), confidence_95(values)))
    (fresh_mean, fresh_interval), (pooled_mean, pooled_interval) = np.mean(fresh, 0), np.mean(pooled, 0)
    spread = np.std([mean for mean, _ in pooled], ddof=1)
    assert 20 < fresh_mean < 90  # there is something to get wrong
    assert abs(pooled_mean - fresh_mean) < fresh_interval / 3
    assert pooled_interval == pytest.approx(fresh_interval, rel=0.05)
    assert spread < fresh_interval / 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value):
    model = make_model(module=Recorder(value))
    with pytest.raises(InputError, match="scores are not finite: its weights are of no use, or"):
        list(evaluate(model, colours(60), make_options(), where="here"))


def test_scores_of_another_shape_are_refused():
    model = make_model(module=SimpleNamespace(scores=lambda model, tasks: tasks.query_features().mean(0)))
    with pytest.raises(InputError, match=r"scores gives Tensor .*\(15, \d+\); expected a tensor \(.*, 5\)"):
        list(evaluate(model, colours(60), make_options(), where="here"))


# --- A classifier for each number of shots -----------------------------------------------------------------


def test_each_number_of_shots_has_its_classifier():
    split = colours(60)
    plain, svm = accuracies(split), accuracies(split, classifier="svm")
    mixed = accuracies(split, classifier={1: "svm", 5: "logistic_regression"})
    assert [row[1] for row in mixed] == [row[1] for row in svm] != [row[1] for row in plain]
    assert [row[5] for row in mixed] == [row[5] for row in plain] != [row[5] for row in svm]


def test_numbers_of_shots_are_keys_as_numbers_and_as_text():
    """YAML's keys are numbers, JSON's are text; what is written and read again is the same."""
    options = [make_options(classifier=dict.fromkeys(keys, "svm")) for keys in ((1, 5), ("1", "5"))]
    assert options[0] == options[1] == EvaluationOptions(**options[0].model_dump())
    assert options[0].classifier_of(5) == "svm"
    assert make_options(classifier="svm").classifier_of(1) == "svm"


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        ({1: "svm"}, "name one for each of 1, 5 shots"),
        ({1: "svm", 5: "svm", 10: "svm"}, "name one for each of 1, 5 shots"),
        ({}, "name one for each of 1, 5 shots"),
        ({1: "svm", 5: "knn"}, "logistic_regression"),
        ("knn", "logistic_regression"),
        (["svm"], "dictionary"),
    ],
)
def test_classifiers_that_do_not_fit_the_shots_are_refused(classifier, message):
    with pytest.raises(ValidationError, match=message):
        make_options(classifier=classifier)


# --- Interruptions -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("copies", "pool"), [(1, 4), (2, 4), (2, None)])
@pytest.mark.parametrize("classifier", ["logistic_regression", "svm"])
def test_answers_do_not_depend_on_where_an_evaluation_was_interrupted(classifier, copies, pool, monkeypatch):
    monkeypatch.setattr(evaluation, "TOGETHER", 7)
    changes = {"classifier": classifier, "support_copies": copies, "support_copy_pool": pool}
    whole = accuracies(colours(60), **changes)
    for done in (1, 6, 7, 8, 20, 29, 30):
        assert accuracies(colours(60), **changes, done=done) == whole[done:]


@pytest.mark.parametrize(("copies", "pool"), [(1, 4), (2, 4), (2, None)])
def test_what_passes_the_network_together_does_not_depend_on_where_it_was_interrupted(copies, pool, monkeypatch):
    """To the bit: features of an image differ in the last ones where it passes in a batch of another size."""
    monkeypatch.setattr(evaluation, "TOGETHER", 7)
    network = build_conv4({"channels": 4, "image_size": 16}, 2).eval()
    network.initialise_(generator("weights", 0))
    images = np.random.default_rng(0).integers(0, 256, size=(70, 16, 16, 3), dtype=np.uint8)

    def features(done: int) -> list[torch.Tensor]:
        seen = []

        def scores(model: Model, tasks) -> torch.Tensor:
            seen.extend([tasks.augmented_features()[0], tasks.support_features(), tasks.query_features()])
            return rfs.scores(model, tasks)

        model = make_model(network, module=SimpleNamespace(scores=scores))
        options = make_options(support_copies=copies, support_copy_pool=pool)
        assert (
            len(list(evaluate(model, Split(images, LABELS, NAMES), options, where="here", done=done))) == 30 - done
        )
        return seen

    whole = features(0)
    each = len(whole) // 5  # of a chunk
    for done in (1, 7, 20, 29):
        expected = whole[done // 7 * each :]
        resumed = features(done)
        assert len(resumed) == len(expected)
        assert all(map(torch.equal, resumed, expected))


@pytest.mark.parametrize("pool", [4, None])
def test_answers_do_not_depend_on_how_many_episodes_go_together(pool, monkeypatch):
    whole = accuracies(colours(60), support_copy_pool=pool)
    for together in (1, 4, 1000):
        monkeypatch.setattr(evaluation, "TOGETHER", together)
        assert accuracies(colours(60), support_copy_pool=pool) == whole


@pytest.fixture
def data(tmp_path):
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        images = (
            np.random.default_rng(index).integers(0, 256, (70, 16, 16, 3)) // 3 + 20 * LABELS[:, None, None, None]
        )
        split = Split(images.astype(np.uint8), LABELS, [f"{part} {name}" for name in NAMES])
        streams[part] = stream_split(split)
    write_dataset(tmp_path / "data", Source(streams, "free", [], [], False), name="n", source="s")
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path):
    """A Conv4 with its initial weights, as train_network would leave it."""
    architecture = {"kind": "conv4", "channels": 4, "image_size": 16}
    network = build_conv4(architecture, 7)
    network.initialise_(generator("initial weights", 0))
    facts = {
        "architecture": architecture,
        "learner": RfsOptions().model_dump(),
        "outputs": 7,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "image_size": 16,
    }
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", network, None, facts)
    return tmp_path / "model"


@pytest.fixture
def run(data, model, monkeypatch):
    """The program itself; what it writes, or what ended it."""

    def run(output, *flags):
        words = ["evaluate_episodes.py", "--data", data, "--model", model, "--output", output, "--episodes", 20]
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*words, "--queries", 2, *flags)])
        monkeypatch.setenv("METANTK_DEVICE", "cpu")
        evaluate_episodes.main()
        return [(output / name).read_bytes() for name in ("episodes.csv", "evaluation.json")]

    return run


class Killed(BaseException):
    """As SIGKILL: nothing runs afterwards."""


@pytest.mark.parametrize("kills", [[1], [9, 3, 1]])
def test_an_evaluation_that_was_killed_goes_on_with_the_same_numbers(kills, run, monkeypatch, tmp_path, caplog):
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(evaluate_episodes, "KEEP_SECONDS", -1)  # a checkpoint after each episode
    save = CheckpointFile.save
    for index in kills:
        left = iter(range(index - 1))

        def keep_and_die(self, state, left=left):
            save(self, state)
            if next(left, None) is None:
                raise Killed

        monkeypatch.setattr(CheckpointFile, "save", keep_and_die)
        with pytest.raises(Killed):
            run(tmp_path / "killed")
        assert [path.name for path in (tmp_path / "killed").iterdir()] == [".checkpoints"]
    monkeypatch.setattr(CheckpointFile, "save", save)
    caplog.set_level("INFO")
    assert run(tmp_path / "killed") == whole
    assert f"going on after {sum(kills)} episodes" in caplog.text
    assert not (tmp_path / "killed" / ".checkpoints").exists()


def test_a_checkpoint_of_other_options_or_another_model_is_of_no_use(run, monkeypatch, tmp_path, model):
    monkeypatch.setattr(evaluate_episodes, "KEEP_SECONDS", -1)
    save = CheckpointFile.save

    def keep_and_die(self, state):
        save(self, state)
        raise Killed

    monkeypatch.setattr(CheckpointFile, "save", keep_and_die)
    with pytest.raises(Killed):
        run(tmp_path / "out", "--seed", 1)
    monkeypatch.setattr(CheckpointFile, "save", save)
    assert run(tmp_path / "out") == run(tmp_path / "whole")


def test_what_the_program_writes_sums_up_its_episodes(run, tmp_path):
    run(tmp_path / "out", "--classifier", '{"1": "svm", "5": "logistic_regression"}')
    table, report = pd.read_csv(tmp_path / "out" / "episodes.csv"), read_json(tmp_path / "out" / "evaluation.json")
    assert table.groupby("shots").size().to_dict() == {1: 20, 5: 20}
    for shots, values in table.groupby("shots")["accuracy"]:
        assert report["shots"][str(shots)]["accuracy_mean"] == pytest.approx(values.mean())
        assert report["shots"][str(shots)]["ci95"] == pytest.approx(2.093024 * values.std() / 20**0.5)
    assert (report["ways"], report["episodes"]) == (5, 20)
    assert report["options"]["classifier"] == {"1": "svm", "5": "logistic_regression"}


# --- Other data sets ---------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    """Larger images of a data set that shares two classes with the training of the first."""
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        images = np.random.default_rng(9 + index).integers(0, 256, (70, 20, 20, 3), dtype=np.uint8)
        names = [f"other {part} {name}" for name in NAMES]
        if part == "test":
            names[1], names[4] = f"train {NAMES[1]}", f"train {NAMES[4]}"
        streams[part] = stream_split(Split(images, LABELS, names))
    write_dataset(tmp_path / "other", Source(streams, "free", [], [], False), name="m", source="s")
    return tmp_path / "other"


@pytest.fixture
def trained(model, data):
    """The model, with what it was trained on."""
    manifest = read_json(data / "manifest.json")
    description = read_json(model / "model.json")
    description["architecture"]["origin"] = {
        "dataset": "n", "backbone": "b", "backbone_title": "B", "search": "s", "seed": 0,
    }  # fmt: skip
    description |= {"data_sha256": checksum_of(manifest), "classes": [f"train {name}" for name in NAMES]}
    write_json(model / "model.json", description)
    return model


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_evaluation_on_another_data_set_says_so(run, trained, other, tmp_path, caplog):
    run(tmp_path / "own")
    assert "transfer" not in read_json(tmp_path / "own" / "evaluation.json")
    assert warnings_of(caplog) == []
    run(tmp_path / "out", "--data", other)
    shared = sorted([f"train {NAMES[1]}", f"train {NAMES[4]}"])
    report = read_json(tmp_path / "out" / "evaluation.json")
    assert report["transfer"] == {
        "trained_on": "n", "tested_on": "m", "image_size": 20, "resized_to": 16, "shared_classes": shared,
    }  # fmt: skip
    assert report["data_sha256"] == checksum_of(read_json(other / "manifest.json"))
    told, resized, classes = warnings_of(caplog)
    assert told == f"{other} (m) is another data set than the model was trained on (n)"
    assert resized == "warning: images are resized from 20 to 16 pixels"
    assert classes.endswith(f"training classes of the model, too: {', '.join(shared)}")


def test_data_of_the_same_name_that_are_others_are_another_data_set(run, trained, other, tmp_path):
    manifest = read_json(other / "manifest.json")
    write_json(other / "manifest.json", manifest | {"name": "n"})
    run(tmp_path / "out", "--data", other)
    assert read_json(tmp_path / "out" / "evaluation.json")["transfer"]["tested_on"] == "n"


def test_a_model_that_does_not_say_what_it_was_trained_on_takes_images_of_its_size_only(run, other, tmp_path):
    with pytest.raises(InputError, match=r"was trained on images of 16 pixels, .*other has 20"):
        run(tmp_path / "out", "--data", other)
    assert not (tmp_path / "out").exists()


def test_resized_images_are_pillows_within_rounding():
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    for size in (16, 28):
        resized = evaluation.ResizedImages(images, size)
        assert resized.shape == (5, size, size, 3)
        found = resized[np.array([3, 1, 3])]
        expected = [
            Image.fromarray(images[index]).resize((size, size), Image.Resampling.BILINEAR) for index in (3, 1, 3)
        ]
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - np.stack(expected).astype(int)).max() <= 1
        assert np.array_equal(found[1], resized[np.array([1])][0])  # alone or with others


# --- Models ------------------------------------------------------------------------------------------------


def test_a_model_comes_back_as_it_was(model):
    loaded = load_model(model, torch.device("cpu"))
    network = build_conv4(loaded.facts["architecture"], 7)
    network.initialise_(generator("initial weights", 0))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert not loaded.network.training
    assert loaded.extra == {}


@pytest.mark.parametrize(
    "contents", ["", "[]", "null", "3", "{}", "[" * 10**5, '{"learner": 1}', '{"learner": {"kind": "rfs"}}']
)
def test_descriptions_that_describe_no_model_are_one_line(model, contents):
    (model / "model.json").write_text(contents)
    with pytest.raises(InputError, match=r"model\.json: ") as error:
        load_model(model, torch.device("cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["architecture", "learner", "outputs", "mean", "std", "weights_sha256"])
@pytest.mark.parametrize("wrong", [None, "text", [], {"a": [1]}, -1])
def test_a_description_with_a_wrong_value_is_one_line(model, key, wrong):
    facts = read_json(model / "model.json")
    (model / "model.json").write_text(json.dumps(facts | {key: wrong}))
    with pytest.raises(InputError) as error:
        load_model(model, torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_weights_that_are_not_the_described_ones_are_refused(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(InputError, match="is not the file that"):
        load_model(model, torch.device("cpu"))
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: is missing; train again"):
        load_model(model, torch.device("cpu"))


def test_a_split_with_too_few_classes_is_refused():
    few = colours(2)
    with pytest.raises(InputError, match="too few"):
        list(evaluate(make_model(), few, make_options(ways=8), where="here"))
