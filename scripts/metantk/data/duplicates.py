"""Equal images within one split: support and query images of an episode may then be the same."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Labelled(Protocol):
    """What is known of the images of a split: see `metantk.data.store.SplitStream`."""

    labels: np.ndarray
    class_names: list[str]
    image_names: Sequence[str] | None


def within_split(split_name: str, split: Labelled, hashes: Sequence[int]) -> list[str]:
    """A warning that counts images which stand more than once in a split, and names two of them; or none.

    Args:
        hashes: of the pixels of each image, in the order of `split.labels`.
    """
    numbers = np.array(hashes, np.uint64)
    order = np.argsort(numbers, kind="stable")  # equal images side by side, in their order in the split
    is_copy = numbers[order[1:]] == numbers[order[:-1]]
    if not is_copy.any():
        return []
    pairs = np.stack([order[:-1], order[1:]], 1)[is_copy]
    labels = np.asarray(split.labels)[pairs]
    across = labels[:, 0] != labels[:, 1]
    count = len(np.unique(numbers[pairs[:, 0]]))
    mixed = len(np.unique(numbers[pairs[across, 0]]))
    example = pairs[across.argmax()]  # of two classes where there is one, or else the first
    one, other = (_name(split, index) for index in example)
    examples = f"e.g. {one} and {other}"
    if mixed:
        detail = f", {mixed} of them in several classes, {examples} (two classes); their labels contradict"
    else:
        detail = f", {examples} (one class); a query may be an image of the support set"
    return [f"{count} images stand more than once in {split_name}{detail}"]


def _name(split: Labelled, index: int) -> str:
    """The file of an image, or else its class and its position in the split."""
    if split.image_names is not None:
        return split.image_names[index]
    return f"{split.class_names[split.labels[index]]} (image {index})"
