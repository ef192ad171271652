"""The files of Ren et al. (2018): miniImageNet as cache pickles, tieredImageNet as pickles of PNG files."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from metantk.datasets.arrays import entry, number_classes, resize_picture, stream_array, whole_numbers
from metantk.datasets.store import SplitStream, block_starts
from metantk.datasets.unpickle import PickleFile
from metantk.storage import InputError


def read_caches(paths: dict[str, Path], image_size: int | None) -> dict[str, SplitStream]:
    """miniImageNet: `image_data` (pictures, 84, 84, 3) and `class_dict` (class to its pictures' numbers).

    Raises:
        InputError: a file is no such pickle.
    """
    return {part: _read_cache(path, image_size) for part, path in paths.items()}


def _read_cache(path: Path, image_size: int | None) -> SplitStream:
    pickled = PickleFile(path)
    images = entry(pickled.value, "image_data", path)
    classes = entry(pickled.value, "class_dict", path)
    if not isinstance(images, np.ndarray) or not isinstance(classes, dict):
        raise InputError(f"{path}: 'image_data' is no array or 'class_dict' no dictionary")
    names = sorted(classes, key=str)
    labels = np.full(len(images), -1, np.int64)
    for number, name in enumerate(names):
        members = whole_numbers(classes[name], path, f"pictures of class {str(name)[:40]!r}")
        if not len(members) or members.min() < 0 or members.max() >= len(images) or (labels[members] >= 0).any():
            raise InputError(f"{path}: class {str(name)[:40]!r} has no pictures, or such as are not its own")
        labels[members] = number
    if (labels < 0).any():
        raise InputError(f"{path}: {(labels < 0).sum()} pictures are of no class")
    return stream_array(
        images, labels, list(map(str, names)), image_size=image_size, where=str(path), release=pickled.release
    )


def read_png_lists(
    images: dict[str, Path], labels: dict[str, Path], image_size: int | None
) -> dict[str, SplitStream]:
    """tieredImageNet: a list of PNG files, and `label_specific` with `label_specific_str`.

    The list is not read into memory: its files are decoded from the mapped pickle one by one.

    Raises:
        InputError: a file is no such pickle, or holds something that is no picture.
    """
    return {part: _read_png_list(images[part], labels[part], part, image_size) for part in images}


def _read_png_list(path: Path, labels_path: Path, part: str, image_size: int | None) -> SplitStream:
    value = PickleFile(labels_path).value
    labels = whole_numbers(entry(value, "label_specific", labels_path), labels_path, "labels")
    found, numbers = number_classes(labels)
    names = _class_names(value.get("label_specific_str"), labels, found, part)
    pickled = PickleFile(path)
    if not isinstance(pickled.value, list) or len(pickled.value) != len(labels):
        raise InputError(f"{path}: holds no list of the {len(labels)} pictures that {labels_path.name} names")
    first = _decode(pickled.value[0], path, 0) if len(labels) else np.empty((0, 0, 3))
    shape = (image_size, image_size, 3) if image_size else first.shape

    def blocks(start: int) -> Iterator[np.ndarray]:
        for begin, stop in block_starts(start, len(labels), shape):
            pictures = [_decode(pickled.value[number], path, number) for number in range(begin, stop)]
            if any(picture.shape != first.shape for picture in pictures):
                raise InputError(f"{path}: pictures {begin} to {stop - 1} are not all {first.shape[:2]}")
            if image_size:
                pictures = [resize_picture(Image.fromarray(picture), image_size) for picture in pictures]
            yield np.stack(pictures)
            pickled.release()

    return SplitStream(numbers, names, shape, blocks)


def _class_names(names: object, labels: np.ndarray, found: np.ndarray, part: str) -> list[str]:
    """Names of the labels in `found`; the files list one per class, or one per picture."""
    if isinstance(names, np.ndarray) and names.dtype.kind in "SU":
        names = names.astype(str).tolist()
    if isinstance(names, list) and len(names) == len(labels) and len(names) > len(found):
        of_label = dict(zip(labels.tolist(), names, strict=True))
        return [str(of_label[label]) for label in found.tolist()]
    if isinstance(names, list) and len(found) and found[0] >= 0 and found[-1] < len(names):
        return [str(names[label]) for label in found.tolist()]
    return [f"{part} class {label}" for label in found]


def _decode(data: object, path: Path, number: int) -> np.ndarray:
    """One PNG file, uint8 `(height, width, 3)`, red first.

    Raises:
        InputError: it is no picture, a damaged one or one that unfolds to gigabytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = data.tobytes() if isinstance(data, np.ndarray) else data
            with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: picture {number} cannot be read ({reason[:120]})") from None
