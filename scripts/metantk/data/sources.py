"""From the `source` of a data set to its splits: which reader a folder needs, or what is missing from it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from metantk.data import (
    caps,
    cifar,
    folder,
    image_files,
    layouts,
    omniglot,
    published_splits,
    ren,
    rfs,
    split_lists,
    torchvision_sets,
)
from metantk.data.class_splits import split_classes
from metantk.data.glyphs import make_glyphs
from metantk.data.published import PUBLISHED, check_counts
from metantk.data.store import SPLITS, Source, SplitStream, stream_split
from metantk.options.dataset import FETCHED_SOURCES, TORCHVISION, DatasetOptions
from metantk.runtime.files import InputError

# Of sources whose images have no size of their own, in pixels.
GLYPHS_SIZE, OMNIGLOT_SIZE = 28, 28
IMAGES_OF_GLYPHS, CLASSES_OF_GLYPHS, MOST_GLYPHS = 60, 100, 2 * 10**9  # of each class; of all; bytes

GLYPHS_LICENCE = (
    "images: CC0; fonts: DejaVu (Bitstream Vera licence), STIX (SIL OFL), Computer Modern (Knuth/BaKoMa)"
)
OMNIGLOT_LICENCE = "Omniglot (Lake et al., 2015): MIT licence"
FOLDER_LICENCE = "unknown: the images are yours"

Paths = dict[str, Path]


NO_WARNINGS: list[str] = []
NO_SPELLINGS: dict[str, tuple[str, ...]] = {}


class Form(NamedTuple):
    """A form in which a published data set circulates.

    Attributes:
        title: for messages.
        datasets: which it may be, keys of `PUBLISHED`; the counts of classes decide.
        patterns: names of the files of a part; `{part}` stands for train, val and test. The first is what the
            form is recognised by.
        read: from the paths of each pattern by part, and the size of the images, to the splits.
        spellings: other names of parts in file names.
    """

    title: str
    datasets: tuple[str, ...]
    patterns: tuple[str, ...]
    read: Callable[..., dict[str, SplitStream]]
    spellings: dict[str, tuple[str, ...]] = NO_SPELLINGS


FORMS = (
    Form(
        "RFS's miniImageNet",
        ("mini-imagenet",),
        ("miniImageNet_category_split_{part}.pickle",),
        rfs.read_pickles,
        {"train": ("train_phase_train",)},
    ),
    Form(
        "Ren et al.'s miniImageNet",
        ("mini-imagenet",),
        ("mini-imagenet-cache-{part}.pkl",),
        ren.read_caches,
        {"val": ("val", "validation")},
    ),
    Form(
        "RFS's tieredImageNet", ("tiered-imagenet",), ("{part}_images.npz", "{part}_labels.pkl"), rfs.read_archives
    ),
    Form(
        "Ren et al.'s tieredImageNet",
        ("tiered-imagenet",),
        ("{part}_images_png.pkl", "{part}_labels.pkl"),
        ren.read_png_lists,
    ),
    Form("MetaOptNet's CIFAR-FS", ("cifar-fs",), ("CIFAR_FS_{part}.pickle",), rfs.read_pickles),
    Form("MetaOptNet's FC100", ("fc100",), ("FC100_{part}.pickle",), rfs.read_pickles),
    Form("RFS's CIFAR-FS or FC100", ("cifar-fs", "fc100"), ("{part}.pickle",), rfs.read_pickles),
)
LISTS = "{part}.csv"


def open_source(options: DatasetOptions) -> Source:
    """The splits of a source, checked against what is published of it; images are not read yet.

    Raises:
        InputError: the source is missing, incomplete, damaged or not what is published.
    """
    if options.source == "glyphs":
        return _open_glyphs(options)
    if options.source in ("cifar-fs", "fc100"):
        splits, files = cifar.read_cifar(options.source, Path(options.download_folder), options.image_size)
        return _published(options.source, splits, files, options)
    if options.source == "omniglot":
        return _open_omniglot(options)
    if options.source in FETCHED_SOURCES:
        return _open_torchvision(options)
    return _open_folder(Path(options.source), options)


def fetch_source(options: DatasetOptions) -> list[Path]:
    """Download what a fetched source lacks; the files or folders that hold it.

    Raises:
        InputError: it is missing and cannot be fetched, or the source is none that is fetched.
    """
    if options.source not in FETCHED_SOURCES:
        raise InputError(f"{options.source}: is not fetched; {', '.join(FETCHED_SOURCES)} are")
    folder = Path(options.download_folder)
    if options.source.startswith(TORCHVISION):
        return torchvision_sets.fetch(options.source.removeprefix(TORCHVISION), folder)
    reader = omniglot if options.source == "omniglot" else cifar
    return reader.fetch(folder)


def _open_glyphs(options: DatasetOptions) -> Source:
    """Drawn in memory: no more than fits into it."""
    image_size = options.image_size or GLYPHS_SIZE
    each = options.images_per_class or IMAGES_OF_GLYPHS
    needed = CLASSES_OF_GLYPHS * each * image_size**2 * 3
    if needed > MOST_GLYPHS:
        raise InputError(
            f"glyphs: {each} images of {image_size} pixels per class take"
            f" {needed / 1e9:.0f} GB of memory, {MOST_GLYPHS / 1e9:.0f} are the most: ask for fewer or smaller ones"
        )
    splits = make_glyphs(image_size=image_size, images_per_class=each, seed=options.seed)
    streams = {part: stream_split(split) for part, split in splits.items()}
    return Source(streams, GLYPHS_LICENCE, files=[], warnings=[], is_published=False)


def _open_omniglot(options: DatasetOptions) -> Source:
    splits, files = omniglot.read_omniglot(
        Path(options.download_folder), image_size=options.image_size or OMNIGLOT_SIZE, rotations=options.rotations
    )
    splits = caps.cap_streams(splits, options.images_per_class, options.seed)
    return Source(splits, OMNIGLOT_LICENCE, files, warnings=[], is_published=False)


def _open_torchvision(options: DatasetOptions) -> Source:
    name = options.source.removeprefix(TORCHVISION)
    own = Path(options.download_folder)
    classes = torchvision_sets.find_classes(name, own)
    published = published_splits.META_DATASET.get(name) if options.published_split else None
    if published:
        chosen = published_splits.split(list(classes), published, source=options.source)
    else:
        chosen = split_classes(
            list(classes), source=options.source, seed=options.seed, ways=options.ways, split_by_group=False
        )
    parts = {part: {label: classes[label] for label in labels} for part, labels in chosen.items()}
    licence = torchvision_sets.LICENCES.get(name, torchvision_sets.UNKNOWN_LICENCE)
    return _from_files(own, parts, options, licence=f"{name}: {licence}")


def _open_folder(source: Path, options: DatasetOptions) -> Source:
    if not source.exists():
        raise InputError(f"{source}: is not there; {_expectations(source)}")
    found = [(form, paths) for form in FORMS if (paths := _find(form, source)) is not None]
    if len(found) > 1:
        titles = " and ".join(form.title for form, _ in found)
        raise InputError(f"{source}: holds the files of {titles}; keep one of them in a folder of its own")
    if found:
        form, paths = found[0]
        splits = form.read(*paths, options.image_size)
        files = [path for by_part in paths for path in by_part.values()]
        return _published(_decide(form, splits), splits, files, options)
    lists = {part: source / LISTS.format(part=part) for part in SPLITS}
    there = {part: path for part, path in lists.items() if path.is_file()}
    if len(there) < len(lists):
        if there and not split_lists.are_other_tables(there):
            missing = " and ".join(path.name for part, path in lists.items() if part not in there)
            raise InputError(f"{source}: has {' and '.join(p.name for p in there.values())}, but no {missing}")
        return _open_images(source, options)
    if split_lists.are_other_tables(lists) and _has_classes(source):
        return _open_images(
            source,
            options,
            [
                f"{', '.join(LISTS.format(part=part) for part in SPLITS)}: passed over, "
                "for want of the columns 'filename' and 'label'"
            ],
        )
    return _open_lists(source, lists, options)


def _has_classes(source: Path) -> bool:
    """Whether there are class folders besides one in which the images of a list may lie."""
    try:
        return len(layouts.find_layout(source).every_folder()) > 1
    except layouts.NoClassesError:
        return False


def _find(form: Form, source: Path) -> list[Paths] | None:
    """The files of a form by pattern and part; nothing where none of its own is there.

    Raises:
        InputError: some of them are missing.
    """
    found = [{part: _spelled(form, pattern, part, source) for part in SPLITS} for pattern in form.patterns]
    if not any(path.is_file() for path in found[0].values()):
        return None
    missing = [path.name for paths in found for path in paths.values() if not path.is_file()]
    if missing:
        get = PUBLISHED[form.datasets[0]].get
        raise InputError(f"{source}: of {form.title}, {', '.join(missing)} are missing; {get}")
    return found


def _spelled(form: Form, pattern: str, part: str, source: Path) -> Path:
    paths = [source / pattern.format(part=name) for name in form.spellings.get(part, (part,))]
    return next((path for path in paths if path.is_file()), paths[0])


def _decide(form: Form, splits: dict[str, SplitStream]) -> str:
    """Which of a form's data sets this is, by its number of training classes."""
    classes = len(splits["train"].class_names)
    fitting = [name for name in form.datasets if PUBLISHED[name].classes["train"] == classes]
    return fitting[0] if fitting else form.datasets[0]


