"""What the jobs of a configuration would take on GPUs that are not there, by `metantk.gpu_steps`."""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from metantk import gpu_steps
from metantk.data.manifest import Splits
from metantk.gpu_steps import GPUS, Counted, KernelSearch, Training
from metantk.options.config import Chain, Config
from metantk.options.evaluation import EvaluationOptions
from metantk.results.status import format_duration

log = logging.getLogger("metantk")
# Learners whose evaluation is hardly more than the features of all images, each computed once.
BY_FEATURES = ("rfs", "none", "metaoptnet")
WITH_COPIES = ("rfs", "none")  # those of them that take augmented supports


class Jobs(NamedTuple):
    """Jobs of a stage that are alike.

    Attributes:
        chain: one that has them.
        kind: the name of its search or learner.
        count: of them.
        trained: the data set of their models.
        tested: of an evaluation, its data set.
    """

    stage: str
    chain: Chain
    kind: str
    count: int
    trained: str
    tested: str


def lines(config: Config, dataset: str, splits: dict[str, Splits], architectures: dict[str, dict]) -> Iterator[str]:
    """A table of the jobs of a data set: bytes of a step, and the time of all of them on each GPU.

    Args:
        splits: of each data set.
        architectures: by the name of a backbone, one of it.
    """
    yield "\nComputed, not measured (docs/cluster.md): kernels of searches, trainings, features of evaluations"
    yield _line(f"{dataset}:", "jobs", "GB", [gpu.name for gpu in GPUS])
    for jobs in jobs_of(config, dataset):
        name = f"{jobs.stage} {jobs.chain.backbone} {jobs.kind}"
        if jobs.tested != dataset:
            name += f" on {jobs.tested}"
        log.info("counting %s %s", dataset, name)
        found = COUNT[jobs.stage](config, jobs, splits, architectures[jobs.chain.backbone])
        if found is None:
            yield f"{name}: cannot be counted"
        else:
            if jobs.stage == "training" and getattr(config.learner(jobs.kind), "precision", None) == "bfloat16":
                name += ", as float32"
            times = [format_duration(jobs.count * found.seconds_of_job(gpu)) for gpu in GPUS]
            yield _line(name, jobs.count, f"{found.peak / 1e9:.2f}", times)


def jobs_of(config: Config, dataset: str) -> Iterator[Jobs]:
    """Those of one data set's models, without what computes nothing."""
    tested = [dataset, *(other for trained, other in config.transfers if trained == dataset)]
    seeds, counts = len(config.seeds), Counter((chain.backbone, chain.learner) for chain in config.chains)
    for chain in {(chain.backbone, chain.search): chain for chain in config.chains}.values():
        if config.search(chain.search).uses_device:
            yield Jobs("search", chain, chain.search, seeds, dataset, dataset)
    for chain in {(chain.backbone, chain.learner): chain for chain in config.chains}.values():
        count = counts[chain.backbone, chain.learner] * seeds
        if config.learner(chain.learner).uses_device:
            yield Jobs("training", chain, chain.learner, count, dataset, dataset)
        for other in tested:
            yield Jobs("evaluation", chain, chain.learner, count, dataset, other)


def _count_search(config: Config, jobs: Jobs, splits: dict[str, Splits], architecture: dict) -> KernelSearch | None:
    options, backbone = config.search(jobs.kind), config.backbone(jobs.chain.backbone)
    if options.kind != "prune":
        return None
    classes = len(splits[jobs.trained].train.classes)
    return gpu_steps.kernel_search(options, cells=backbone.cells, channels=backbone.channels, classes=classes)


def _count_training(config: Config, jobs: Jobs, splits: dict[str, Splits], architecture: dict) -> Training | None:
    train = splits[jobs.trained].train
    classes = len(train.classes)
    sizes = {"classes": classes, "per_class": train.images // classes, "size": train.shape[0]}
    return gpu_steps.training(config.learner(jobs.kind), architecture, **sizes)


def _count_evaluation(config: Config, jobs: Jobs, splits: dict[str, Splits], architecture: dict) -> Counted | None:
    """Images of another data set come at the size of the model's."""
    if config.learner(jobs.kind).kind not in BY_FEATURES:
        return None
    train, queries = splits[jobs.trained].train, splits[jobs.tested].test.images
    takes_copies = config.learner(jobs.kind).kind in WITH_COPIES
    supports = count_support_images(config.evaluation, queries) if takes_copies else queries
    return gpu_steps.features(architecture, queries + supports, classes=len(train.classes), size=train.shape[0])


def count_support_images(options: EvaluationOptions, images: int) -> int:
    """Augmented copies of all images where episodes share them, else those of each episode, at most."""
    if options.support_copies == 1:
        return images
    if options.support_copy_pool:
        return images * max(options.support_copies, options.support_copy_pool)
    return options.episodes * options.ways * max(options.shots) * options.support_copies


COUNT = {"search": _count_search, "training": _count_training, "evaluation": _count_evaluation}


def _line(name: str, count: object, gigabytes: str, times: list[str]) -> str:
    return f"{name:50}{count:>6}{gigabytes:>8}" + "".join(f"{text:>12}" for text in times)
