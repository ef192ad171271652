"""CIFAR-FS (Bertinetto et al., 2019) and FC100 (Oreshkin et al., 2018): class splits of CIFAR-100.

CIFAR-100 is looked for, fetched and checked as torchvision does it (its address and checksums); its pickles are
read by our own unpickler.
"""

from pathlib import Path

import numpy as np

from metantk.data import downloads
from metantk.data.arrays import entry, stream_array, whole_numbers
from metantk.data.store import SPLITS, SplitStream
from metantk.data.unpickle import PickleFile
from metantk.runtime.files import InputError

SIDE = 32  # pixels
# Bertinetto et al. list classes, Oreshkin et al. superclasses; what is listed nowhere is for training.
CIFAR_FS = {
    "val": [
        "beaver",
        "beetle",
        "butterfly",
        "camel",
        "cattle",
        "crab",
        "crocodile",
        "flatfish",
        "lamp",
        "maple_tree",
        "motorcycle",
        "otter",
        "sea",
        "shark",
        "television",
        "tractor",
    ],
    "test": [
        "baby",
        "bed",
        "bicycle",
        "chimpanzee",
        "fox",
        "leopard",
        "man",
        "pickup_truck",
        "plain",
        "poppy",
        "rocket",
        "rose",
        "snail",
        "sweet_pepper",
        "table",
        "telephone",
        "wardrobe",
        "whale",
        "woman",
        "worm",
    ],
}
FC100 = {
    "val": ["large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates", "small_mammals"],
    "test": ["aquatic_mammals", "insects", "medium_mammals", "people"],
}


def read_cifar(name: str, folder: Path, image_size: int | None) -> tuple[dict[str, SplitStream], list[Path]]:
    """One of the class splits of CIFAR-100, its training and test images together (600 per class).

    Args:
        name: `cifar-fs` or `fc100`.
        folder: holds cifar-100-python/, or receives it.

    Returns:
        The splits, and the files that they were read from.

    Raises:
        InputError: CIFAR-100 is not there and cannot be fetched, or is damaged.
    """
    train, test, meta = fetch(folder)
    fine_names = _names(meta, "fine_label_names")
    batches = [_read_batch(path) for path in (train, test)]
    images, fine, coarse = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    chosen = _class_splits(name, fine_names, _names(meta, "coarse_label_names"), fine, coarse)
    splits = {
        split: _choose(images, fine, fine_names, chosen[split], image_size, where=f"CIFAR-100 in {folder}")
        for split in SPLITS
    }
    return splits, [train, test, meta]


def fetch(folder: Path) -> list[Path]:
    """The files of CIFAR-100, downloaded where they are missing: train, test, meta.

    Raises:
        InputError: they are not there and cannot be fetched.
    """
    # Imported here: it takes seconds, and most sources do without.
    from torchvision.datasets import CIFAR100
    from torchvision.datasets.utils import check_integrity

    own = folder / CIFAR100.base_folder
    files = dict([*CIFAR100.train_list, *CIFAR100.test_list, [CIFAR100.meta["filename"], CIFAR100.meta["md5"]]])
    downloads.fetch(
        downloads.Archive(CIFAR100.url, CIFAR100.filename, CIFAR100.tgz_md5, top=CIFAR100.base_folder),
        folder,
        lambda: all(check_integrity(own / name, md5) for name, md5 in files.items()),
    )
    return [own / name for name in files]


def _names(meta: Path, key: str) -> list[str]:
    names = entry(PickleFile(meta).value, key, meta)
    if not isinstance(names, list):
        raise InputError(f"{meta}: {key} are no list")
    return list(map(str, names))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images `(n, 32, 32, 3)`, fine labels and coarse labels of one file."""
    value = PickleFile(path).value
    data = entry(value, "data", path)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
        raise InputError(f"{path}: 'data' are not the images of CIFAR-100")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    fine, coarse = (whole_numbers(entry(value, key, path), path, key) for key in ("fine_labels", "coarse_labels"))
    return images, fine, coarse


def _class_splits(
    name: str, fine_names: list[str], coarse_names: list[str], fine: np.ndarray, coarse: np.ndarray
) -> dict[str, list[int]]:
    """Fine labels of each part."""
    if name == "cifar-fs":
        listed, group = CIFAR_FS, dict(enumerate(fine_names))
    else:
        listed = FC100
        group = {label: coarse_names[above] for label, above in zip(fine.tolist(), coarse.tolist(), strict=True)}
    part_of = {member: split for split, members in listed.items() for member in members}
    splits = {split: [] for split in SPLITS}
    for label in sorted(group):
        splits[part_of.get(group[label], "train")].append(label)
    return splits


def _choose(
    images: np.ndarray, fine: np.ndarray, names: list[str], labels: list[int], image_size: int | None, *, where: str
) -> SplitStream:
    """The images of some labels, class by class in order of name."""
    ordered = sorted(labels, key=lambda label: names[label])
    indices = [np.flatnonzero(fine == label) for label in ordered]
    classes = np.repeat(np.arange(len(ordered)), [len(members) for members in indices])
    chosen = images[np.concatenate(indices)]
    class_names = [names[label] for label in ordered]
    return stream_array(chosen, classes, class_names, image_size=image_size, where=where, release=lambda: None)
