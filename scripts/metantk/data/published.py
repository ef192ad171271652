"""What the published data sets hold, and where people get them: facts against which sources are checked."""

from typing import NamedTuple

import numpy as np

from metantk.data.store import SPLITS, SplitStream
from metantk.runtime.files import InputError

IMAGENET_LICENCE = "images of ImageNet: for non-commercial research and education, as image-net.org says"


class Published(NamedTuple):
    """One data set.

    Attributes:
        title: its name in papers.
        classes, images: per part.
        per_class: images of each class, where all have the same number.
        get: where people get it, and which checksum is known.
    """

    title: str
    classes: dict[str, int]
    images: dict[str, int]
    per_class: int | None
    get: str
    licence: str


def _equal_classes(title: str, classes: tuple[int, int, int], per_class: int, get: str, licence: str) -> Published:
    splits = dict(zip(SPLITS, classes, strict=True))
    images = {split: per_class * count for split, count in splits.items()}
    return Published(title, splits, images, per_class, get, licence)


CIFAR_LICENCE = "images of CIFAR-100 (Krizhevsky, 2009): no licence given"
PUBLISHED: dict[str, Published] = {
    "mini-imagenet": _equal_classes(
        "miniImageNet",
        (64, 16, 20),
        600,
        "the pages of RFS, MetaOptNet or Ren et al. (few-shot-ssl-public) link to it; the archive "
        "mini-imagenet.tar.gz of Ren et al. has md5 b38f1eb4251fb9459ecc8e7febf9b2eb, the files of RFS have none",
        IMAGENET_LICENCE,
    ),
    "tiered-imagenet": Published(
        "tieredImageNet",
        {"train": 351, "val": 97, "test": 160},
        {"train": 448_695, "val": 124_261, "test": 206_209},
        None,
        "the pages of RFS, MetaOptNet or Ren et al. (few-shot-ssl-public) link to it; the archive "
        "tiered-imagenet.tar of Ren et al. has md5 e07e811b9f29362d159a9edd0d838c62, the files of RFS have none",
        IMAGENET_LICENCE,
    ),
    "cifar-fs": _equal_classes(
        "CIFAR-FS",
        (64, 16, 20),
        600,
        "the pages of RFS or MetaOptNet link to it, without checksums; `source: cifar-fs` makes it of CIFAR-100",
        CIFAR_LICENCE,
    ),
    "fc100": _equal_classes(
        "FC100",
        (60, 20, 20),
        600,
        "the pages of RFS or MetaOptNet link to it, without checksums; `source: fc100` makes it of CIFAR-100",
        CIFAR_LICENCE,
    ),
}
# Goes by the name of miniImageNet, and is another one.
OTHER_SUBSETS = {"mini-imagenet": {"train": 50_000, "val": 10_000, "test": 5_000}}


def check_counts(name: str, splits: dict[str, SplitStream], *, source: str) -> list[str]:
    """Compare the counts of classes and images with the published ones.

    Returns:
        A warning where the source is known to be another subset that goes by the same name; else nothing.

    Raises:
        InputError: the counts differ.
    """
    published = PUBLISHED[name]
    images = {split: len(splits[split].labels) for split in SPLITS}
    if images == OTHER_SUBSETS.get(name):
        return [f"these {_list(images)} images are another data set than the published {published.title}"]
    classes = {split: len(splits[split].class_names) for split in SPLITS}
    for what, found, expected in (
        ("classes", classes, published.classes),
        ("images", images, published.images),
    ):
        if found != expected:
            raise InputError(
                f"{source}: has {_list(found)} {what}; {published.title} has {_list(expected)} (train/val/test): a "
                "file is damaged or of another data set, get it again"
            )
    if published.per_class is not None:
        _check_classes(splits, published.per_class, source)
    return []


def _check_classes(splits: dict[str, SplitStream], per_class: int, source: str) -> None:
    for split in SPLITS:
        counts = np.bincount(splits[split].labels)
        for index in np.flatnonzero(counts != per_class):
            name = splits[split].class_names[index]
            raise InputError(f"{source}, split {split}: class {name!r} has {counts[index]} images, not {per_class}")


def _list(counts: dict[str, int]) -> str:
    return "/".join(str(counts[split]) for split in SPLITS)
