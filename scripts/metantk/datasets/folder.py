"""Anybody's own pictures: a folder with one folder per class.

Two layouts are read. Either the classes are split already,

    SOURCE/{train,val,test}/CLASS/picture

or they are not, and are split here, whole classes at a time, by a seed:

    SOURCE/CLASS/picture

A picture is any file that Pillow can read. What begins with a dot is passed over, and so are files that lie
beside the class folders (a README, a licence); all else in a class folder has to be a picture.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metantk.datasets.store import SPLITS, Split
from metantk.storage import InputError

VALIDATION_SHARE, TEST_SHARE = 0.16, 0.20  # of the classes, as in miniImageNet and in Omniglot's usual split
EXAMPLES = 3  # unreadable files that an error names


def read_folder(source: Path, *, image_size: int, seed: int, ways: int) -> dict[str, Split]:
    """Read the pictures, upright, the shorter side brought to `image_size`, the middle square kept.

    Args:
        source: folder in one of the two layouts.
        image_size: side of the square pictures, in pixels.
        seed: of the split by class; no effect where train/, val/ and test/ are given.
        ways: classes that each part must have at least.

    Returns:
        `train`, `val` and `test`; classes and files in order of name, images uint8
        `(pictures, image_size, image_size, 3)`.

    Raises:
        InputError: the folder is missing or has neither layout, a class is empty, a part has fewer than
            `ways` classes, a file cannot be read as a picture, or one is too large to be unpacked safely.
    """
    source = Path(source)
    parts = _find_classes(source, seed=seed, ways=ways)
    files = {folder: _files_in(folder) for name in SPLITS for folder in parts[name]}
    unreadable: list[str] = []
    splits = {name: _read_split(parts[name], files, image_size, unreadable) for name in SPLITS}
    if unreadable:
        total = sum(map(len, files.values()))
        raise InputError(_describe_unreadable(source, unreadable, total))
    return splits


def read_classes(source: Path, *, image_size: int) -> Split:
    """Read one folder of class folders whole; arguments, result and errors as of `read_folder`."""
    folders = _given_part(Path(source), ways=1)
    files = {folder: _files_in(folder) for folder in folders}
    unreadable: list[str] = []
    split = _read_split(folders, files, image_size, unreadable)
    if unreadable:
        raise InputError(_describe_unreadable(source, unreadable, sum(map(len, files.values()))))
    return split


def read_pictures(source: Path, *, image_size: int) -> tuple[list[Path], np.ndarray]:
    """The pictures that lie in a folder, in order of name: paths, and uint8 `(pictures, size, size, 3)`."""
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: is not a folder of pictures")
    split = _read_split([source], {source: _files_in(source)}, image_size, unreadable := [])
    if unreadable:
        raise InputError(_describe_unreadable(source, unreadable, len(split.labels)))
    return _files_in(source), split.images


def _find_classes(source: Path, *, seed: int, ways: int) -> dict[str, list[Path]]:
    """The class folders of each part."""
    given = [name for name in SPLITS if (source / name).is_dir()]
    if given == list(SPLITS):
        return {name: _given_part(source / name, ways) for name in SPLITS}
    classes = _folders_in(source)
    # A class may be called "train" like any other; only folders inside it make it a part of a split.
    halves = [name for name in given if _folders_in(source / name)]
    if halves:
        missing = " and ".join(f"{name}/" for name in SPLITS if name not in given)
        raise InputError(f"{source}: has {halves[0]}/ with class folders, but no {missing}; expected all three")
    if not classes:
        raise InputError(f"{source}: {_contents(source)}; expected a folder per class, or train/, val/ and test/")
    return _split_by_class(source, classes, seed, ways)


def _given_part(part: Path, ways: int) -> list[Path]:
    classes = _folders_in(part)
    if not classes:
        raise InputError(f"{part}: {_contents(part)}; expected a folder per class")
    if len(classes) < ways:
        raise InputError(f"{part}: has {len(classes)} class folders; {ways} are needed for {ways} ways")
    return classes


def _split_by_class(source: Path, classes: list[Path], seed: int, ways: int) -> dict[str, list[Path]]:
    if len(classes) < len(SPLITS) * ways:
        raise InputError(
            f"{source}: has {len(classes)} class folders; {len(SPLITS) * ways} are needed, "
            f"{ways} ways in each of train, val and test"
        )
    validation = max(ways, round(VALIDATION_SHARE * len(classes)))
    test = max(ways, round(TEST_SHARE * len(classes)))
    order = np.random.default_rng(seed).permutation(len(classes))
    chosen = np.split(order, [len(classes) - validation - test, len(classes) - test])
    return {name: [classes[index] for index in sorted(part)] for name, part in zip(SPLITS, chosen, strict=True)}


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, hidden names left out, in order of name."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be read ({reason}); expected a folder of pictures") from None


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _contents(folder: Path) -> str:
    count = len(_entries(folder))
    return f"holds {count} files and no folders" if count else "is empty"


def _files_in(folder: Path) -> list[Path]:
    """The files of a class, all of which have to be pictures."""
    entries = _entries(folder)
    if not entries:
        raise InputError(f"{folder}: is empty; expected the pictures of a class")
    for entry in entries:
        if entry.is_dir():
            raise InputError(f"{entry}: is a folder in a class folder; expected pictures only")
    return entries


def _read_split(
    folders: list[Path], files: dict[Path, list[Path]], image_size: int, unreadable: list[str]
) -> Split:
    """Read the classes of one part; what cannot be read is added to `unreadable`."""
    counts = [len(files[folder]) for folder in folders]
    images = np.empty((sum(counts), image_size, image_size, 3), np.uint8)
    pictures = (file for folder in folders for file in files[folder])
    for index, file in enumerate(pictures):
        try:
            images[index] = _read_picture(file, image_size)
        except _UnreadableError as error:
            unreadable.append(f"{file.parent.name}/{file.name} ({error})")
    labels = np.repeat(np.arange(len(folders), dtype=np.int64), counts)
    return Split(images, labels, [folder.name for folder in folders])


class _UnreadableError(Exception):
    """The file is no picture, or a damaged one."""


def _read_picture(path: Path, image_size: int) -> np.ndarray:
    """Decode one file to uint8 `(image_size, image_size, 3)`."""
    if not path.is_file():  # a link to nowhere, or a pipe, which would be waited for
        raise _UnreadableError("not a file")
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a small file that unfolds to gigabytes; the files are not to be trusted.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                # JPEG can be decoded at a half, a quarter or an eighth of its size, which is much faster.
                image.draft(None, (2 * image_size, 2 * image_size))
                upright = ImageOps.exif_transpose(image)
                square = ImageOps.fit(_as_rgb(upright), (image_size, image_size), Image.Resampling.BICUBIC)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise InputError(f"{path}: has more than {limit}; make it smaller or take it out") from None
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every kind
        raise _UnreadableError(_reason(error)) from None
    return np.asarray(square)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode; what is transparent becomes white, as on paper."""
    if image.mode.startswith("I;16"):
        # Pillow would cut all above 255 to white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}: 32-bit pixels have no known white; save with 8 or 16 bits")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def _describe_unreadable(source: Path, unreadable: list[str], total: int) -> str:
    named = ", ".join(unreadable[:EXAMPLES]) + (", ..." if len(unreadable) > EXAMPLES else "")
    return f"{source}: {len(unreadable)} of {total} files cannot be read: {named}; mend or remove them"
