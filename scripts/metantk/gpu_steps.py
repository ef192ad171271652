"""Steps of stages on GPUs that are not there: counted on the `meta` device of PyTorch, timed by data sheets."""

import contextlib
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch

from metantk import backbones
from metantk.criteria.base import load_criterion, options_of
from metantk.data.images import ImageData
from metantk.footprint import Call, Footprint, Gpu, seconds_on
from metantk.kernels import empirical_kernels
from metantk.models import FORWARD_PIXELS
from metantk.options import catalogue
from metantk.options.base import Options
from metantk.options.criteria.meta_ntk import MetaNtkOptions
from metantk.options.meta_learning import phases_of
from metantk.options.searches.prune import PruneOptions
from metantk.runtime import plugins
from metantk.searches import prune
from metantk.space.genotype import SPACES, Space, cell_types
from metantk.space.supernet import Supernet, full_masks
from metantk.training import Trainer

META = torch.device("meta")
# Data sheets, SXM: bytes, bytes per second, operations per second in float32 and float64 without tensor cores.
GPUS = (
    Gpu("V100", 16e9, 0.90e12, 15.7e12, 7.8e12),
    Gpu("A100", 80e9, 2.04e12, 19.5e12, 9.7e12),
    Gpu("H100", 80e9, 3.35e12, 66.9e12, 33.5e12),
)
SHARE, LAUNCH = 0.5, 10e-6  # of the data sheet's speeds; seconds that PyTorch's Python takes for a call
MEAN, STD = [0.5] * 3, [0.25] * 3
CHUNKS = (2, 4)  # candidates of two chunks, from which those of others follow; one alone takes other calls


class Counted(NamedTuple):
    """Bytes at most, and the calls, of a step; how many of them a job has."""

    peak: int
    calls: list[Call]
    steps: int = 1

    def seconds(self, gpu: Gpu) -> float:
        """Of one step."""
        return seconds_on(gpu, self.calls, share=SHARE, launch=LAUNCH)

    def seconds_of_job(self, gpu: Gpu) -> float:
        return self.steps * self.seconds(gpu)


class Training(NamedTuple):
    """A whole training: the steps of each of its phases (`metantk.options.meta_learning.phases_of`)."""

    phases: list[Counted]

    @property
    def peak(self) -> int:
        return max(phase.peak for phase in self.phases)

    def seconds_of_job(self, gpu: Gpu) -> float:
        return sum(phase.seconds_of_job(gpu) for phase in self.phases)


class _Enough(Exception):
    pass


def _unless_read_back(count: Callable[[], Counted]) -> Counted | None:
    """None where numbers are read back, which do not exist here, or tensors are made elsewhere."""
    try:
        return count()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if not re.search("meta tensor|device meta|meta device", str(error)):
            raise
        return None


def training(options: Options, architecture: dict, **sizes: int) -> Training | None:
    """All steps of a training; None and arguments as of `training_step`."""
    phases = []
    for share, alike in phases_of(options):
        step = training_step(alike, architecture, **sizes)
        if step is None:
            return None
        phases.append(step._replace(steps=round(share * step.steps)))
    return Training(phases)


def training_step(
    options: Options, architecture: dict, *, classes: int, per_class: int, size: int, recompute: bool = False
) -> Counted | None:
    """The second step of a training, its optimiser included; the images of the data set are not.

    None where a step reads numbers back, which have no values here: the vector machine of MetaOptNet, MetaNAS.

    Args:
        options: of the learner; `bfloat16` is counted as `float32`, for autocast knows no such device.
        architecture: as of architecture.json.
        classes, per_class: of the training split, and the images of each class.
        size: height and width of an image, in pixels.
    """
    if getattr(options, "precision", None) == "bfloat16":
        options = options.model_copy(update={"precision": "float32"})
    module = plugins.load("learners", options.kind)
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.empty(len(labels), size, size, 3, dtype=torch.uint8, device=META)
    data = ImageData(images, labels, META, MEAN, STD)

    def stop(_: int) -> None:
        raise _Enough

    def count() -> Counted:
        with Footprint(META) as footprint:
            network = backbones.build(architecture, module.outputs(options, classes)).to(META)
            network.recompute = recompute
            trainer = Trainer(module.Learner(options, network, data, 0), data, seed=0)
            for group in trainer.learner.optimiser.param_groups:
                group["foreach"] = True  # as PyTorch chooses by itself on a GPU
            for _ in range(2):
                footprint.reset()
                trainer.step = 0  # an epoch may have one step
                with contextlib.suppress(_Enough):
                    trainer.train_epoch(stop)
        return Counted(footprint.peak, footprint.calls, trainer.learner.epochs * trainer.learner.steps)

    return _unless_read_back(count)


