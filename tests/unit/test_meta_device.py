"""Steps and chunks on the `meta` device: none mixes it with the CPU, and where they wait for a GPU stands by name.

Nothing is computed, so that this costs little: forward, backward and optimiser are those of a GPU, shape by shape.
"""

from itertools import chain, repeat

import pytest
import test_autometa
import test_t_nas
import torch
from meta_device import META, Waits
from small_meta_search import make_problem
from small_search import make_plan
from test_learners import CELLS, CONV4, FLAT, LEARNERS, MEAN, MIXED, STD, make_split, make_trainer, model_of

from metantk import backbones, training
from metantk.criteria.base import Masks, RandomKeys, load_criterion, options_of
from metantk.data.images import ImageData
from metantk.evaluation import evaluate
from metantk.models import load_model
from metantk.options import catalogue
from metantk.options.base import parse
from metantk.options.criteria.short_training import ShortTrainingOptions
from metantk.options.evaluation import EvaluationOptions
from metantk.runtime import plugins
from metantk.searches import autometa, prune, t_nas
from metantk.searches.plan import Plan
from metantk.searches.tasks import TaskSource
from metantk.space.genotype import CELL_TYPES

pytestmark = pytest.mark.slow

KEY = (1, 0, 0)


class Enough(Exception):
    pass


# Where a learner's step waits. MetaNAS skips operations by their weights, so that it has to know them; the vector
# machine of MetaOptNet looks whether it has come to its end.
TRAINING = {
    "metaoptnet": {"learners.heads._solve_dual"},
    "metanas": {
        "learners.metanas.Learner.step",
        "meta_learning.metanas.TaskLearner.learn",
        "space.mixed.pairwise_mixture",
        "space.mixed.surviving",
    },
}
ONCE = "data.transforms._constant"  # uploaded by the first step that needs it, kept for all others
VARIANTS = {
    "rfs, drop path": ("rfs", {"drop_rate": 0.2}, CELLS),
    "rfs, DropBlock": ("rfs", {"drop_rate": 0.1}, FLAT),
    "maml, first order": ("maml", {"first_order": True}, CONV4),
    "maml, cells": ("maml", {"shots": [1], "queries": 1, "meta_batch_size": 1}, CELLS),
    "anil": ("maml", {"adapt": "head"}, CONV4),
    "metaoptnet, DropBlock": ("metaoptnet", {"drop_rate": 0.1}, FLAT),
}


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize("name", [*LEARNERS, *VARIANTS])
def test_a_training_step_waits_for_nothing_else(name, recompute):
    learner, changes, architecture = VARIANTS.get(name, (name, {}, MIXED if name == "metanas" else CONV4))
    if recompute and architecture not in (CELLS, FLAT):
        pytest.skip("no backbone that recomputes")
    trainer = trainer_on_meta(LEARNERS[learner] | changes, architecture)
    trainer.learner.network.recompute = recompute
    with Waits() as waits, pytest.raises(Enough):
        trainer.train_epoch(stop)
    assert trainer.step == 1
    gradients = [parameter.grad for parameter in trainer.learner.network.parameters()]
    assert {gradient.device for gradient in gradients if gradient is not None} == {META}
    assert waits.names - {ONCE} == TRAINING.get(learner, set())


def trainer_on_meta(options: dict, architecture: dict) -> training.Trainer:
    split = make_split()
    module = plugins.load("learners", options.get("kind", "rfs"))
    parsed = parse(module.Options, options, where="options")
    network = backbones.build(architecture, module.outputs(parsed, len(split.class_names))).to(META)
    images = torch.empty(split.images.shape, dtype=torch.uint8, device=META)
    data = ImageData(images, torch.from_numpy(split.labels), META, MEAN, STD)
    return training.Trainer(module.Learner(parsed, network, data, 0), data, seed=0)


def stop(_: int) -> None:
    raise Enough


# An evaluation's chunk of episodes: images are mapped from the disk, features stay on the CPU, scores come back.
EVERY = {"evaluation.Pool.images", "evaluation.evaluate", "models.Model.scores"}
FEATURES = {"evaluation.Features.__call__", "evaluation.Features._compute", "models.Model.features"}
CLASSES = {"learners.episodic.balanced"}  # whose numbers of supports are compared
NEWTON = {"learners.linear._fit", "learners.linear._flatten", "learners.linear._newton_step"}
EVALUATION = {
    "rfs": FEATURES | NEWTON,
    "maml": CLASSES,
    "maml++": CLASSES,
    "nil": CLASSES,
    "reptile": CLASSES,
    "metaoptnet": FEATURES | {"learners.heads._solve_dual"},
    "ridge": FEATURES,
    "metanas": CLASSES
    | {
        "meta_learning.metanas.TaskLearner.learn",
        "meta_learning.metanas.TaskLearner.load_tensors",
        "meta_learning.metanas.TaskLearner.tensors",
        "meta_learning.metanas.initial_alphas",
        "space.mixed.pairwise_mixture",
        "space.mixed.surviving",
    },
}


