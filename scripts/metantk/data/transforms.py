"""Random changes of batched images, on the images' device, each image with random numbers of its own.

torchvision's transforms sample once per batch, or take one image at a time; these sample per image for a whole
batch at once. A test compares each with torchvision's function on single images.

Images are `(images, 3, height, width)` and lie in memory as they lie on disk, channels last: that is left so,
and what differs by channel is written such that neighbours in memory are treated alike, several times as fast.
Random numbers come from a generator on the CPU and are uploaded at once: they are the same on every device, and
no step waits for a GPU. tests/benchmarks/bench_input_pipeline.py measures all of it.
"""

import functools
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from metantk.options.augmentation import AugmentationOptions
from metantk.runtime.devices import upload

# Rec. 601 luma, as torchvision and Pillow use it.
GRAY = (0.2989, 0.587, 0.114)
# In which brightness, contrast and saturation may be changed.
ORDERS = tuple(itertools.permutations(range(3)))


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 `(images, height, width, 3)` to `(images, 3, height, width)` in 0..1."""
    return images.permute(0, 3, 1, 2).to(dtype).div_(255)


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uploaded once: an upload per batch would wait for the device."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside of it
        return torch.tensor(values, dtype=dtype, device=device)


def normalise(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    rows = images.permute(0, 2, 3, 1).flatten(2)  # (images, height, width * channels)
    width = images.shape[3]
    scale = 1 / _constant(tuple(std), images.dtype, images.device)
    shift = -_constant(tuple(mean), images.dtype, images.device) * scale
    rows = torch.addcmul(shift.repeat(width), rows, scale.repeat(width))
    return rows.unflatten(2, (width, len(mean))).permute(0, 3, 1, 2)


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear with antialiasing (as Pillow does it) to `size` × `size` pixels."""
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


def random_crop(
    images: Tensor, size: int, padding: int, generator: torch.Generator, *, flip: bool = False
) -> Tensor:
    """A random `size` × `size` region of each image after padding it with zeros; with `flip`, half are mirrored.

    Of any type: on bytes it is several times as fast as on numbers.
    """
    count, _, height, width = images.shape

    def offset(limit: int) -> Tensor:
        return upload(torch.randint(limit, (count,), generator=generator), images.device)

    mirrored = offset(2) if flip else None
    return crop(
        images,
        size,
        padding,
        offset(height + 2 * padding - size + 1),
        offset(width + 2 * padding - size + 1),
        mirrored,
    )


def crop(
    images: Tensor, size: int, padding: int, top: Tensor, left: Tensor, mirrored: Tensor | None = None
) -> Tensor:
    """The `size` × `size` region of each zero-padded image that begins at `top` and `left`, int64 `(images,)`.

    Where `mirrored`, int64 `(images,)`, is 1, the padded image is mirrored first. Of any type.
    """
    padded = functional.pad(images.permute(0, 2, 3, 1), [0, 0, *[padding] * 4]).contiguous()
    count, height, width, channels = padded.shape
    chosen = torch.arange(count, device=images.device)
    if mirrored is not None:
        padded = torch.cat([padded, padded.flip(2)])
        chosen = chosen + count * mirrored
    # A row of a crop is a piece of memory; each begins at some pixel of the padded images.
    rows = (chosen * height + top).view(-1, 1) + torch.arange(size, device=images.device)
    starts = rows * width + left.view(-1, 1)
    cropped = padded.view(-1).unfold(0, size * channels, channels).index_select(0, starts.view(-1))
    return cropped.view(count, size, size, channels).permute(0, 3, 1, 2)


def jitter(images: Tensor, factors: Tensor, order: Iterable[int]) -> Tensor:
    """Changes brightness (0), contrast (1) and saturation (2) in this order, by `factors`, `(3, images)`."""
    for index in order:
        change = (adjust_brightness_, adjust_contrast_, adjust_saturation)[index]
        images = change(images, factors[index].view(-1, 1, 1, 1))
    return images


