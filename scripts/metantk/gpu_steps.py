"""Training steps on GPUs that are not there: counted on the `meta` device of PyTorch, timed by data sheets."""

import contextlib
from typing import NamedTuple

import torch

from metantk import backbones
from metantk.data.images import ImageData
from metantk.footprint import Call, Footprint, Gpu, seconds_on
from metantk.options.base import Options
from metantk.runtime import plugins
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


class Counted(NamedTuple):
    """Bytes at most, and the calls, of a step; how many of them a training has."""

    peak: int
    calls: list[Call]
    steps: int = 1

    def seconds(self, gpu: Gpu) -> float:
        """Of one step."""
        return seconds_on(gpu, self.calls, share=SHARE, launch=LAUNCH)


class _Enough(Exception):
    pass


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

    with Footprint(META) as footprint:
        network = backbones.build(architecture, module.outputs(options, classes)).to(META)
        network.recompute = recompute
        trainer = Trainer(module.Learner(options, network, data, 0), data, seed=0)
        for group in trainer.learner.optimiser.param_groups:
            group["foreach"] = True  # as PyTorch chooses by itself on a GPU
        try:
            for _ in range(2):
                footprint.reset()
                trainer.step = 0  # an epoch may have one step
                with contextlib.suppress(_Enough):
                    trainer.train_epoch(stop)
        except (NotImplementedError, RuntimeError) as error:
            if "meta tensor" not in str(error):
                raise
            return None
    return Counted(footprint.peak, footprint.calls, trainer.learner.epochs * trainer.learner.steps)
