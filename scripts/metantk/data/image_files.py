"""One image file, decoded: any format that Pillow reads, upright, in 8 bits per channel.

Images of 16 bits seldom use all of them: cameras and microscopes write 10, 12 or 14. They are scaled by the bits
that are used, which has to be one number for a whole data set, or else equal brightness is no longer equal.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metantk.data import listing
from metantk.data.arrays import middle_square, resize_image

EIGHT_BITS = {".jpg", ".jpeg", ".gif", ".bmp", ".webp"}  # formats without 16-bit pixels
# What a HEIC file begins with, after four bytes of length.
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
HEIC = "HEIC"
# Pillow reads the high bytes of 16-bit colours alone. In the other order of bytes it reads the low ones.
OPAQUE = 2**16 - 1
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


class UnreadableError(Exception):
    """The file is no image, a damaged one, or too large to be unpacked safely."""


def read_image(path: Path, image_size: int, bits: int | None = None) -> np.ndarray:
    """Decode one file to uint8 `(image_size, image_size, 3)`: the middle square, in mode RGB.

    Args:
        bits: of 16-bit pixels, those that the data set uses, as of `used_bits`; larger values become white. None:
            those that this image uses.

    Raises:
        UnreadableError: the file cannot be read as an image.
    """
    with _opened(path, image_size) as (image, whole):
        if whole != image.size:
            # Turned in the end: before, the padding is at the right and at the bottom.
            square = middle_square(image.convert("RGB"), image_size, whole)
            return np.asarray(ImageOps.exif_transpose(square))
        if (deep := _deep_pixels(path, image)) is not None:
            if path.suffix.lower() in EIGHT_BITS:
                raise UnreadableError(f"{image.format} of 16 bits, named {path.suffix}: rename it")
            upright = Image.fromarray(_scaled(deep, bits or _bits(deep.max()))).convert("RGB")
        else:
            upright = _as_rgb(ImageOps.exif_transpose(image))
        return resize_image(upright, image_size)


def used_bits(files: Iterable[Path]) -> int | None:
    """Bits that the 16-bit images among the files use, 8 to 16; None where there are no such images."""
    largest = None
    for file in files:
        if file.suffix.lower() in EIGHT_BITS:
            continue
        # Who reads the images names those that cannot be read.
        with contextlib.suppress(UnreadableError), _opened(file, 1) as (image, _):
            if (deep := _deep_pixels(file, image)) is not None:
                largest = max(largest or 0, int(deep.max()))
    return None if largest is None else _bits(largest)


def describe_bits(bits: int | None) -> list[str]:
    """A line for the log and the manifest on how 16-bit images are scaled; none where there is nothing to say."""
    if bits is None or bits == 16:
        return []
    return [f"16-bit images use {bits} bits: {2**bits - 1} becomes white, in all splits alike"]


def _bits(largest: int) -> int:
    return max(8, int(largest).bit_length())


def _scaled(deep: np.ndarray, bits: int) -> np.ndarray:
    return np.minimum(deep >> (bits - 8), 255).astype(np.uint8)


@contextlib.contextmanager
def _opened(path: Path, image_size: int) -> Iterator[tuple[Image.Image, tuple[float, float]]]:
    """The image with its header read, and its width and height in pixels.

    Of JPEG, decoding is set to the least size that is enough. That is rounded up: width and height are fractions
    then, and the last column and row hold some padding.

    Raises:
        UnreadableError: it cannot be read, there or by what is done with it.
    """
    if wrong := listing.check_readable([path]):
        raise UnreadableError(wrong[path])
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a small file that unfolds to gigabytes; the files are not to be trusted.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open_header(path) as image:
                # JPEG can be decoded at a half, a quarter or an eighth of its size, which is much faster. A
                # progressive one takes memory for its whole size, all the same.
                drafted = None
                if not (image.info.get("progressive") and _is_too_large(image)):
                    drafted = image.draft(None, (2 * image_size, 2 * image_size))
                if _is_too_large(image):
                    raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels")
                yield image, drafted[1][2:] if drafted else image.size
    except UnreadableError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every kind
        raise UnreadableError(_reason(path, error)) from None


def _open_header(path: Path) -> Image.Image:
    """Pillow compares the size with its limit when it reads the header; here that has to wait."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(path)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_too_large(image: Image.Image) -> bool:
    return Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS


def _deep_pixels(path: Path, image: Image.Image) -> np.ndarray | None:
    """Pixels of a 16-bit image, upright, int32 `(height, width)` or `(height, width, 3)`; None of other images.

    None also of what is transparent somewhere, and of grey with transparency, whose lower bytes Pillow cannot read.

    Raises:
        UnreadableError: Pillow gives other pixels than the file has.
    """
    _refuse_misread(image)
    is_wide_pgm = image.mode == "I" and image.format == "PPM"
    if image.mode.startswith("I;16") or is_wide_pgm:
        return np.asarray(ImageOps.exif_transpose(image)).astype(np.int32)
    is_deep = image.tile and all(_raw_mode(tile)[:-1] == f"{image.mode};16" for tile in image.tile)
    if image.mode not in ("RGB", "RGBA") or not is_deep:
        return None
    with _open_header(path) as low_bytes:
        low_bytes.tile = [_in_other_order(tile) for tile in low_bytes.tile]
        high, low = (np.asarray(ImageOps.exif_transpose(half)).astype(np.int32) for half in (image, low_bytes))
    deep = high << 8 | low
    return deep[..., :3] if (deep[..., 3:] == OPAQUE).all() else None


def _refuse_misread(image: Image.Image) -> None:
    """Raises `UnreadableError` for the kinds of 16-bit images that Pillow reads wrongly without a word."""
    tags, modes = getattr(image, "tag_v2", {}), [_raw_mode(tile) for tile in image.tile]
    is_deep = any(";16" in mode for mode in modes) or 16 in tags.get(BITS_PER_SAMPLE, ())
    if not is_deep:
        return
    if "transparency" in image.info:
        raise UnreadableError("16 bits with a transparent colour: save it with 8 bits or without transparency")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise UnreadableError("16-bit TIFF in which 0 is white: save it with 0 as black")
    if not all(";16" in mode for mode in modes):
        raise UnreadableError("16-bit TIFF with a plane for each colour: save it with pixels of all colours")


def _raw_mode(tile) -> str:
    mode = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return mode if isinstance(mode, str) else ""


def _in_other_order(tile):
    mode = _raw_mode(tile)
    other = mode.replace(mode[-3:], OTHER_ORDER[mode[-3:]])
    return tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of 8 bits; what is transparent becomes white, as on paper."""
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}: 32-bit pixels have no known white; save with 8 or 16 bits")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            start = file.read(12)
        return HEIC if start[4:8] == b"ftyp" and start[8:] in HEIC_BRANDS else "not an image"
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