def _published(name: str, splits: dict[str, SplitStream], files: list[Path], options: DatasetOptions) -> Source:
    warnings = check_counts(name, splits, source=options.source)
    most = options.images_per_class
    is_whole = not warnings and most is None
    capped = caps.cap_streams(splits, most, options.seed)
    return Source(capped, PUBLISHED[name].licence, files, warnings, is_published=is_whole)


def _open_lists(source: Path, lists: Paths, options: DatasetOptions) -> Source:
    """A split by lists: miniImageNet where it has its number of classes, by their WordNet ids; else one's own."""
    parts, left_out = split_lists.find_listed_images(lists), []
    if options.skip_unreadable:
        parts, left_out = folder.skip_unreadable(parts, image_size=options.image_size or folder.SIZE)
    folder.check_files(source, parts)
    opened = _from_files(source, parts, options, licence=FOLDER_LICENCE)
    opened = opened._replace(warnings=left_out + opened.warnings)
    mini, counts = PUBLISHED["mini-imagenet"], {part: len(classes) for part, classes in parts.items()}
    are_wordnet_ids = all(layouts.WORDNET_ID.fullmatch(name) for classes in parts.values() for name in classes)
    files = [*lists.values(), *opened.files]
    if are_wordnet_ids and counts == mini.classes:
        uncapped = folder.stream_images(source, parts, image_size=options.image_size or folder.SIZE)
        published = _published("mini-imagenet", uncapped, files, options)
        return published._replace(splits=opened.splits, warnings=left_out + published.warnings)
    for part, classes in parts.items():
        folder.check_ways(f"{lists[part]}: lists {len(classes)} classes", len(classes), options.ways)
    if are_wordnet_ids:
        found, expected = ("/".join(map(str, classes.values())) for classes in (counts, mini.classes))
        opened.warnings.append(
            f"the lists have {found} classes, miniImageNet {expected}: taken as another data set"
        )
    return opened._replace(files=files)