@pytest.mark.parametrize("name", LEARNERS)
def test_the_chunk_of_an_evaluation(name, tmp_path):
    architecture = MIXED if name == "metanas" else CONV4
    changes = {"adaptation": {"inner_steps": 1}} if name == "metanas" else {}
    model_of(make_trainer(LEARNERS[name] | changes, architecture), architecture, tmp_path)
    model = load_model(tmp_path, META)
    options = EvaluationOptions(episodes=2, ways=3, shots=[2], queries=4, support_copies=2)
    answers = {
        "learners.episodic.balanced": repeat(torch.arange(3).repeat_interleave(2)),
        "learners.linear._fit": chain([1, 1], repeat(0)),  # one Newton step
        "learners.linear._newton_step": repeat(0),
    }
    with Waits(answers) as waits:
        found = list(evaluate(model, make_split(), options, where="test"))
    assert len(found) == 2
    assert waits.names - {ONCE} - EVERY == EVALUATION[name]


# Criteria: weights and images go up once; what comes back for all candidates of a chunk. Eigenvalues of kernels and
# of Jacobians, and numbers of distinct patterns, are found on the CPU.
VALUES = "criteria.base.CostMeter.measured"
CRITERIA = {
    "meta_ntk_condition": {"criteria.chunks.kernels_of_candidates"},
    "ntk_condition": {"criteria.chunks.kernels_of_candidates"},
    "linear_regions": {"criteria.linear_regions.PatternRecorder.packed"},
    "naswot": {VALUES},
    "swap": {"criteria.patterns.Columns.count"},
    "grad_norm": {VALUES},
    "fisher": {VALUES},
    "zico": {VALUES},
    "grasp": {VALUES},
    "gradsign": {VALUES},
    "jacob_cov": {"criteria.gradients.measure_jacobians"},
    "logsynflow": {VALUES},
    "zen": {VALUES},
    "parameters": set(),
}
ONCE_A_DRAW = {ONCE, "criteria.chunks.build", "criteria.linear_regions.measure", "criteria.zen.measure.prepare"}


@pytest.mark.parametrize("name", CRITERIA)
def test_the_chunk_of_a_criterion(name):
    plan, masks = small_round()
    criterion = load_criterion(name)
    options = options_of(criterion, plan.options.criteria_options)
    with Waits() as waits:
        measured = criterion.measure(plan.context, options, RandomKeys.of(KEY), masks)
    assert measured.values.shape == (3,)
    assert waits.names - ONCE_A_DRAW == CRITERIA[name]


def test_criteria_of_each_module_are_tried():
    tried = {catalogue.FAMILIES[name] for name in CRITERIA} | {"short_training"}
    assert tried == set(catalogue.FAMILIES.values())


def small_round(**options) -> tuple[Plan, Masks]:
    """Two cells in float32: the first network of a search, and the first without one of two operations."""
    plan = make_plan("meta", cells=2, precision="float32", **options)
    masks = prune.first_state(plan.space).masks
    return plan, prune.batch_masks(masks, prune.next_round(plan.space, masks).candidates[40:42])


def test_heads_of_candidates_go_up_one_by_one():
    """As the authors' program draws them."""
    plan, masks = small_round()
    options = plan.criteria_options["meta_ntk_condition"]
    with Waits() as waits:
        load_criterion("meta_ntk_condition").measure(plan.context, options, RandomKeys(KEY, KEY, head=KEY), masks)
    own = {"criteria.chunks.kernels_of_candidates", "space.supernet.initialise"}
    assert waits.names - ONCE_A_DRAW == own


def test_a_short_training_reads_its_accuracy_alone():
    plan = make_plan("meta", precision="float32")
    options = ShortTrainingOptions(epochs=0.5, batch_size=6, ways=2, shots=1, queries=2, episodes=2)
    masks = {kind: torch.zeros(1, len(plan.space.edges), len(plan.space.operations)).bool() for kind in CELL_TYPES}
    for mask in masks.values():
        for node in range(2, 2 + plan.space.nodes):
            mask[0, [index for index, edge in enumerate(plan.space.edges) if edge.node == node][:2], node] = True
    with Waits() as waits:
        load_criterion("short_training").measure(plan.context, options, RandomKeys.of(KEY), masks)
    once = {ONCE, "criteria.short_training.train_and_test"}
    assert waits.names - once == {"criteria.short_training._test"}


# Searches by meta-training: a step of each.


def tasks_on_meta(ways: int, shots: int, queries: int) -> TaskSource:
    problem = make_problem()._replace(device=META)
    return TaskSource(
        problem, problem.train, ways=ways, shots=shots, queries=queries, image_size=None, where="test"
    )


@pytest.mark.parametrize("variant", ["t-nas", "auto-maml"])
def test_a_step_of_t_nas_reads_its_loss_and_what_is_left(variant):
    options = parse(t_nas.Options, test_t_nas.TINY | {"variant": variant, "inner_steps": 1}, where="test")
    learner = t_nas.make_learner(options, 2, 2, 0, META)
    task = tasks_on_meta(3, 2, 3).draw(0)
    with Waits() as waits:
        learner.meta_step([task], learner.optimisers)
    assert waits.names == {"meta_learning.first_order.add_meta_gradient", "space.mixed.surviving"}


def test_a_step_of_autometa_waits_for_nothing():
    options = parse(autometa.Options, test_autometa.TINY | {"meta_batch_size": 1}, where="test")
    trainee = autometa.Trainee(backbones.build(CELLS, 3).to(META), options, 0)
    tasks = tasks_on_meta(3, 4, 0)
    tasks.draw(0)
    with Waits() as waits:
        trainee.train_step(tasks)
    assert waits.names - {ONCE} == {"searches.tasks.TaskSource._read"}
