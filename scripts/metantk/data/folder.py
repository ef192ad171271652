"""Anybody's own images: a folder with one folder per class.

Two layouts are read. Either the classes are split already,

    SOURCE/{train,val,test}/CLASS/image

or they are not, and are split here, whole classes at a time, by a seed:

    SOURCE/CLASS/image

Folders may be nested, `GROUP/CLASS/image` as Omniglot's alphabets are: classes are the folders that hold
images, named by their path. A split may keep the classes of a group together.

An image is any file that Pillow can read. What begins with a dot is passed over, and so are Thumbs.db and its like
and files that lie beside the class folders (a README, a licence); all else in a class folder has to be an image.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metantk.data import listing
from metantk.data.arrays import resize_image
from metantk.data.store import SPLITS, Split, SplitStream, block_starts, gather
from metantk.runtime.files import InputError

VALIDATION_SHARE, TEST_SHARE = 0.16, 0.20  # of the classes, as in miniImageNet and in Omniglot's usual split
EXAMPLES = 3  # unreadable files that an error names

Classes = dict[str, list[Path]]  # the files of each class, by its name


def find_images(source: Path, *, seed: int, ways: int, split_by_group: bool = False) -> dict[str, Classes]:
    """The files of `train`, `val` and `test` by class; classes and files in order of name.

    Args:
        source: folder in one of the two layouts.
        seed: of the split by class; no effect where train/, val/ and test/ are given.
        ways: classes that each part must have at least.
        split_by_group: all classes of a group go to one part; no effect where train/, val/ and test/ are given.

    Raises:
        InputError: the folder is missing or has neither layout, a class is empty, or a part has fewer than
            `ways` classes.
    """
    folders = _find_classes(Path(source), seed=seed, ways=ways, split_by_group=split_by_group)
    return {split: {name: _files_in(folder) for name, folder in folders[split].items()} for split in SPLITS}


def stream_images(source: Path, parts: dict[str, Classes], *, image_size: int) -> dict[str, SplitStream]:
    """The images of all parts, upright, the shorter side brought to `image_size`, the middle square kept.

    Raises (when the blocks are read):
        InputError: files cannot be read as images (all of them are named), or one is too large to be unpacked
            safely.
    """
    every = [file for classes in parts.values() for files in classes.values() for file in files]
    splits, before = {}, 0
    for split, classes in parts.items():
        splits[split] = _stream_part(source, classes, every, before, image_size)
        before += len(splits[split].labels)
    return splits


def _stream_part(source: Path, classes: Classes, every: list[Path], before: int, image_size: int) -> SplitStream:
    """One part; its first file is number `before` of `every`."""
    counts = [len(files) for files in classes.values()]
    shape = (image_size, image_size, 3)

    def blocks(start: int) -> Iterator[np.ndarray]:
        for first, stop in block_starts(start, sum(counts), shape):
            try:
                yield np.stack([read_image(file, image_size) for file in every[before + first : before + stop]])
            except UnreadableError:
                # The files before were read without a fault: look through the rest, to name all at once.
                unreadable = find_unreadable(every[before + first :], image_size)
                raise InputError(_describe_unreadable(source, unreadable, len(every))) from None

    return SplitStream(np.repeat(np.arange(len(counts)), counts), list(classes), shape, blocks)


def check_files(source: Path, parts: dict[str, Classes]) -> None:
    """Before anything is read, refuse what cannot be opened.

    Raises:
        InputError: naming pipes, links to nowhere and the like, and files without leave to read them.
    """
    every = [file for classes in parts.values() for files in classes.values() for file in files]
    if wrong := listing.check_readable(every):
        raise InputError(_describe_unreadable(source, wrong, len(every)))


def find_unreadable(files: list[Path], image_size: int) -> dict[Path, str]:
    """The files that cannot be read as images, and why."""
    unreadable = {}
    for file in files:
        try:
            read_image(file, image_size)
        except UnreadableError as error:
            unreadable[file] = str(error)
    return unreadable


def skip_unreadable(parts: dict[str, Classes], *, image_size: int) -> tuple[dict[str, Classes], list[str]]:
    """The parts without the files that cannot be read, and a warning that names each.

    Raises:
        InputError: a class has no readable image.
    """
    every = [file for classes in parts.values() for files in classes.values() for file in files]
    unreadable = find_unreadable(every, image_size)
    kept = {
        split: {name: [file for file in files if file not in unreadable] for name, files in classes.items()}
        for split, classes in parts.items()
    }
    for classes in kept.values():
        for name, files in classes.items():
            if not files:
                raise InputError(f"class {name}: none of its files can be read as an image; mend or remove it")
    return kept, [f"left out, cannot be read: {_short_path(file)} ({why})" for file, why in unreadable.items()]


def read_classes(source: Path, *, image_size: int, leave_out: bool = False) -> tuple[Split, list[str]]:
    """Read one folder of class folders whole; a warning for each file that was left out.

    Args:
        leave_out: leave out files that cannot be read, instead of stopping.

    Raises:
        InputError: as of `find_images` and `stream_images`.
    """
    parts, left_out = {"all": find_class_files(source)}, []
    if leave_out:
        parts, left_out = skip_unreadable(parts, image_size=image_size)
    return gather(stream_images(source, parts, image_size=image_size)["all"]), left_out


def find_class_files(source: Path) -> Classes:
    """The files of each class folder of one folder, in order of name."""
    return {name: _files_in(folder) for name, folder in _given_part(Path(source), ways=1).items()}


def read_images(
    source: Path, *, image_size: int, leave_out: bool = False
) -> tuple[list[Path], np.ndarray, list[str]]:
    """The images that lie in a folder, in order of name: paths, uint8 `(images, size, size, 3)`, warnings.

    Raises:
        InputError: it is no folder, or, unless they are left out, a file cannot be read.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: is not a folder of images")
    parts, left_out = {"all": {source.name: _files_in(source)}}, []
    if leave_out:
        parts, left_out = skip_unreadable(parts, image_size=image_size)
    images = gather(stream_images(source, parts, image_size=image_size)["all"]).images
    return parts["all"][source.name], images, left_out


