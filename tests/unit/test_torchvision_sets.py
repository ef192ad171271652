"""Sets of torchvision: small trees as its archives unpack, read by its own classes."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from metantk.data import published_splits, torchvision_sets
from metantk.data.sources import fetch_source, open_source
from metantk.data.store import check_splits
from metantk.options.base import parse
from metantk.options.dataset import TORCHVISION_SETS, DatasetOptions
from metantk.runtime.files import InputError


def image(path, index=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(index).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def caltech101(root):
    for name in ("accordion", "BACKGROUND_Google", "yin_yang"):
        for index in (1, 2):
            image(root / "caltech101/101_ObjectCategories" / name / f"image_{index:04d}.jpg")
    return {"accordion": 2, "yin_yang": 2}  # torchvision leaves out the background


def caltech256(root):
    for index, name in enumerate(("ak47", "bat"), start=1):
        image(root / f"caltech256/256_ObjectCategories/{index:03d}.{name}/{index:03d}_0001.jpg")
    return {"001.ak47": 1, "002.bat": 1}


def country211(root):
    for split in ("train", "valid", "test"):
        for name in ("AD", "ZW"):
            image(root / "country211" / split / name / f"{split}.jpg")
    return {"AD": 3, "ZW": 3}


def dtd(root):
    for split in ("train", "val", "test"):
        names = [f"{name}/{name}_{split}.jpg" for name in ("banded", "zigzagged")]
        text(root / f"dtd/dtd/labels/{split}1.txt", *names)
        for name in names:
            image(root / "dtd/dtd/images" / name)
    return {"banded": 3, "zigzagged": 3}


def eurosat(root):
    for name in ("Forest", "River"):
        image(root / "eurosat/2750" / name / f"{name}_1.jpg")
    return {"Forest": 1, "River": 1}


def aircraft(root):
    data = root / "fgvc-aircraft-2013b/data"
    text(data / "variants.txt", "707-320", "F-16A/B")
    text(data / "images_variant_trainval.txt", "0000001 707-320", "0000002 F-16A/B")
    text(data / "images_variant_test.txt", "0000003 707-320")
    for index in (1, 2, 3):
        image(data / "images" / f"{index:07d}.jpg")
    return {"707-320": 2, "F-16A/B": 1}


def flowers(root):
    """All 102 classes, two images each, in three splits."""
    base = root / "flowers-102"
    labels = np.repeat(np.arange(1, 103), 2)
    for index in range(1, 205):
        image(base / "jpg" / f"image_{index:05d}.jpg", index)
    savemat(base / "imagelabels.mat", {"labels": labels[None]})
    indices = np.arange(1, 205)
    savemat(base / "setid.mat", {"trnid": indices[:2], "valid": indices[2:4], "tstid": indices[4:]})
    return {f"{k:03d} {name}": 2 for k, name in enumerate(datasets.Flowers102.classes, start=1)}


def food(root):
    for split in ("train", "test"):
        named = {name: [f"{name}/{split}"] for name in ("apple_pie", "waffles")}
        text(root / f"food-101/meta/{split}.json", json.dumps(named))
        for name in named:
            image(root / "food-101/images" / name / f"{split}.jpg")
    return {"apple_pie": 2, "waffles": 2}


def gtsrb(root):
    base = root / "gtsrb"
    for index in (0, 14):
        image(base / f"GTSRB/Training/{index:05d}/00000_00000.ppm")
    image(base / "GTSRB/Final_Test/Images/00000.ppm")
    text(base / "GT-final_test.csv", "Filename;Width;ClassId", "00000.ppm;10;1")
    return {"00": 1, "01": 2}  # torchvision numbers the training folders in their order


def pets(root):
    base = root / "oxford-iiit-pet"
    text(base / "annotations/trainval.txt", "Abyssinian_1 1 1 1", "yorkshire_terrier_1 2 2 25")
    text(base / "annotations/test.txt", "Abyssinian_2 1 1 1", "yorkshire_terrier_2 2 2 25")
    for name in ("Abyssinian_1", "Abyssinian_2", "yorkshire_terrier_1", "yorkshire_terrier_2"):
        image(base / "images" / f"{name}.jpg")
    return {"Abyssinian": 2, "Yorkshire Terrier": 2}


def cars(root):
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Audi R8"], object)})
    for part, path in (
        ("train", "devkit/cars_train_annos.mat"),
        ("test", "cars_test_annos_withlabels.mat"),
    ):
        annotations = np.array([("00001.jpg", 1), ("00002.jpg", 2)], dtype=[("fname", object), ("class", object)])
        savemat(base / path, {"annotations": annotations})
        for index in (1, 2):
            image(base / f"cars_{part}" / f"{index:05d}.jpg")
    return {"AM General Hummer": 2, "Audi R8": 2}


def sun(root):
    text(root / "SUN397/ClassName.txt", "/a/abbey", "/a/apse/indoor")
    image(root / "SUN397/a/abbey/sun_1.jpg")
    image(root / "SUN397/a/apse/indoor/sun_2.jpg")
    return {"abbey": 1, "apse/indoor": 1}


TREES = {
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "Country211": country211,
    "DTD": dtd,
    "EuroSAT": eurosat,
    "FGVCAircraft": aircraft,
    "Flowers102": flowers,
    "Food101": food,
    "GTSRB": gtsrb,
    "OxfordIIITPet": pets,
    "StanfordCars": cars,
    "SUN397": sun,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def accept_flowers(monkeypatch, root):
    """The checksums of our own small files of labels in the place of the real ones."""
    files = {}
    for key, (name, checksum) in datasets.Flowers102._file_dict.items():
        path = root / "flowers-102" / name
        files[key] = name, hashlib.md5(path.read_bytes()).hexdigest() if path.exists() else checksum
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)


def test_every_set_has_a_tree():
    assert list(TREES) == list(TORCHVISION_SETS) == list(torchvision_sets.SETS)


@pytest.mark.parametrize("name", TREES)
def test_classes_are_torchvisions_all_splits_together(tmp_path, monkeypatch, name):
    expected = TREES[name](tmp_path)
    if name == "Flowers102":
        accept_flowers(monkeypatch, tmp_path)
    classes = torchvision_sets.find_classes(name, tmp_path)
    assert {label: len(files) for label, files in classes.items()} == expected
    assert all(file.is_file() for files in classes.values() for file in files)


@pytest.mark.parametrize("name", ["Caltech101", "Flowers102", "FGVCAircraft"])
def test_what_is_missing_is_named_in_one_line(tmp_path, name):
    options = parse(
        DatasetOptions, {"source": f"torchvision:{name}", "download_folder": str(tmp_path)}, where="test"
    )
    for ask in (fetch_source, open_source):
        with pytest.raises(
            InputError, match=f"torchvision:{name}: .* cannot be fetched .*; place .* in "
        ) as caught:
            ask(options)
        assert "\n" not in str(caught.value)
        assert torchvision_sets.SETS[name].place in str(caught.value)


def test_the_published_split(tmp_path, monkeypatch):
    flowers(tmp_path)
    accept_flowers(monkeypatch, tmp_path)
    values = {"source": "torchvision:Flowers102", "download_folder": str(tmp_path), "image_size": 8}
    source = open_source(parse(DatasetOptions, values, where="test"))
    check_splits(source.splits, source="flowers")
    sizes = {part: len(stream.class_names) for part, stream in source.splits.items()}
    assert sizes == {"train": 71, "val": 15, "test": 16}  # Meta-Dataset's
    assert source.splits["test"].class_names[0] == "005 english marigold"
    assert source.licence.startswith("Flowers102: torchvision names no licence")
    by_seed = open_source(parse(DatasetOptions, values | {"published_split": False}, where="test"))
    assert Counter(len(stream.class_names) for stream in by_seed.splits.values()) == Counter([66, 16, 20])
    other = open_source(parse(DatasetOptions, values | {"published_split": False, "seed": 1}, where="test"))
    assert other.splits["test"].class_names != by_seed.splits["test"].class_names


def test_published_lists_are_whole():
    counts = {"DTD": (47, 7, 7), "FGVCAircraft": (100, 15, 15), "Flowers102": (102, 15, 16)}
    assert published_splits.META_DATASET.keys() == counts.keys()
    for name, (_, val, test) in counts.items():
        listed = published_splits.META_DATASET[name]
        assert (len(set(listed["val"])), len(set(listed["test"]))) == (val, test)
        assert not set(listed["val"]) & set(listed["test"])
    with pytest.raises(InputError, match="has no class 'gauzy'"):
        published_splits.split(["banded"], published_splits.META_DATASET["DTD"], source="torchvision:DTD")


def test_other_names_are_refused():
    with pytest.raises(InputError, match=r"torchvision:Flowers: there are torchvision:Caltech101, .*SUN397"):
        parse(DatasetOptions, {"source": "torchvision:Flowers"}, where="datasets.mine")
