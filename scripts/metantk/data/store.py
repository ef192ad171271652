"""The format in which every data set lies on disk, whatever it came from.

DIR/{train,val,test}/images.npy   uint8 (images, height, width, 3), memory-mapped when read
DIR/{train,val,test}/labels.npy   int64 (images,), numbers of classes within the split
DIR/manifest.json                 classes, sizes, sha256 of sources and outputs, mean and deviation, warnings

Who reads arrays compares them with the manifest: labels always, images where their files are newer than it.

Images are written as a stream of blocks, so memory does not grow with their number (tieredImageNet's training
split is 9.5 GB). A preparation that is killed begins anew: the largest takes minutes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np

from metantk.data import duplicates
from metantk.data.manifest import LARGEST_IMAGE, LONGEST_NAME, MOST_CLASSES, Manifest
from metantk.runtime.files import (
    InputError,
    atomic_directory,
    canonical_json,
    check_regular,
    sha256_of,
    write_json,
)
from metantk.runtime.typed_files import check_record, read_record

SPLITS = ("train", "val", "test")
CHANNELS = ("red", "green", "blue")
BLOCK_BYTES = 8 << 20
TOLERATED_SHARE = 1e-3  # of a published split's images that stand in another split, too
LISTED_FILES = 12  # source files whose checksums stand in the manifest one by one; more have one for all


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        images: uint8, `(images, height, width, 3)`.
        labels: int64, `(images,)`, each in `0 .. len(class_names) - 1`.
        class_names: the split's own classes; no two splits share one.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]


class SplitStream(NamedTuple):
    """One part of a data set whose images come block by block.

    Attributes:
        labels, class_names: as of `Split`.
        shape: of an image, `(height, width, 3)`.
        blocks: the images in order, in blocks of uint8 `(images, *shape)`.
        image_names: files of the images, for messages; none where they have no names.
    """

    labels: np.ndarray
    class_names: list[str]
    shape: tuple[int, int, int]
    blocks: Callable[[], Iterator[np.ndarray]]
    image_names: Sequence[str] | None = None


class Source(NamedTuple):
    """A data set before it is written.

    Attributes:
        splits: `train`, `val` and `test`.
        licence: of the images.
        files: all files that are read; their checksums stand in the manifest.
        warnings: what a user should know, one sentence each.
        is_published: the exact splits of a paper, so that images in two splits are an error.
        bits: that 16-bit images use, by which they were scaled; none without such images.
    """

    splits: dict[str, SplitStream]
    licence: str
    files: list[Path]
    warnings: list[str]
    is_published: bool
    bits: int | None = None


def block_bounds(count: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First and past-the-last image of each block of about `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // int(np.prod(shape)))
    return ((first, min(first + size, count)) for first in range(0, count, size))


def stream_split(split: Split) -> SplitStream:
    """A split that is in memory, as a stream."""
    shape = split.images.shape[1:]

    def blocks() -> Iterator[np.ndarray]:
        return (split.images[first:stop] for first, stop in block_bounds(len(split.images), shape))

    return SplitStream(split.labels, split.class_names, shape, blocks)


def gather(stream: SplitStream) -> Split:
    """The whole of a stream in memory."""
    images = np.concatenate([np.empty((0, *stream.shape), np.uint8), *stream.blocks()])
    return Split(images, stream.labels, stream.class_names)


def check_splits(splits: dict[str, SplitStream], *, source: str) -> None:
    """Check shapes, labels and that no class stands in two splits.

    Raises:
        InputError: naming the split and what is wrong with it.
    """
    owner: dict[str, str] = {}
    for name in SPLITS:
        split = splits[name]
        where = f"{source}, split {name}"
        if len(split.shape) != 3 or split.shape[2] != 3 or 0 in split.shape:
            raise InputError(f"{where}: images are {split.shape}, not (height, width, 3)")
        if max(split.shape[:2]) > LARGEST_IMAGE:
            raise InputError(f"{where}: images are {split.shape}; {LARGEST_IMAGE} pixels are the most")
        if split.shape != splits["train"].shape:
            raise InputError(f"{where}: images are {split.shape}, those of train {splits['train'].shape}")
        present = np.unique(split.labels)
        if not len(present) or not np.array_equal(present, np.arange(len(split.class_names))):
            raise InputError(f"{where}: labels do not cover the {len(split.class_names)} classes 0, 1, 2, ...")
        if len(split.class_names) > MOST_CLASSES:
            raise InputError(f"{where}: {len(split.class_names)} classes; {MOST_CLASSES} are the most")
        for class_name in split.class_names:
            if not 1 <= len(class_name) <= LONGEST_NAME:
                raise InputError(f"{where}: class {class_name!r} has no name of 1 to {LONGEST_NAME} characters")
            other = owner.setdefault(class_name, name)
            if other != name:
                raise InputError(f"{where}: class {class_name!r} is in split {other} too")


def write_dataset(
    directory: Path,
    dataset: Source,
    *,
    name: str,
    source: str,
    options: dict | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> dict:
    """Check the splits and write them whole or not at all; the manifest comes last.

    Args:
        name, source, options: for the manifest.
        advance: called with the number of images just written.

    Returns:
        The manifest.

    Raises:
        InputError: the source breaks a rule of the format, or the folder cannot be written.
    """
    check_splits(dataset.splits, source=source)
    checksums = _checksums(dataset.files, source)
    with atomic_directory(directory) as unfinished:
        written = {
            part: _write_split(unfinished / part, dataset.splits[part], f"{source}, split {part}", advance)
            for part in SPLITS
        }
        mean, deviation = written["train"].statistics()
        copies = (duplicates.within_split(part, dataset.splits[part], written[part].hashes) for part in SPLITS)
        manifest = {
            "name": name,
            "source": source,
            "options": options,
            "licence": dataset.licence,
            "warnings": [
                *dataset.warnings,
                *written["train"].constant_channels(source),
                *chain.from_iterable(copies),
                *_check_shared_images(written, source, dataset.is_published),
            ],
            "files": checksums,
            "bits": dataset.bits,
            "mean": mean,
            "std": deviation,
            "splits": {
                part: _describe_split(unfinished / part, dataset.splits[part], written[part]) for part in SPLITS
            },
        }
        check_record(manifest, Manifest, where=source)
        write_json(unfinished / "manifest.json", manifest)
    return manifest


def _checksums(files: list[Path], source: str) -> dict[str, str]:
    """sha256 of each file, by its path below the source; of many files one over all paths and checksums."""
    single = {_path_below(file, source): sha256_of(file) for file in files}
    if len(single) <= LISTED_FILES:
        return single
    return {f"all {len(single)} files": hashlib.sha256(canonical_json(single).encode()).hexdigest()}


def _path_below(file: Path, source: str) -> str:
    return (file.relative_to(source) if file.is_relative_to(source) else file).as_posix()


class _Digest:
    """What is gathered from images as they pass: a checksum of the file, sums, and a hash of each image."""

    def __init__(self, header: bytes) -> None:
        self.sha256 = hashlib.sha256(header)
        self.sums, self.squares, self.pixels = np.zeros(3, np.uint64), np.zeros(3, np.uint64), 0
        self.hashes: list[int] = []

    def add(self, block: np.ndarray) -> None:
        """Take a block, uint8 `(images, height, width, 3)`. Sums are whole numbers: blocks of any size agree."""
        self.sha256.update(block)
        self.sums += block.sum(0, dtype=np.uint64).sum((0, 1))
        self.squares += np.square(block, dtype=np.uint16).sum(0, dtype=np.uint64).sum((0, 1))
        self.pixels += block[..., 0].size
        self.hashes += [int.from_bytes(hashlib.blake2b(image, digest_size=8).digest()) for image in block]

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of images scaled to 0..1.

        The deviation of a constant channel is 1 (as in scikit-learn's StandardScaler), so that normalised values
        of other images stay bounded.
        """
        mean = self.sums / self.pixels
        deviation = self._deviation() / 255
        return (mean / 255).tolist(), np.where(deviation, deviation, 1).tolist()

    def constant_channels(self, source: str) -> list[str]:
        """A warning that names the channels which are the same everywhere, or none.

        Raises:
            InputError: all channels are.
        """
        constant = [name for name, spread in zip(CHANNELS, self._deviation(), strict=True) if not spread]
        if len(constant) == len(CHANNELS):
            raise InputError(f"{source}, split train: all pixels of all images are equal; nothing can be learned")
        return [f"{name} is the same in all pixels of train; it carries no information" for name in constant]

    def _deviation(self) -> np.ndarray:
        """Standard deviation per channel, in grey levels of 0..255."""
        mean = self.sums / self.pixels
        return np.sqrt(np.maximum(self.squares / self.pixels - np.square(mean), 0))


