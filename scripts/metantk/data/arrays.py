"""What the readers of other people's arrays share: labels to class numbers, arrays to blocks of images."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from metantk.data.store import SplitStream, block_bounds
from metantk.runtime.files import InputError


def entry(value: object, key: str, path: Path) -> object:
    """One entry of the dictionary that a pickle holds.

    Raises:
        InputError: it holds something else, or no such entry.
    """
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}; expected a dictionary with {key!r}")
    if key not in value:
        found = ", ".join(repr(name)[:40] for name in list(value)[:8]) or "nothing"
        raise InputError(f"{path}: holds {found}; expected a dictionary with {key!r}")
    return value[key]


def whole_numbers(values: object, path: Path, what: str) -> np.ndarray:
    """A list or array of whole numbers, int64 `(n,)`.

    Raises:
        InputError: it is something else.
    """
    is_list = isinstance(values, list) and all(isinstance(value, int) for value in values)
    if not is_list and not (isinstance(values, np.ndarray) and values.dtype.kind in "iu"):
        raise InputError(f"{path}: {what} are no list of whole numbers")
    try:
        return np.asarray(values, np.int64).reshape(-1)
    except OverflowError:
        raise InputError(f"{path}: {what} hold numbers beyond 64 bits") from None


def number_classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of any numbering to class numbers from 0 on; the labels that the classes had, in order."""
    found, indices = np.unique(labels, return_inverse=True)
    return found, indices.astype(np.int64)


def stream_array(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    *,
    image_size: int | None,
    where: str,
    release: Callable[[], None],
) -> SplitStream:
    """A split from an array `(images, height, width, 3)` that lies in a mapped file.

    Args:
        image_size: side of the square images; none keeps the array's own.
        release: called after each block, to let go of the mapped memory.

    Raises:
        InputError: the array is no images, or does not fit the labels.
    """
    if (
        not isinstance(images, np.ndarray)
        or images.ndim != 4
        or images.shape[3] != 3
        or images.dtype.kind not in "iuf"
    ):
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{where}: images are {what}; expected uint8 (images, height, width, 3)")
    if len(images) != len(labels):
        raise InputError(f"{where}: {len(images)} images but {len(labels)} labels")
    shape = (image_size, image_size, 3) if image_size else images.shape[1:]

    def blocks() -> Iterator[np.ndarray]:
        for first, stop in block_bounds(len(images), images.shape[1:]):
            yield resize(as_bytes(images[first:stop], where), image_size)
            release()

    return SplitStream(labels, class_names, shape, blocks)


def as_bytes(pixels: np.ndarray, where: str) -> np.ndarray:
    """Pixels of any type that hold whole numbers from 0 to 255, as uint8.

    Raises:
        InputError: they hold other numbers.
    """
    if pixels.dtype == np.uint8:
        return pixels
    with np.errstate(invalid="ignore"):  # what is no number is refused below
        converted = pixels.astype(np.uint8)
    if not np.array_equal(converted, pixels):
        raise InputError(f"{where}: pixels are {pixels.dtype} and not whole numbers from 0 to 255")
    return converted


def resize(block: np.ndarray, size: int | None) -> np.ndarray:
    """Images `(images, height, width, 3)` at `size` × `size`; the middle square of oblong ones."""
    if size is None or block.shape[1:3] == (size, size):
        return block
    return np.stack([resize_image(Image.fromarray(image), size) for image in block])


def resize_image(image: Image.Image, size: int) -> np.ndarray:
    """The middle square at `size` × `size`: aspect ratio kept, uint8 `(size, size, 3)`."""
    return np.asarray(middle_square(image, size, image.size))


def middle_square(image: Image.Image, size: int, whole: tuple[float, float]) -> Image.Image:
    """The same of an image whose width and height are `whole`, in pixels; what its array has beyond is padding."""
    width, height = whole
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
