"""Anybody's own images: a folder with one folder per class, in any layout of `metantk.data.layouts`.

Classes that are not split already are split here, whole classes at a time, by a seed. A split may keep the classes
of a group together, as Omniglot's alphabets are.

An image is any file that Pillow can read; what else lies in a class folder is passed over as
`metantk.data.listing` says, or refused.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metantk.data import layouts, listing
from metantk.data.class_splits import hold_out_validation, split_classes
from metantk.data.image_files import HEIC, UnreadableError, read_image
from metantk.data.layouts import Folders, Layout
from metantk.data.store import SPLITS, Split, SplitStream, block_bounds, gather
from metantk.runtime.files import InputError

SIZE = 84  # pixels of a side, where none is asked for
EXAMPLES = 3  # unreadable files that an error names

Classes = dict[str, list[Path]]  # the files of each class, by its name


def find_images(source: Path, *, seed: int, ways: int, split_by_group: bool = False) -> dict[str, Classes]:
    """The files of `train`, `val` and `test` by class; classes and files in order of name.

    Args:
        source: folder in one of the layouts.
        seed: of the split by class; no effect on splits that are given.
        ways: classes that each split must have at least.
        split_by_group: all classes of a group go to one split; no effect on splits that are given.

    Raises:
        InputError: the folder is missing or has no such layout, a class is empty, or a split has fewer than `ways`
            classes.
    """
    layout = layouts.find_layout(Path(source))
    folders = _split(layout, seed=seed, ways=ways, split_by_group=split_by_group)
    words = _names_in_words(layout)
    return {
        split: {words.get(name, name): listing.images_in(folder) for name, folder in folders[split].items()}
        for split in SPLITS
    }


def _names_in_words(layout: Layout) -> dict[str, str]:
    classes = [name for folders in (*layout.splits.values(), layout.classes) for name in folders]
    path = layouts.names_file(layout.source, classes)
    return layouts.in_words(classes, layouts.read_names(path)) if path else {}


def stream_images(
    source: Path, parts: dict[str, Classes], *, image_size: int, bits: int | None = None
) -> dict[str, SplitStream]:
    """The images of all parts, upright, the shorter side brought to `image_size`, the middle square kept.

    Args:
        bits: as of `read_image`, for all images alike.

    Raises (when the blocks are read):
        InputError: files cannot be read as images; all of them are named.
    """
    every = [file for classes in parts.values() for files in classes.values() for file in files]
    splits, before = {}, 0
    for split, classes in parts.items():
        splits[split] = _stream_part(source, classes, every, before, image_size, bits)
        before += len(splits[split].labels)
    return splits


def _stream_part(
    source: Path, classes: Classes, every: list[Path], before: int, image_size: int, bits: int | None
) -> SplitStream:
    """One part; its first file is number `before` of `every`."""
    counts = [len(files) for files in classes.values()]
    shape = (image_size, image_size, 3)
    own = every[before : before + sum(counts)]

    def blocks() -> Iterator[np.ndarray]:
        for first, stop in block_bounds(len(own), shape):
            try:
                yield np.stack([read_image(file, image_size, bits) for file in own[first:stop]])
            except UnreadableError:
                # The files before were read without a fault: look through the rest, to name all at once.
                unreadable = find_unreadable(every[before + first :], image_size)
                raise InputError(_describe_unreadable(source, unreadable, len(every))) from None

    names = [_path_below(file, source) for file in own]
    return SplitStream(np.repeat(np.arange(len(counts)), counts), list(classes), shape, blocks, names)


def _path_below(file: Path, source: Path) -> str:
    return (file.relative_to(source) if file.is_relative_to(source) else file).as_posix()


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


def read_classes(
    source: Path, *, image_size: int, leave_out: bool = False, bits: int | None = None
) -> tuple[Split, list[str]]:
    """Read one folder of class folders whole; a warning for each file that was left out.

    Args:
        leave_out: leave out files that cannot be read, instead of stopping.
        bits: as of `read_image`.

    Raises:
        InputError: as of `find_images` and `stream_images`.
    """
    parts, left_out = {"all": find_class_files(source)}, []
    if leave_out:
        parts, left_out = skip_unreadable(parts, image_size=image_size)
    return gather(stream_images(source, parts, image_size=image_size, bits=bits)["all"]), left_out


def find_class_files(source: Path) -> Classes:
    """The files of each class folder of one folder, in order of name.

    Raises:
        InputError: as of `find_images`; or it is split.
    """
    source = Path(source)
    layout = layouts.find_layout(source)
    if layout.splits:
        raise InputError(f"{source}: holds splits; name one of the folders in it, whose folders are classes")
    words = _names_in_words(layout)
    return {words.get(name, name): listing.images_in(folder) for name, folder in layout.classes.items()}


def find_query_files(source: Path) -> list[Path]:
    """The images in a folder and in the folders in it, in order of path.

    Raises:
        InputError: it is no folder, or holds no images.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: is not a folder of images")
    if not (files := _files_below(source)):
        raise InputError(f"{source}: holds no images")
    return files


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Args: `above`: the folders, resolved, on the way to this one."""
    way = (*above, folder.resolve())
    if way[-1] in above:
        raise InputError(f"{folder}: is a link to a folder that it lies in; remove it")
    found = listing.without_descriptions(listing.entries(folder))
    return [file for entry in found for file in (_files_below(entry, way) if entry.is_dir() else [entry])]


def read_images(
    source: Path, *, image_size: int, leave_out: bool = False, bits: int | None = None
) -> tuple[list[Path], np.ndarray, list[str]]:
    """The images in a folder, as of `find_query_files`: paths, uint8 `(images, size, size, 3)`, warnings.

    Raises:
        InputError: as of `find_query_files`; or, unless they are left out, a file cannot be read.
    """
    source = Path(source)
    parts, left_out = {"all": {source.name: find_query_files(source)}}, []
    if leave_out:
        parts, left_out = skip_unreadable(parts, image_size=image_size)
    images = gather(stream_images(source, parts, image_size=image_size, bits=bits)["all"]).images
    return parts["all"][source.name], images, left_out


def _split(layout: Layout, *, seed: int, ways: int, split_by_group: bool) -> dict[str, Folders]:
    """Class folders of `train`, `val` and `test`; a layout may have all of them, all but `val`, or none."""
    how = {"source": layout.source, "seed": seed, "ways": ways, "split_by_group": split_by_group}
    given = layout.splits
    for split, classes in given.items():
        check_ways(f"{layout.source}, split {split}: has {len(classes)} class folders", len(classes), ways)
    if "val" in given:
        return given
    folders = given["train"] if given else layout.classes
    chosen = (hold_out_validation if given else split_classes)(list(folders), **how)
    return {split: {name: folders[name] for name in names} for split, names in chosen.items()} | (
        {"test": given["test"]} if given else {}
    )


def check_ways(found: str, classes: int, ways: int) -> None:
    """Raises `InputError` where a split, described by `found`, has too few classes."""
    if classes < ways:
        raise InputError(f"{found}; {ways} are needed for {ways} ways")


def _describe_unreadable(source: Path, unreadable: dict[Path, str], total: int) -> str:
    named = ", ".join(f"{_short_path(file)} ({why})" for file, why in list(unreadable.items())[:EXAMPLES])
    more = ", ..." if len(unreadable) > EXAMPLES else ""
    convert = "convert HEIC to JPEG (magick mogrify -format jpg *.heic), " if HEIC in unreadable.values() else ""
    return (
        f"{source}: {len(unreadable)} of {total} files cannot be read: {named}{more}; {convert}mend or remove them"
    )


def _short_path(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