def _write_split(directory: Path, split: SplitStream, where: str, advance: Callable[[int], None]) -> _Digest:
    """Write the arrays of a split; what was gathered from its images as they passed."""
    directory.mkdir()
    with (directory / "labels.npy").open("wb") as file:
        # Not straight to the path: numpy's own error of a full disk has no number.
        file.write(_npy_bytes(split.labels.astype(np.int64)))
    count = len(split.labels)
    header = _npy_header((count, *split.shape))
    digest = _Digest(header)
    # No open_memmap: where a disk becomes full, writing to mapped memory ends the process without a word.
    with (directory / "images.npy").open("wb") as file:
        file.write(header)
        for block in split.blocks():
            block = _checked_block(block, split.shape, where)
            file.write(block)
            digest.add(block)
            advance(len(block))
        file.flush()
        os.fsync(file.fileno())
    if len(digest.hashes) != count:
        raise InputError(f"{where}: {len(digest.hashes)} images but {count} labels")
    return digest


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _checked_block(block: np.ndarray, shape: tuple[int, int, int], where: str) -> np.ndarray:
    if block.dtype != np.uint8 or block.shape[1:] != shape:
        raise InputError(f"{where}: images are {block.dtype} {block.shape[1:]}, not uint8 {shape}")
    return np.ascontiguousarray(block)


