"""Omniglot (Lake et al., 2015), fetched and checked as torchvision does it (its address and checksums).

Split by alphabets: the evaluation set is for testing. No paper names a validation part by alphabets, so the last
`VALIDATION_ALPHABETS` of the background set, in order of name, are taken; the others are for training.
"""

from pathlib import Path

import numpy as np

from metantk.data import downloads
from metantk.data.folder import Classes, stream_images
from metantk.data.store import SPLITS, SplitStream
from metantk.runtime.files import InputError

FOLDER = "omniglot-py"  # as torchvision calls it
VALIDATION_ALPHABETS = 5
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWINGS = 20  # of each character
QUARTER_TURNS = (0, 1, 2, 3)


def read_omniglot(folder: Path, *, image_size: int, rotations: bool) -> tuple[dict[str, SplitStream], list[Path]]:
    """The three parts, and the files that they were read from.

    Args:
        folder: holds omniglot-py/, or receives it.
        image_size: side of the images, in pixels.
        rotations: each character turned by 90, 180 and 270 degrees is a class of its own, too (Vinyals et al.).

    Raises:
        InputError: Omniglot is not there and cannot be fetched, or is not whole.
    """
    background, evaluation = (_characters(own) for own in fetch(folder))
    alphabets = sorted({name.split("/")[0] for name in background})
    held_out = set(alphabets[-VALIDATION_ALPHABETS:])
    parts = {
        "train": {name: files for name, files in background.items() if name.split("/")[0] not in held_out},
        "val": {name: files for name, files in background.items() if name.split("/")[0] in held_out},
        "test": evaluation,
    }
    splits = stream_images(folder, parts, image_size=image_size)
    if rotations:
        splits = {split: with_rotations(splits[split]) for split in SPLITS}
    return splits, [file for classes in parts.values() for files in classes.values() for file in files]


def fetch(folder: Path) -> list[Path]:
    """The folders of the background and the evaluation set, downloaded where they are missing.

    Raises:
        InputError: they are not there and cannot be fetched.
    """
    # Imported here: it takes seconds, and most sources do without.
    from torchvision.datasets import Omniglot

    for name in CHARACTERS:
        archive = downloads.Archive(
            f"{Omniglot.download_url_prefix}/{name}.zip", f"{name}.zip", Omniglot.zips_md5[name], top=name
        )
        downloads.fetch(archive, folder / FOLDER, (folder / FOLDER / name).is_dir)
    return [folder / FOLDER / name for name in CHARACTERS]


def _characters(own: Path) -> Classes:
    """The drawings of each character, by `alphabet/character`."""
    classes = {
        f"{character.parent.name}/{character.name}": sorted(character.glob("*.png"))
        for character in sorted(own.glob("*/*"))
        if character.is_dir()
    }
    if len(classes) != CHARACTERS[own.name] or any(len(files) != DRAWINGS for files in classes.values()):
        raise InputError(
            f"{own}: has {len(classes)} characters in folders ALPHABET/CHARACTER; expected {CHARACTERS[own.name]} "
            f"with {DRAWINGS} drawings each, remove it to have it fetched and unpacked again"
        )
    return classes


def with_rotations(split: SplitStream) -> SplitStream:
    """Four times the classes: all images upright, then all turned by 90 degrees, by 180 and by 270."""
    classes = len(split.class_names)
    labels = np.concatenate([split.labels + turn * classes for turn in QUARTER_TURNS])
    suffixes = [f", {90 * turn} degrees" if turn else "" for turn in QUARTER_TURNS]
    names = [f"{name}{suffix}" for suffix in suffixes for name in split.class_names]

    def blocks():
        for turn in QUARTER_TURNS:
            for block in split.blocks():
                yield np.rot90(block, turn, axes=(1, 2))

    return SplitStream(labels, names, split.shape, blocks)
