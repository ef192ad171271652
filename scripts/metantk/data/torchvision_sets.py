"""Classification sets that torchvision downloads: its addresses, its checksums, its way of reading labels.

A set's own training and test images are put together: few-shot learning splits classes, not images.
"""

import http.client
from pathlib import Path
from typing import NamedTuple

from metantk.data import downloads
from metantk.data.folder import Classes
from metantk.runtime.files import InputError

UNKNOWN_LICENCE = "torchvision names no licence; ask the makers of the set"
LICENCES = {"Caltech101": "CC BY 4.0", "EuroSAT": "MIT", "OxfordIIITPet": "CC BY-SA 4.0"}


class NamedSet(NamedTuple):
    """A set as torchvision has it.

    Attributes:
        splits: of its own, all of which are read; none where it has no splits.
        place: what to place without a network, below the download folder.
    """

    splits: tuple[str, ...]
    place: str


SETS = {
    "Caltech101": NamedSet((), "caltech101/101_ObjectCategories/CLASS/image_0001.jpg ..."),
    "Caltech256": NamedSet((), "caltech256/256_ObjectCategories/001.CLASS/001_0001.jpg ..."),
    "Country211": NamedSet(("train", "valid", "test"), "country211.tgz"),
    "DTD": NamedSet(("train", "val", "test"), "dtd/dtd-r1.0.1.tar.gz"),
    "EuroSAT": NamedSet((), "eurosat/EuroSAT.zip"),
    "FGVCAircraft": NamedSet(("trainval", "test"), "fgvc-aircraft-2013b.tar.gz"),
    "Flowers102": NamedSet(("train", "val", "test"), "flowers-102/{102flowers.tgz,imagelabels.mat,setid.mat}"),
    "Food101": NamedSet(("train", "test"), "food-101.tar.gz"),
    "GTSRB": NamedSet(
        ("train", "test"),
        "gtsrb/{GTSRB-Training_fixed.zip,GTSRB_Final_Test_Images.zip,GTSRB_Final_Test_GT.zip}",
    ),
    "OxfordIIITPet": NamedSet(("trainval", "test"), "oxford-iiit-pet/{images.tar.gz,annotations.tar.gz}"),
    "StanfordCars": NamedSet(
        ("train", "test"),
        "stanford_cars/{cars_train,cars_test,devkit,cars_test_annos_withlabels.mat}, unpacked",
    ),
    "SUN397": NamedSet((), "SUN397.tar.gz"),
}


def fetch(name: str, folder: Path) -> list[Path]:
    """Have torchvision download and unpack a set where it is missing; the download folder.

    Raises:
        InputError: it is not there and cannot be fetched; the message says what to place where.
    """
    _open(name, folder)
    return [folder]


def find_classes(name: str, folder: Path) -> Classes:
    """The files of each class, by name, all splits of the set together; classes and files in order of name.

    Raises:
        InputError: the set is not there and cannot be fetched, or has no images.
    """
    classes: Classes = {}
    for dataset in _open(name, folder):
        for file, label in _listed(dataset):
            classes.setdefault(label, []).append(file)
    if not classes:
        raise InputError(f"torchvision:{name}: no images in {folder}; remove what is there of it, and start again")
    return {label: sorted(set(classes[label])) for label in sorted(classes)}


def _open(name: str, folder: Path) -> list:
    """torchvision's objects of a set, by its splits; what is missing is downloaded, by one process at a time."""
    # Imported here: it takes seconds, and most sources do without.
    from torchvision import datasets

    kind, own = getattr(datasets, name), SETS[name]
    each = [{"split": split} for split in own.splits] or [{}]
    try:
        return [kind(folder, download=False, **options) for options in each]
    except Exception:  # of any kind: torchvision reads what is there without asking whether it is whole
        pass
    with downloads.alone(folder / f".{name}.lock"):
        try:
            return [kind(folder, download=True, **options) for options in each]
        except (OSError, RuntimeError, ValueError, KeyError, http.client.HTTPException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(
                f"torchvision:{name}: is not there or not whole, and cannot be fetched ({reason}); place "
                f"{own.place} in {folder}; the next start unpacks what is packed"
            ) from None


def _listed(dataset) -> list[tuple[Path, str]]:
    """File and class of each image. torchvision keeps them under several names."""
    kind = type(dataset).__name__
    if kind in ("Caltech101", "Caltech256"):
        return _of_caltech(dataset, kind)
    if hasattr(dataset, "_samples"):  # GTSRB, StanfordCars
        pairs = dataset._samples
    elif hasattr(dataset, "samples"):  # folders
        pairs = dataset.samples
    else:
        files = dataset._images if hasattr(dataset, "_images") else dataset._image_files
        pairs = list(zip(files, dataset._labels, strict=True))
    return [(Path(file), _name(dataset, kind, label)) for file, label in pairs]


def _name(dataset, kind: str, label: int) -> str:
    if kind == "GTSRB":  # has no names
        return f"{label:02d}"
    if kind == "Flowers102":  # a name may differ between lists, its number does not
        return f"{label + 1:03d} {dataset.classes[label]}"
    return dataset.classes[label]


def _of_caltech(dataset, kind: str) -> list[tuple[Path, str]]:
    folder = Path(dataset.root, {"Caltech101": "101_ObjectCategories", "Caltech256": "256_ObjectCategories"}[kind])
    return [
        (file, name)
        for name in dataset.categories
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() == ".jpg"
    ]