def _describe_split(directory: Path, split: SplitStream, digest: _Digest) -> dict:
    return {
        "images": len(split.labels),
        "shape": list(split.shape),
        "classes": split.class_names,
        "smallest_class": int(np.bincount(split.labels).min()),
        "smallest_class_name": split.class_names[np.bincount(split.labels).argmin()],
        "sha256": {"images.npy": digest.sha256.hexdigest(), "labels.npy": sha256_of(directory / "labels.npy")},
    }


def _check_shared_images(written: dict[str, _Digest], source: str, is_published: bool) -> list[str]:
    """Images that stand in two splits, byte by byte: a warning for each pair of splits.

    Raises:
        InputError: a published split shares more with another than the few that ImageNet and CIFAR hold twice.
    """
    warnings = []
    for one, other in combinations(SPLITS, 2):
        shared = len(set(written[one].hashes) & set(written[other].hashes))
        if not shared:
            continue
        text = f"{shared} images stand in {one} and in {other}; results on {other} say less than they seem to"
        if is_published and shared > TOLERATED_SHARE * len(written[other].hashes):
            raise InputError(f"{source}: {text}; these are not the published splits")
        warnings.append(text)
    return warnings


def read_manifest(directory: Path | str) -> dict:
    """The content of `manifest.json`, as `metantk.data.manifest` has it.

    Raises:
        InputError: the folder holds no finished data set, or another file by that name.
    """
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        raise InputError(f"{directory}: holds no data set (no manifest.json); make one with prepare_dataset.py")
    return read_record(path, Manifest, stage="prepare_dataset").model_dump()


def load_split(directory: Path | str, part: str, *, thoroughly: bool = False) -> Split:
    """Memory-map one split and compare it with the manifest.

    Args:
        thoroughly: compare the images' checksum in any case. Else it is left out where their file, and the folder
            that it lies in, are older than the manifest, which is written last: reading gigabytes takes time.

    Raises:
        InputError: a file is missing, truncated or not what the manifest says.
    """
    folder = Path(directory) / part
    entry = read_manifest(directory)["splits"][part]
    images = _map_array(folder / "images.npy", (entry["images"], *entry["shape"]), "uint8")
    labels = np.array(_map_array(folder / "labels.npy", (entry["images"],), "int64"))
    _check_sum(folder / "labels.npy", entry)
    if thoroughly or _is_newer([folder, folder / "images.npy"], Path(directory) / "manifest.json"):
        _check_sum(folder / "images.npy", entry)
    present = np.unique(labels)
    if not np.array_equal(present, np.arange(len(entry["classes"]))):
        raise InputError(f"{folder / 'labels.npy'}: its labels are not those of {len(entry['classes'])} classes")
    if (smallest := np.bincount(labels).min()) != entry["smallest_class"]:
        raise InputError(f"{folder}: its smallest class has {smallest} images, not {entry['smallest_class']}")
    return Split(images, labels, entry["classes"])


def checksum_of(manifest: dict) -> str:
    """Of all arrays of a data set: the same wherever it was prepared."""
    checksums = {part: entry["sha256"] for part, entry in manifest["splits"].items()}
    return hashlib.sha256(canonical_json(checksums).encode()).hexdigest()


def check_statistics(directory: Path | str, train: Split) -> None:
    """Compare mean and deviation of the training images with the manifest, which takes reading all of them.

    Raises:
        InputError: they are others.
    """
    digest = _Digest(b"")
    for first, stop in block_bounds(len(train.images), train.images.shape[1:]):
        digest.add(train.images[first:stop])
    manifest = read_manifest(directory)
    if not np.allclose(digest.statistics(), (manifest["mean"], manifest["std"]), rtol=0, atol=1e-6):
        raise InputError(f"{directory}: mean and std are not the images'; prepare the data set again")


def _check_sum(path: Path, entry: dict) -> None:
    if sha256_of(path) != entry["sha256"][path.name]:
        raise InputError(f"{path}: is not the file that manifest.json describes; prepare the data set again")


def _is_newer(paths: list[Path], than: Path) -> bool:
    """Whether one of them was written, renamed or replaced after a file was; times of renaming cannot be set."""
    times = [max(status.st_mtime_ns, status.st_ctime_ns) for status in map(Path.stat, [*paths, than])]
    return max(times[:-1]) > times[-1]


# What a damaged header makes NumPy raise.
UNREADABLE = (OSError, ValueError, TypeError, EOFError, OverflowError, RecursionError, MemoryError, TokenError)


def _map_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    check_regular(path, "; prepare the data set again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read ({reason}); prepare the data set again") from None
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"{path}: is {array.dtype} {array.shape}, manifest.json says {dtype} {shape}")
    return array
