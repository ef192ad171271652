"""Small few-shot tasks for the checks of the theory: glyphs pooled to a few pixels, and Gaussian clouds."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from metantk.data.episodes import EpisodeSampler
from metantk.data.glyphs import make_glyphs
from metantk.runtime.devices import numpy_generator
from metantk.theory.maml import Tasks

GLYPH_SIDE = 24  # pixels, as drawn, before pooling
CLOUD_SPREAD = 1.0  # deviation of an example of a Gaussian class from its mean, in units of the means' own


def draw_tasks(source: str, count: int, *, ways: int, shots: int, queries: int, side: int, key: tuple) -> Tasks:
    """`count` tasks of `ways` classes with `shots` supports and `queries` queries per class.

    Inputs are rows of side² numbers with mean zero and mean square one; targets are one-hot minus their mean.

    Args:
        source: `glyphs` (training classes where the key starts with `train`, test classes otherwise) or `gaussian`
            (each class a cloud around a mean of its own).
        key: equal keys give equal tasks; begins with `train` or `test`.
    """
    draw = _draw_glyphs if source == "glyphs" else _draw_clouds
    # (tasks, ways, shots + queries, side²)
    inputs = draw(count, ways, shots + queries, side, key)
    inputs = inputs - inputs.mean(-1, keepdim=True)
    inputs = inputs / inputs.square().mean(-1, keepdim=True).sqrt()
    labels = torch.eye(ways, dtype=torch.float64) - 1 / ways
    return Tasks(
        query=inputs[:, :, shots:].flatten(1, 2),
        query_targets=labels.repeat_interleave(queries, 0).expand(count, -1, -1).contiguous(),
        support=inputs[:, :, :shots].flatten(1, 2),
        support_targets=labels.repeat_interleave(shots, 0).expand(count, -1, -1).contiguous(),
    )


def _draw_glyphs(count: int, ways: int, images: int, side: int, key: tuple) -> Tensor:
    # Twice as many as a task takes, so that two tasks on one class seldom share images.
    part = make_glyphs(image_size=GLYPH_SIDE, images_per_class=2 * images, seed=0)[key[0]]
    colours = torch.from_numpy(part.images).double()
    # Ink is what differs from the background, light on dark or dark on light.
    background = colours.flatten(1, 2).median(1).values[:, None, None]
    ink = (colours - background).abs().mean(-1)[:, None]
    pooled = functional.adaptive_avg_pool2d(ink, side).flatten(1)
    sampler = EpisodeSampler(part.labels, ways=ways, shots=images, queries=0, where=f"glyphs, {key[0]}")
    draws = numpy_generator("theory tasks", *key)
    return pooled[torch.from_numpy(np.stack([sampler.draw(draws).support for _ in range(count)]))]


def _draw_clouds(count: int, ways: int, images: int, side: int, key: tuple) -> Tensor:
    draws = numpy_generator("theory clouds", *key)
    means = draws.normal(size=(count, ways, 1, side**2))
    return torch.from_numpy(means + CLOUD_SPREAD * draws.normal(size=(count, ways, images, side**2)))
