"""At most so many images of each class, sampled by a seed, in the order in which they were."""

from collections.abc import Iterator

import numpy as np

from metantk.data.folder import Classes
from metantk.data.store import SplitStream


def cap_files(splits: dict[str, Classes], most: int | None, seed: int) -> dict[str, Classes]:
    """Files of each class before any is read, at most `most`; None leaves all."""
    if most is None:
        return splits
    rng = np.random.default_rng(seed)
    return {
        split: {name: [files[index] for index in _sample(len(files), most, rng)] for name, files in classes.items()}
        for split, classes in splits.items()
    }


def cap_streams(splits: dict[str, SplitStream], most: int | None, seed: int) -> dict[str, SplitStream]:
    """Images of each class as they pass, at most `most`; None leaves all."""
    if most is None:
        return splits
    rng = np.random.default_rng(seed)
    return {split: _cap_stream(stream, most, rng) for split, stream in splits.items()}


def _cap_stream(stream: SplitStream, most: int, rng: np.random.Generator) -> SplitStream:
    members = (np.flatnonzero(stream.labels == label) for label in range(len(stream.class_names)))
    kept = np.sort(np.concatenate([indices[_sample(len(indices), most, rng)] for indices in members]))

    def blocks() -> Iterator[np.ndarray]:
        first = 0
        for block in stream.blocks():
            inside = kept[(first <= kept) & (kept < first + len(block))]
            if len(inside):
                yield block[inside - first]
            first += len(block)

    names = stream.image_names and [stream.image_names[index] for index in kept]
    return stream._replace(labels=stream.labels[kept], blocks=blocks, image_names=names)


def _sample(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(count, min(count, most), replace=False))