def _open_images(source: Path, options: DatasetOptions, warnings: list[str] = NO_WARNINGS) -> Source:
    try:
        parts = folder.find_images(
            source, seed=options.seed, ways=options.ways, split_by_group=options.split_by_group
        )
    except layouts.NoClassesError as error:
        raise InputError(f"{error}; {_expectations(source)}") from None
    folders = {file.parent for file in _files(parts)}
    warnings = [*warnings, *layouts.describe_passed_over(source, folders)]
    if options.skip_unreadable:
        parts, left_out = folder.skip_unreadable(parts, image_size=options.image_size or folder.SIZE)
        warnings += left_out
    folder.check_files(source, parts)
    opened = _from_files(source, parts, options, licence=FOLDER_LICENCE)
    return opened._replace(warnings=warnings + opened.warnings)


def _from_files(source: Path, parts: dict[str, folder.Classes], options: DatasetOptions, *, licence: str) -> Source:
    """Files of images by split and class."""
    parts = caps.cap_files(parts, options.images_per_class, options.seed)
    bits = image_files.used_bits(_files(parts))
    splits = folder.stream_images(source, parts, image_size=options.image_size or folder.SIZE, bits=bits)
    warnings = image_files.describe_bits(bits)
    return Source(splits, licence, _files(parts), warnings, is_published=False, bits=bits)


def _files(parts: dict[str, folder.Classes]) -> list[Path]:
    return [file for classes in parts.values() for files in classes.values() for file in files]


def _expectations(source: Path) -> str:
    """What a source may hold; of a published data set that the path seems to name, files and where to get them."""
    name = "".join(character for character in source.name.lower() if character.isalnum())
    for key, published in PUBLISHED.items():
        if key.split("-")[0] in name or published.title.lower().replace("-", "") in name:
            forms = [form for form in FORMS if key in form.datasets]
            files = ", or ".join(" and ".join(_show(form, pattern) for pattern in form.patterns) for form in forms)
            return f"expected {published.title} as {files}, or class folders; {published.get}"
    return "expected a folder per class, train/, val/ and test/ with one each, or the files of a published data set"


def _show(form: Form, pattern: str) -> str:
    names = ",".join(form.spellings.get(part, (part,))[0] for part in SPLITS)
    return pattern.replace("{part}", f"{{{names}}}")
