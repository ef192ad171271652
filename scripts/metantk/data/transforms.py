"""Random changes of batched images, on the images' device, each image with draws of its own.

torchvision's transforms draw once per batch, or take one image at a time; these draw per image for a whole
batch at once. A test compares each with torchvision's function on single images.

Images are `(images, 3, height, width)` and lie in memory as they lie on disk, channels last: that is left so,
and what differs by channel is written such that neighbours in memory are treated alike, several times as fast.
Draws are made where their generator lives, on the CPU, and uploaded at once: they are the same on every device, and
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
    """A random `size` × `size` part of each image after padding it with zeros; with `flip`, half are mirrored.

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
    """The `size` × `size` part of each padded image that begins at `top` and `left`, int64 `(images,)`.

    Where `mirrored`, int64 `(images,)`, is 1, the padded image is mirrored first.
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


def random_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each changed by a factor in 1 ± strength, in a random order."""
    order = torch.randperm(3, generator=generator).tolist()
    factors = 1 + strength * (2 * torch.rand(3, len(images), generator=generator) - 1)
    return jitter(images, upload(factors, images.device), order)


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


def augment(images: Tensor, options: AugmentationOptions, generator: torch.Generator) -> Tensor:
    """The RFS training augmentation, crop, flip and jitter.

    uint8 `(images, height, width, 3)` to float32 `(images, 3, height, width)` in 0..1.
    """
    images = images.permute(0, 3, 1, 2)
    if options.padding or options.flip:
        images = random_crop(images, images.shape[-1], options.padding, generator, flip=options.flip)
    images = images.float().div_(255)
    return random_jitter(images, options.jitter, generator) if options.jitter else images


class AugmentationParameters(NamedTuple):
    """What `augment` draws, by itself, so that each of many changes of an image can be made at any time.

    Attributes:
        mirrored: int64 `(images,)`, 1 where an image is mirrored.
        top, left: int64 `(images,)`, where the crop begins in the padded image.
        factors: of brightness, contrast and saturation, `(3, images)`.
        order: int64 `(images,)`, the place in `ORDERS` of the order of the three: each image's own, as
            torchvision draws it.
    """

    mirrored: Tensor
    top: Tensor
    left: Tensor
    factors: Tensor
    order: Tensor

    def of(self, indices: Tensor) -> "AugmentationParameters":
        """The draws of these images, int64 `(chosen,)`."""
        return AugmentationParameters(*(split[..., indices] for split in self))


def sample_parameters(
    count: int, options: AugmentationOptions, generator: torch.Generator
) -> AugmentationParameters:
    """Distributed as those of `augment`; on the CPU."""

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


def augment_with(images: Tensor, options: AugmentationOptions, parameters: AugmentationParameters) -> Tensor:
    """As `augment`, by draws that were made before."""
    mirrored, top, left, factors = (upload(split, images.device) for split in parameters[:4])
    images = images.permute(0, 3, 1, 2)
    if options.padding or options.flip:
        images = crop(images, images.shape[-1], options.padding, top, left, mirrored if options.flip else None)
    images = images.float().div_(255)
    if not options.jitter:
        return images
    changed = torch.empty_like(images)
    for index, order in enumerate(ORDERS):
        chosen = upload(torch.nonzero(parameters.order == index).view(-1), images.device)
        if len(chosen):
            changed[chosen] = jitter(images[chosen], factors[:, chosen], order)
    return changed