def features(architecture: dict, images: int, *, classes: int, size: int) -> Counted | None:
    """Features of so many images, in the chunks of an evaluation; None and arguments as of `training_step`."""
    at_once = images_at_once(size)

    @torch.no_grad()  # inference mode would show operations that are made of others whole
    def count() -> Counted:
        with Footprint(META) as footprint:
            network = backbones.build(architecture, classes).to(META, memory_format=torch.channels_last).eval()
            chunk = torch.empty(at_once, 3, size, size, device=META)
            footprint.reset()
            network.features(chunk.contiguous(memory_format=torch.channels_last))
        return Counted(footprint.peak, footprint.calls, math.ceil(images / at_once))

    return _unless_read_back(count)


def images_at_once(size: int) -> int:
    return max(1, FORWARD_PIXELS // size**2)


class KernelChunks(NamedTuple):
    """Chunks of a search's kernels of `CHUNKS` candidates, each a full supernet; those of others grow evenly."""

    few: Counted
    many: Counted

    @property
    def bytes_each(self) -> float:
        """Of one more candidate."""
        return (self.many.peak - self.few.peak) / (CHUNKS[1] - CHUNKS[0])

    @property
    def bytes_fixed(self) -> float:
        return self.few.peak - CHUNKS[0] * self.bytes_each

    def fitting(self, memory: float) -> int:
        """Candidates of a chunk in so many bytes."""
        return max(0, int((memory - self.bytes_fixed) / self.bytes_each))

    def seconds(self, gpu: Gpu, candidates: int) -> float:
        """Of the kernels of so many candidates, in chunks that fill the GPU; one by one if not even one fits."""
        chunk = min(candidates, max(1, self.fitting(gpu.memory)))
        return candidates / chunk * self.few._replace(calls=self.calls(chunk)).seconds(gpu)

    def calls(self, candidates: int) -> list[Call]:
        """Of a chunk."""
        share = (candidates - CHUNKS[0]) / (CHUNKS[1] - CHUNKS[0])
        return [
            a._replace(
                operations=a.operations + share * (b.operations - a.operations),
                moved=a.moved + share * (b.moved - a.moved),
            )
            for a, b in zip(self.few.calls, self.many.calls, strict=True)
        ]


def kernel_chunks(
    space: Space, *, cells: int, channels: int, outputs: int, images: int, size: int, dtype: torch.dtype
) -> KernelChunks:
    """Count the kernels of candidates.

    Args:
        outputs: of the head.
        images: of a kernel.
        size: height and width of an image, in pixels.
    """
    masks = full_masks(space)

    def count(candidates: int) -> Counted:
        with Footprint(META) as footprint:
            network = Supernet(space, masks, cell_types(cells), channels, outputs=outputs).to(META, dtype)
            batch = torch.empty(images, 3, size, size, device=META, dtype=dtype)
            footprint.reset()
            chunk = {kind: mask.repeat(candidates, 1, 1).to(META) for kind, mask in masks.items()}
            empirical_kernels(network, batch, chunk)
        return Counted(footprint.peak, footprint.calls)

    return KernelChunks(*map(count, CHUNKS))


class KernelSearch(NamedTuple):
    """Algorithm 1 by criteria of kernels.

    Attributes:
        chunks: of each such criterion.
        options: of the search.
    """

    chunks: list[KernelChunks]
    options: PruneOptions

    @property
    def peak(self) -> float:
        """Bytes for one candidate."""
        return max(chunk.bytes_fixed + chunk.bytes_each for chunk in self.chunks)

    def seconds_of_job(self, gpu: Gpu) -> float:
        """Of the kernels alone, as if they took the same for each operation."""
        rounds = list(prune.round_sizes(SPACES[self.options.space]))
        (_, whole), seconds = rounds[0], 0.0
        for candidates, operations in rounds:
            networks = prune.evaluations_of_draw(self.options, candidates)
            # Random numbers of their own are drawn for each pair of networks.
            each = networks if self.options.random_numbers == "common" else 2
            of_draw = sum(networks / each * chunk.seconds(gpu, each) for chunk in self.chunks)
            seconds += self.options.repeats * of_draw * operations / whole
        return seconds


def kernel_search(options: PruneOptions, *, cells: int, channels: int, classes: int) -> KernelSearch | None:
    """Count a search's kernels; None where no criterion has any.

    Args:
        classes: of the training split.
    """
    space, dtype = SPACES[options.space], torch.float64 if options.precision == "float64" else torch.float32
    sizes_of = {"meta_ntk": _of_tasks, "ntk": lambda given: (given.images, classes)}
    chunks = []
    for name in options.weights:
        if (section := catalogue.CRITERIA.get(name)) in sizes_of:
            images, outputs = sizes_of[section](options_of(load_criterion(name), options.criteria_options))
            sizes = {"images": images, "outputs": outputs, "size": options.image_size, "dtype": dtype}
            chunks.append(kernel_chunks(space, cells=cells, channels=channels, **sizes))
    return KernelSearch(chunks, options) if chunks else None


def _of_tasks(options: MetaNtkOptions) -> tuple[int, int]:
    """Images and outputs of a MetaNTK."""
    return options.tasks * options.ways * (options.shots + options.queries), options.ways
