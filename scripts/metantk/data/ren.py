"""The files of Ren et al. (2018): miniImageNet as cache pickles, tieredImageNet as pickles of PNG files."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from metantk.data.arrays import entry, number_classes, resize_image, stream_array, whole_numbers
from metantk.data.store import SplitStream, block_bounds
from metantk.data.unpickle import PickleFile
from metantk.runtime.files import InputError


def read_caches(paths: dict[str, Path], image_size: int | None) -> dict[str, SplitStream]:
    """miniImageNet: `image_data` (images, 84, 84, 3) and `class_dict` (class to its images' numbers).

    Raises:
        InputError: a file is no such pickle.
    """
    return {split: _read_cache(path, image_size) for split, path in paths.items()}


def _read_cache(path: Path, image_size: int | None) -> SplitStream:
    pickled = PickleFile(path)
    images = entry(pickled.value, "image_data", path)
    classes = entry(pickled.value, "class_dict", path)
    if not isinstance(images, np.ndarray) or not isinstance(classes, dict):
        raise InputError(f"{path}: 'image_data' is no array or 'class_dict' no dictionary")
    names = sorted(classes, key=str)
    labels = np.full(len(images), -1, np.int64)
    for index, name in enumerate(names):
        members = whole_numbers(classes[name], path, f"images of class {str(name)[:40]!r}")
        if not len(members) or members.min() < 0 or members.max() >= len(images) or (labels[members] >= 0).any():
            raise InputError(f"{path}: class {str(name)[:40]!r} has no images, or such as are not its own")
        labels[members] = index
    if (labels < 0).any():
        raise InputError(f"{path}: {(labels < 0).sum()} images are of no class")
    return stream_array(
        images, labels, list(map(str, names)), image_size=image_size, where=str(path), release=pickled.release
    )


def read_png_lists(
    images: dict[str, Path], labels: dict[str, Path], image_size: int | None
) -> dict[str, SplitStream]:
    """tieredImageNet: a list of PNG files, and `label_specific` with `label_specific_str`.

    The list is not read into memory: its files are decoded from the mapped pickle one by one.

    Raises:
        InputError: a file is no such pickle, or holds something that is no image.
    """
    return {split: _read_png_list(images[split], labels[split], split, image_size) for split in images}


def _read_png_list(path: Path, labels_path: Path, split: str, image_size: int | None) -> SplitStream:
    value = PickleFile(labels_path).value
    labels = whole_numbers(entry(value, "label_specific", labels_path), labels_path, "labels")
    found, indices = number_classes(labels)
    names = _class_names(value.get("label_specific_str"), labels, found, split)
    pickled = PickleFile(path)
    if not isinstance(pickled.value, list) or len(pickled.value) != len(labels):
        raise InputError(f"{path}: holds no list of the {len(labels)} images that {labels_path.name} names")
    first = _decode(pickled.value[0], path, 0) if len(labels) else np.empty((0, 0, 3))
    shape = (image_size, image_size, 3) if image_size else first.shape

    def blocks() -> Iterator[np.ndarray]:
        for begin, stop in block_bounds(len(labels), shape):
            images = [_decode(pickled.value[index], path, index) for index in range(begin, stop)]
            if any(image.shape != first.shape for image in images):
                raise InputError(f"{path}: images {begin} to {stop - 1} are not all {first.shape[:2]}")
            if image_size:
                images = [resize_image(Image.fromarray(image), image_size) for image in images]
            yield np.stack(images)
            pickled.release()

    return SplitStream(indices, names, shape, blocks)


def _class_names(names: object, labels: np.ndarray, found: np.ndarray, split: str) -> list[str]:
    """Names of the labels in `found`; the files list one per class, or one per image."""
    if isinstance(names, np.ndarray) and names.dtype.kind in "SU":
        names = names.astype(str).tolist()
    if isinstance(names, list) and len(names) == len(labels) and len(names) > len(found):
        of_label = dict(zip(labels.tolist(), names, strict=True))
        return [str(of_label[label]) for label in found.tolist()]
    if isinstance(names, list) and len(found) and found[0] >= 0 and found[-1] < len(names):
        return [str(names[label]) for label in found.tolist()]
    return [f"{split} class {label}" for label in found]


def _decode(data: object, path: Path, index: int) -> np.ndarray:
    """One PNG file, uint8 `(height, width, 3)`, red first.

    Raises:
        InputError: it is no image, a damaged one or one that unfolds to gigabytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = data.tobytes() if isinstance(data, np.ndarray) else data
            with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every kind
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: image {index} cannot be read ({reason[:120]})") from None