Folders = dict[str, Path]  # of classes, by the classes' names


def _find_classes(source: Path, *, seed: int, ways: int, split_by_group: bool) -> dict[str, Folders]:
    """The class folders of each part."""
    given = [name for name in SPLITS if (source / name).is_dir()]
    if given == list(SPLITS):
        return {name: _given_part(source / name, ways) for name in SPLITS}
    classes = listing.class_folders(source)
    # A class may be called "train" like any other; only folders inside it make it a part of a split.
    halves = [name for name in given if listing.folders(source / name)]
    if halves:
        missing = " and ".join(f"{name}/" for name in SPLITS if name not in given)
        raise InputError(f"{source}: has {halves[0]}/ with class folders, but no {missing}; expected all three")
    if not classes:
        raise NoClassesError(f"{source}: {_contents(source)}")
    chosen = split_classes(list(classes), source=source, seed=seed, ways=ways, split_by_group=split_by_group)
    return {split: {name: classes[name] for name in names} for split, names in chosen.items()}


def _given_part(split: Path, ways: int) -> Folders:
    classes = listing.class_folders(split)
    if not classes:
        raise InputError(f"{split}: {_contents(split)}; expected a folder per class")
    if len(classes) < ways:
        raise InputError(f"{split}: has {len(classes)} class folders; {ways} are needed for {ways} ways")
    return classes


def split_classes(
    names: list[str], *, source: Path | str, seed: int, ways: int, split_by_group: bool
) -> dict[str, list[str]]:
    """Training, validation and test classes by a seed; with `split_by_group`, those of a group `group/class` alike.

    Raises:
        InputError: too few classes or groups.
    """
    if len(names) < len(SPLITS) * ways:
        raise InputError(
            f"{source}: has {len(names)} class folders; {len(SPLITS) * ways} are needed, "
            f"{ways} ways in each of train, val and test"
        )
    validation = max(ways, round(VALIDATION_SHARE * len(names)))
    test = max(ways, round(TEST_SHARE * len(names)))
    if split_by_group:
        return _split_groups(names, source, seed, ways, {"test": test, "val": validation})
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.split(order, [len(names) - validation - test, len(names) - test])
    of_split = dict(zip(SPLITS, chosen, strict=True))
    return {split: [names[index] for index in sorted(indices)] for split, indices in of_split.items()}


def _split_groups(names: list[str], source: Path | str, seed: int, ways: int, wanted: dict[str, int]) -> dict:
    """Whole groups, in a random order, to `test` and `val` until each has the classes wanted; the rest to train."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0] or name, []).append(name)
    order = list(groups)
    np.random.default_rng(seed).shuffle(order)
    chosen: dict[str, list[str]] = {split: [] for split in SPLITS}
    for group in order:
        split = next((split for split, count in wanted.items() if len(chosen[split]) < count), "train")
        chosen[split] += groups[group]
    for split, found in chosen.items():
        if len(found) < ways:
            raise InputError(
                f"{source}: kept together, its {len(groups)} groups of classes leave {len(found)} classes for "
                f"{split}; {ways} are needed: leave out split_by_group, or split into train/, val/, test/ yourself"
            )
    return {split: sorted(found) for split, found in chosen.items()}


def _contents(folder: Path) -> str:
    count = len(listing.entries(folder))
    return f"holds {count} files and no folders" if count else "is empty"


def _files_in(folder: Path) -> list[Path]:
    """The files of a class, all of which have to be images."""
    entries = listing.entries(folder)
    if not entries:
        raise InputError(f"{folder}: is empty; expected the images of a class")
    for entry in entries:
        if entry.is_dir():
            raise InputError(f"{entry}: is a folder in a class folder; expected images only")
    return entries


class NoClassesError(InputError):
    """The folder holds no folders; the message ends before what was expected."""


class UnreadableError(Exception):
    """The file is no image, or a damaged one."""


def read_image(path: Path, image_size: int) -> np.ndarray:
    """Decode one file to uint8 `(image_size, image_size, 3)`."""
    if wrong := listing.check_readable([path]):
        raise UnreadableError(wrong[path])
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a small file that unfolds to gigabytes; the files are not to be trusted.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                # JPEG can be decoded at a half, a quarter or an eighth of its size, which is much faster.
                image.draft(None, (2 * image_size, 2 * image_size))
                upright = ImageOps.exif_transpose(image)
                square = resize_image(_as_rgb(upright), image_size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise InputError(f"{path}: has more than {limit}; make it smaller or take it out") from None
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every kind
        raise UnreadableError(_reason(error)) from None
    return square


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
        return "not an image"
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def _describe_unreadable(source: Path, unreadable: dict[Path, str], total: int) -> str:
    named = ", ".join(f"{_short_path(file)} ({why})" for file, why in list(unreadable.items())[:EXAMPLES])
    more = ", ..." if len(unreadable) > EXAMPLES else ""
    return f"{source}: {len(unreadable)} of {total} files cannot be read: {named}{more}; mend or remove them"


def _short_path(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
