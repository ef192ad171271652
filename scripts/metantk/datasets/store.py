"""The format in which every data set lies on disk, whatever it came from.

DIR/{train,val,test}/images.npy   uint8 (pictures, height, width, 3), memory-mapped when read
DIR/{train,val,test}/labels.npy   int64 (pictures,), numbers of classes within the split
DIR/manifest.json                 classes, sizes, sha256 of each file, mean and deviation, source, licence
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from metantk.storage import InputError, atomic_directory, read_json, sha256_of, write_json

SPLITS = ("train", "val", "test")


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        images: uint8, `(pictures, height, width, 3)`.
        labels: int64, `(pictures,)`, each in `0 .. len(class_names) - 1`.
        class_names: the split's own classes; no two splits share one.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]


def check_splits(splits: dict[str, Split], *, source: str) -> None:
    """Check shapes, types, labels and that no class stands in two splits.

    Raises:
        InputError: naming the split and what is wrong with it.
    """
    owner: dict[str, str] = {}
    for name in SPLITS:
        split = splits[name]
        where = f"{source}, split {name}"
        if split.images.ndim != 4 or split.images.shape[3] != 3 or split.images.dtype != np.uint8:
            raise InputError(
                f"{where}: images are {split.images.dtype} {split.images.shape}, not uint8 (N, H, W, 3)"
            )
        if split.labels.shape != split.images.shape[:1]:
            raise InputError(f"{where}: {len(split.images)} pictures but {len(split.labels)} labels")
        present = np.unique(split.labels)
        if not np.array_equal(present, np.arange(len(split.class_names))):
            raise InputError(f"{where}: labels do not cover the {len(split.class_names)} classes 0, 1, 2, ...")
        for class_name in split.class_names:
            other = owner.setdefault(class_name, name)
            if other != name:
                raise InputError(f"{where}: class {class_name!r} is in split {other} too")


def write_dataset(directory: Path, splits: dict[str, Split], *, name: str, source: str, licence: str) -> None:
    """Check the splits and write them whole or not at all; the manifest comes last."""
    check_splits(splits, source=source)
    with atomic_directory(directory) as temporary:
        parts = {part: _write_split(temporary / part, splits[part]) for part in SPLITS}
        mean, deviation = channel_statistics(splits["train"].images)
        manifest = {
            "name": name,
            "source": source,
            "licence": licence,
            "mean": mean,
            "std": deviation,
            "splits": parts,
        }
        write_json(temporary / "manifest.json", manifest)


def _write_split(directory: Path, split: Split) -> dict:
    directory.mkdir(parents=True)
    np.save(directory / "images.npy", split.images)
    np.save(directory / "labels.npy", split.labels.astype(np.int64))
    return {
        "pictures": len(split.labels),
        "shape": list(split.images.shape[1:]),
        "classes": split.class_names,
        "sha256": {file: sha256_of(directory / file) for file in ("images.npy", "labels.npy")},
    }


def channel_statistics(images: np.ndarray, chunk: int = 4096) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pictures scaled to 0..1, in chunks: memory stays flat."""
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].reshape(-1, 3).astype(np.float64) / 255
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
        count += len(pixels)
    mean = total / count
    return mean.tolist(), np.sqrt(squares / count - np.square(mean)).tolist()


def read_manifest(directory: Path | str) -> dict:
    """Read `manifest.json`.

    Raises:
        InputError: the folder holds no finished data set, or another file by that name.
    """
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        raise InputError(f"{directory}: holds no data set (no manifest.json); make one with prepare_dataset.py")
    manifest = read_json(path)
    try:
        for part in SPLITS:
            entry = manifest["splits"][part]
            _ = entry["pictures"], entry["shape"], entry["classes"]
        _ = manifest["mean"], manifest["std"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: is no manifest ({error} is wrong); prepare the data set again") from None
    return manifest


def load_split(directory: Path | str, part: str) -> Split:
    """Memory-map one split and compare it with the manifest.

    Raises:
        InputError: a file is missing, truncated or not what the manifest says.
    """
    entry = read_manifest(directory)["splits"][part]
    images = _map_array(Path(directory) / part / "images.npy", (entry["pictures"], *entry["shape"]), "uint8")
    labels = _map_array(Path(directory) / part / "labels.npy", (entry["pictures"],), "int64")
    return Split(images, np.array(labels), entry["classes"])


def _map_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read ({reason}); prepare the data set again") from None
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"{path}: is {array.dtype} {array.shape}, manifest.json says {dtype} {shape}")
    return array
