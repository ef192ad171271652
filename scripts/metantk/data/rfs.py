"""The files of RFS and MetaOptNet (Tian et al., 2020; Lee et al., 2019).

miniImageNet, CIFAR-FS and FC100: one pickle per split, written by Python 2, with `data` (images, height, width,
3), `labels` and, in some, `catname2label`. tieredImageNet: an .npz with `images` and a pickle with `labels` per
split. Where the files tell no names, a class is called by its split and its label, and that no class stands in two
splits can be checked by images only.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from metantk.data.arrays import entry, number_classes, resize, stream_array, whole_numbers
from metantk.data.store import SplitStream, block_bounds
from metantk.data.unpickle import PickleFile
from metantk.runtime.files import InputError

LARGEST_RATIO = 100  # of unpacked to packed bytes; photographs reach 2, bombs a thousand
ZIP_ERRORS = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile)


def read_pickles(paths: dict[str, Path], image_size: int | None) -> dict[str, SplitStream]:
    """One pickle per split.

    Raises:
        InputError: a file is no such pickle.
    """
    return {split: _read_pickle(path, split, image_size) for split, path in paths.items()}


def _read_pickle(path: Path, split: str, image_size: int | None) -> SplitStream:
    pickled = PickleFile(path)
    labels = whole_numbers(entry(pickled.value, "labels", path), path, "labels")
    found, indices = number_classes(labels)
    names = _class_names(pickled.value.get("catname2label"), found, split)
    images = entry(pickled.value, "data", path)
    return stream_array(images, indices, names, image_size=image_size, where=str(path), release=pickled.release)


def _class_names(names_to_labels: object, labels: np.ndarray, split: str) -> list[str]:
    """The names of the labels, from `catname2label` where it has all of them."""
    if isinstance(names_to_labels, dict):
        names = {label: str(name) for name, label in names_to_labels.items() if isinstance(label, int)}
        if set(names) >= set(labels.tolist()):
            return [names[label] for label in labels.tolist()]
    return [f"{split} class {label}" for label in labels]


def read_archives(
    images: dict[str, Path], labels: dict[str, Path], image_size: int | None
) -> dict[str, SplitStream]:
    """An .npz of images and a pickle of labels per split (tieredImageNet).

    The archives hold blue, green, red, as OpenCV decoded them from Ren et al.'s files (RFS trains on them like
    that); here they become red, green, blue, so that the two forms of the data set are the same.

    Raises:
        InputError: a file is no such archive or pickle.
    """
    return {split: _read_archive(images[split], labels[split], split, image_size) for split in images}


def _read_archive(path: Path, labels_path: Path, split: str, image_size: int | None) -> SplitStream:
    labels = whole_numbers(entry(PickleFile(labels_path).value, "labels", labels_path), labels_path, "labels")
    found, indices = number_classes(labels)
    _, own = _open_array(path)
    if len(own) != 4 or own[3] != 3 or own[0] != len(labels):
        raise InputError(f"{path}: images are {own}; {labels_path.name} asks for ({len(labels)}, height, width, 3)")
    shape = (image_size, image_size, 3) if image_size else own[1:]

    def blocks() -> Iterator[np.ndarray]:
        file, _ = _open_array(path)
        try:
            for first, stop in block_bounds(len(labels), own[1:]):
                yield resize(_read_block(file, (stop - first, *own[1:]))[..., ::-1], image_size)
        except ZIP_ERRORS as error:
            raise InputError(f"{path}: is damaged ({error}); download it again") from None

    return SplitStream(indices, _class_names(None, found, split), shape, blocks)


def _open_array(path: Path) -> tuple[BinaryIO, tuple[int, ...]]:
    """The array `images` of an .npz, open at its first byte, and its shape.

    Raises:
        InputError: the file is no such archive, or unfolds to far more than its size.
    """
    try:
        archive = zipfile.ZipFile(path)
        member = archive.getinfo("images.npy")
        file = archive.open(member)
        shape, fortran, dtype = _read_header(file)
    except KeyError:
        names = ", ".join(archive.namelist()[:8]) or "nothing"
        raise InputError(f"{path}: holds {names[:200]}; expected 'images'") from None
    except ZIP_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: is no whole .npz file ({reason}); download it again") from None
    if dtype != np.uint8 or fortran:
        raise InputError(f"{path}: images are {dtype}; expected uint8, image by image")
    if member.file_size - file.tell() != int(np.prod(shape, dtype=object)):
        raise InputError(f"{path}: images claim to be {shape} but have {member.file_size - file.tell()} bytes")
    if member.file_size > LARGEST_RATIO * max(member.compress_size, 1):
        times = member.file_size // max(member.compress_size, 1)
        raise InputError(f"{path}: unfolds to {times} times its size; no images do, it is not read")
    return file, shape


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _read_block(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    wanted = int(np.prod(shape))
    data = file.read(wanted)
    if len(data) != wanted:
        raise EOFError("cut off")
    return np.frombuffer(data, np.uint8).reshape(shape)
