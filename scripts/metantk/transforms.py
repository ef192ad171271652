"""Random changes of batched pictures, on the pictures' device, each picture with draws of its own.

torchvision's transforms draw once per batch, or take one picture at a time; these draw per picture for a whole
batch at once. A test compares each with torchvision's function on single pictures.

Pictures are `(pictures, 3, height, width)` and lie in memory as they lie on disk, channels last: that is left so,
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

from metantk.devices import upload
from metantk.options.augmentation import AugmentationOptions

# Rec. 601 luma, as torchvision and Pillow use it.
GRAY = (0.2989, 0.587, 0.114)
# In which brightness, contrast and saturation may be changed.
ORDERS = tuple(itertools.permutations(range(3)))


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 `(pictures, height, width, 3)` to `(pictures, 3, height, width)` in 0..1."""
    return images.permute(0, 3, 1, 2).to(dtype).div_(255)


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uploaded once: an upload per batch would wait for the device."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside of it
        return torch.tensor(values, dtype=dtype, device=device)


def normalise(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    rows = images.permute(0, 2, 3, 1).flatten(2)  # (pictures, height, width * channels)
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
    """A random `size` × `size` part of each picture after padding it with zeros; with `flip`, half are mirrored.

    Of any type: on bytes it is several times as fast as on numbers.
    """
    pictures, _, height, width = images.shape

    def draw(below: int) -> Tensor:
        return upload(torch.randint(below, (pictures,), generator=generator), images.device)

    mirrored = draw(2) if flip else None
    return crop(
        images, size, padding, draw(height + 2 * padding - size + 1), draw(width + 2 * padding - size + 1), mirrored
    )


def crop(
    images: Tensor, size: int, padding: int, top: Tensor, left: Tensor, mirrored: Tensor | None = None
) -> Tensor:
    """The `size` × `size` part of each padded picture that begins at `top` and `left`, int64 `(pictures,)`.

    Where `mirrored`, int64 `(pictures,)`, is 1, the padded picture is mirrored first.
    """
    padded = functional.pad(images.permute(0, 2, 3, 1), [0, 0, *[padding] * 4]).contiguous()
    pictures, height, width, channels = padded.shape
    chosen = torch.arange(pictures, device=images.device)
    if mirrored is not None:
        padded = torch.cat([padded, padded.flip(2)])
        chosen = chosen + pictures * mirrored
    # A row of a crop is a piece of memory; each begins at some pixel of the padded pictures.
    rows = (chosen * height + top).view(-1, 1) + torch.arange(size, device=images.device)
    starts = rows * width + left.view(-1, 1)
    cropped = padded.view(-1).unfold(0, size * channels, channels).index_select(0, starts.view(-1))
    return cropped.view(pictures, size, size, channels).permute(0, 3, 1, 2)


def random_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each changed by a factor in 1 ± strength, in a random order."""
    order = torch.randperm(3, generator=generator).tolist()
    factors = 1 + strength * (2 * torch.rand(3, len(images), generator=generator) - 1)
    return jitter(images, upload(factors, images.device), order)


def jitter(images: Tensor, factors: Tensor, order: Iterable[int]) -> Tensor:
    """Changes brightness (0), contrast (1) and saturation (2) in this order, by `factors`, `(3, pictures)`."""
    for number in order:
        change = (adjust_brightness_, adjust_contrast_, adjust_saturation)[number]
        images = change(images, factors[number].view(-1, 1, 1, 1))
    return images


def adjust_brightness_(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> Tensor:
    # The mean of the gray picture is the gray of the channels' means, summed row by row as they lie in memory.
    _, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).flatten(2).sum(1)
    means = rows.view(-1, width, channels).sum(1) / (height * width)
    mean = (means @ _constant(GRAY, images.dtype, images.device)).view(-1, 1, 1, 1)
    return images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    pictures, channels, height, width = images.shape
    # A matrix per picture mixes its channels. Several pixels at once make a product that is worth its call.
    pixels = math.gcd(height * width, 4)
    gray = _constant(GRAY, images.dtype, images.device)[:, None].expand(channels, channels)
    # Made on the device: an upload would wait for it.
    unit, units = (torch.eye(size, dtype=gray.dtype, device=gray.device) for size in (channels, pixels))
    mixed = torch.lerp(gray, unit, factor.view(-1, 1, 1))
    blocks = torch.einsum("pq,ncd->npcqd", units, mixed)
    size = pixels * channels
    changed = images.permute(0, 2, 3, 1).reshape(pictures, -1, size) @ blocks.reshape(pictures, size, size)
    return changed.view(pictures, height, width, channels).permute(0, 3, 1, 2).clamp_(0, 1)


def augment(images: Tensor, options: AugmentationOptions, generator: torch.Generator) -> Tensor:
    """The RFS training augmentation, crop, flip and jitter.

    uint8 `(pictures, height, width, 3)` to float32 `(pictures, 3, height, width)` in 0..1.
    """
    images = images.permute(0, 3, 1, 2)
    if options.padding or options.flip:
        images = random_crop(images, images.shape[-1], options.padding, generator, flip=options.flip)
    images = images.float().div_(255)
    return random_jitter(images, options.jitter, generator) if options.jitter else images


class Draws(NamedTuple):
    """What `augment` draws, by itself, so that each of many changes of a picture can be made at any time.

    Attributes:
        mirrored: int64 `(pictures,)`, 1 where a picture is mirrored.
        top, left: int64 `(pictures,)`, where the crop begins in the padded picture.
        factors: of brightness, contrast and saturation, `(3, pictures)`.
        order: int64 `(pictures,)`, the place in `ORDERS` of the order of the three: each picture's own, as
            torchvision draws it.
    """

    mirrored: Tensor
    top: Tensor
    left: Tensor
    factors: Tensor
    order: Tensor

    def of(self, numbers: Tensor) -> "Draws":
        """The draws of these pictures, int64 `(chosen,)`."""
        return Draws(*(part[..., numbers] for part in self))


def draw(pictures: int, options: AugmentationOptions, generator: torch.Generator) -> Draws:
    """Distributed as those of `augment`; on the CPU."""

    def below(number: int) -> Tensor:
        return torch.randint(number, (pictures,), generator=generator)

    offsets = 2 * options.padding + 1
    return Draws(
        below(2) if options.flip else torch.zeros(pictures, dtype=torch.int64),
        below(offsets),
        below(offsets),
        1 + options.jitter * (2 * torch.rand(3, pictures, generator=generator) - 1),
        below(len(ORDERS)),
    )


def augment_as_drawn(images: Tensor, options: AugmentationOptions, draws: Draws) -> Tensor:
    """As `augment`, by draws that were made before."""
    mirrored, top, left, factors = (upload(part, images.device) for part in draws[:4])
    images = images.permute(0, 3, 1, 2)
    if options.padding or options.flip:
        images = crop(images, images.shape[-1], options.padding, top, left, mirrored if options.flip else None)
    images = images.float().div_(255)
    if not options.jitter:
        return images
    changed = torch.empty_like(images)
    for number, order in enumerate(ORDERS):
        chosen = upload(torch.nonzero(draws.order == number).view(-1), images.device)
        if len(chosen):
            changed[chosen] = jitter(images[chosen], factors[:, chosen], order)
    return changed