def adjust_brightness_(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> Tensor:
    # The mean of the gray image is the gray of the channels' means, summed row by row as they lie in memory.
    _, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).flatten(2).sum(1)
    means = rows.view(-1, width, channels).sum(1) / (height * width)
    mean = (means @ _constant(GRAY, images.dtype, images.device)).view(-1, 1, 1, 1)
    return images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    # A matrix per image mixes its channels. Several pixels at once make a product that is worth its call.
    pixels = math.gcd(height * width, 4)
    gray = _constant(GRAY, images.dtype, images.device)[:, None].expand(channels, channels)
    # Made on the device: an upload would wait for it.
    unit, units = (torch.eye(size, dtype=gray.dtype, device=gray.device) for size in (channels, pixels))
    mixed = torch.lerp(gray, unit, factor.view(-1, 1, 1))
    blocks = torch.einsum("pq,ncd->npcqd", units, mixed)
    size = pixels * channels
    changed = images.permute(0, 2, 3, 1).reshape(count, -1, size) @ blocks.reshape(count, size, size)
    return changed.view(count, height, width, channels).permute(0, 3, 1, 2).clamp_(0, 1)


class AugmentationParameters(NamedTuple):
    """The random numbers behind `augment`, so that each of many changes of an image can be made at any time.

    Attributes:
        mirrored: int64 `(images,)`, 1 where an image is mirrored.
        top, left: int64 `(images,)`, where the crop begins in the padded image.
        factors: of brightness, contrast and saturation, `(3, images)`.
        order: index in `ORDERS` of the order of the three: int64 `(images,)`, each image's own as in torchvision,
            or one for all images.
    """

    mirrored: Tensor
    top: Tensor
    left: Tensor
    factors: Tensor
    order: Tensor | int

    def of(self, indices: Tensor) -> "AugmentationParameters":
        """Those of some images, int64 `(chosen,)`; each image has an order of its own."""
        return AugmentationParameters(*(values[..., indices] for values in self))


def sample_parameters(
    count: int, options: AugmentationOptions, generator: torch.Generator
) -> AugmentationParameters:
    """Parameters of `count` images, each with an order of its own; on the CPU."""

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (count,), generator=generator)

    offsets = 2 * options.padding + 1
    return AugmentationParameters(
        below(2) if options.flip else torch.zeros(count, dtype=torch.int64),
        below(offsets),
        below(offsets),
        1 + options.jitter * (2 * torch.rand(3, count, generator=generator) - 1),
        below(len(ORDERS)),
    )


def sample_batch_parameters(
    count: int, options: AugmentationOptions, generator: torch.Generator
) -> AugmentationParameters:
    """Parameters of a batch with one order of the colour changes; on the CPU.

    Nothing is sampled for what the options turn off.
    """
    mirrored, top, left = torch.zeros(3, count, dtype=torch.int64)
    if options.flip:
        mirrored = torch.randint(2, (count,), generator=generator)
    if options.padding or options.flip:
        top, left = (torch.randint(2 * options.padding + 1, (count,), generator=generator) for _ in range(2))
    factors, order = torch.ones(3, count), 0
    if options.jitter:
        order = ORDERS.index(tuple(torch.randperm(3, generator=generator).tolist()))
        factors = 1 + options.jitter * (2 * torch.rand(3, count, generator=generator) - 1)
    return AugmentationParameters(mirrored, top, left, factors, order)


def augment(
    images: Tensor, options: AugmentationOptions, source: torch.Generator | AugmentationParameters
) -> Tensor:
    """The RFS training augmentation, crop, flip and jitter.

    uint8 `(images, height, width, 3)` to float32 `(images, 3, height, width)` in 0..1.

    Args:
        source: parameters of these images, sampled before; or a generator, from which a batch takes its own, with
            one order of the colour changes for all of its images.
    """
    if isinstance(source, torch.Generator):
        source = sample_batch_parameters(len(images), options, source)
    mirrored, top, left, factors = (upload(values, images.device) for values in source[:4])
    images = images.permute(0, 3, 1, 2)
    if options.padding or options.flip:
        images = crop(images, images.shape[-1], options.padding, top, left, mirrored if options.flip else None)
    images = images.float().div_(255)
    if not options.jitter:
        return images
    if isinstance(source.order, int):
        return jitter(images, factors, ORDERS[source.order])
    changed = torch.empty_like(images)
    for index, order in enumerate(ORDERS):
        chosen = upload(torch.nonzero(source.order == index).view(-1), images.device)
        if len(chosen):
            changed[chosen] = jitter(images[chosen], factors[:, chosen], order)
    return changed
