"""Every form in which the published data sets circulate: small files true to the form, and damaged ones."""

import hashlib
import io
import json
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR100, Omniglot

from metantk.data import cifar, omniglot, published
from metantk.data.sources import open_source
from metantk.data.store import SPLITS, gather, write_dataset
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError

SIDE = 12
CLASSES = {"train": 4, "val": 2, "test": 3}
PER_CLASS = 3
NAMES = ("mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100")


@pytest.fixture(autouse=True)
def _small_data_sets(monkeypatch):
    """The published counts, made small; all else is checked as ever."""
    images = {part: PER_CLASS * count for part, count in CLASSES.items()}
    for name in NAMES:
        # FC100 has another number of training classes than CIFAR-FS: that tells them apart.
        classes = CLASSES | ({"train": 5} if name == "fc100" else {})
        counts = images | {"train": PER_CLASS * classes["train"]}
        small = published.PUBLISHED[name]._replace(classes=classes, images=counts)
        small = small._replace(per_class=PER_CLASS if small.per_class else None)
        monkeypatch.setitem(published.PUBLISHED, name, small)


def make_images(part: str, classes: int, side: int = SIDE) -> np.ndarray:
    """uint8 `(images, side, side, 3)`, other ones in each part."""
    rng = np.random.default_rng([SPLITS.index(part), classes])
    return rng.integers(0, 256, (classes * PER_CLASS, side, side, 3), dtype=np.uint8)


def make_labels(part: str, classes: dict[str, int] = CLASSES) -> list[int]:
    """Labels in a mixed order, numbered through all parts as in the files of RFS."""
    first = {"train": 0, "val": classes["train"], "test": classes["train"] + classes["val"]}[part]
    return [first + index % classes[part] for index in range(classes[part] * PER_CLASS)]


def python_2(value: object) -> bytes:
    """What Python 2's cPickle writes with protocol 2: text and the bytes of arrays are strings."""
    return b"\x80\x02" + _python_2(value) + b"."


def _python_2(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_python_2(key) + _python_2(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python_2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        return _python_2_array(value)
    data = value.encode("latin-1") if isinstance(value, str) else value
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _python_2_array(array: np.ndarray) -> bytes:
    order, item = array.dtype.str[0].encode(), array.dtype.str[1:].encode()
    shape = b"(" + b"".join(map(_python_2, array.shape)) + b"t"
    dtype = b"cnumpy\ndtype\nU" + bytes([len(item)]) + item + b"K\x00K\x01\x87R(K\x03U\x01" + order
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + dtype + b"\x89" + _python_2(array.tobytes()) + b"tb"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state


def write(folder, name, content: bytes):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def make_rfs_mini(folder, **changes):
    for part in SPLITS:
        value = {"data": make_images(part, CLASSES[part]), "labels": make_labels(part)}
        value["catname2label"] = {f"n{label:08d}": label for label in sorted(set(value["labels"]))}
        name = "train_phase_train" if part == "train" else part
        write(folder, f"miniImageNet_category_split_{name}.pickle", python_2(value | changes))


def make_pickles(folder, pattern, classes=CLASSES):
    for part in SPLITS:
        value = {"data": make_images(part, classes[part]), "labels": make_labels(part, classes)}
        write(folder, pattern.format(part), python_2(value))


def make_cifar_fs(folder):
    make_pickles(folder, "CIFAR_FS_{}.pickle")


def make_fc100(folder):
    make_pickles(folder, "FC100_{}.pickle", CLASSES | {"train": 5})


def make_rfs_cifar(folder):
    make_pickles(folder, "{}.pickle", CLASSES | {"train": 5})


def make_rfs_tiered(folder, *, compressed=False):
    for part in SPLITS:
        folder.mkdir(exist_ok=True)
        save = np.savez_compressed if compressed else np.savez
        # As OpenCV decodes: blue first.
        save(folder / f"{part}_images.npz", images=make_images(part, CLASSES[part])[..., ::-1])
        write(folder, f"{part}_labels.pkl", pickle.dumps({"labels": np.array(make_labels(part))}, 2))


def make_ren_mini(folder, *, val="val"):
    for part in SPLITS:
        labels = make_labels(part)
        members = {
            f"n{label:08d}": [index for index, other in enumerate(labels) if other == label]
            for label in set(labels)
        }
        value = {"image_data": make_images(part, CLASSES[part]), "class_dict": members}
        write(folder, f"mini-imagenet-cache-{val if part == 'val' else part}.pkl", python_2(value))


def png(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def make_ren_tiered(folder):
    for part in SPLITS:
        labels = np.array(make_labels(part)) - min(make_labels(part))
        names = [f"{part} {index}" for index in range(CLASSES[part])]
        value = {"label_specific": labels, "label_specific_str": names, "label_general": labels // 2}
        files = [png(image)[:, None] for image in make_images(part, CLASSES[part])]
        write(folder, f"{part}_images_png.pkl", python_2(files))
        write(folder, f"{part}_labels.pkl", python_2(value))


def make_lists(folder, place="images"):
    for part in SPLITS:
        rows = ["filename,label"]
        for index, label in enumerate(make_labels(part)):
            name = f"n{label:08d}{index:08d}.png"
            rows.append(f"{name},n{label:08d}")
            (folder / place.format(label=f"n{label:08d}")).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(make_images(part, CLASSES[part])[index])
            image.save(folder / place.format(label=f"n{label:08d}") / name)
        (folder / f"{part}.csv").write_text("\n".join(rows) + "\n")


FORMS = {
    "RFS miniImageNet": make_rfs_mini,
    "CIFAR-FS": make_cifar_fs,
    "FC100": make_fc100,
    "RFS FC100": make_rfs_cifar,
    "RFS tieredImageNet": make_rfs_tiered,
    "RFS tieredImageNet, compressed": lambda folder: make_rfs_tiered(folder, compressed=True),
    "Ren miniImageNet": make_ren_mini,
    "Ren miniImageNet, validation": lambda folder: make_ren_mini(folder, val="validation"),
    "Ren tieredImageNet": make_ren_tiered,
    "lists": make_lists,
    "lists, class folders": lambda folder: make_lists(folder, "{label}"),
}


def options(folder, **changes) -> DatasetOptions:
    return DatasetOptions(source=str(folder), **changes)


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_and_read(source, form):
    FORMS[form](source)
    size = {"image_size": SIDE} if form.startswith("lists") else {}
    opened = open_source(options(source, **size))
    names = [name for split in opened.splits.values() for name in split.class_names]
    assert len(names) == len(set(names))
    assert opened.is_published
    assert opened.warnings == []
    for part, stream in opened.splits.items():
        split = gather(stream)
        classes = len(split.class_names)
        images, labels = make_images(part, classes), make_labels(part, CLASSES | {part: classes})
        labels = np.array(labels) - min(labels)
        if form.startswith("lists"):  # class by class
            images, labels = images[np.argsort(labels, kind="stable")], np.sort(labels)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_comes_in_small_blocks_and_again_the_same(source, form, monkeypatch):
    FORMS[form](source)
    stream = open_source(options(source, image_size=SIDE)).splits["train"]
    whole = gather(stream).images
    monkeypatch.setattr("metantk.data.store.BLOCK_BYTES", 2 * SIDE * SIDE * 3)
    blocks = list(stream.blocks())
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert all(len(block) <= 2 for block in blocks)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("RFS miniImageNet", ["n00000004", "n00000005"]),
        ("Ren miniImageNet", ["n00000004", "n00000005"]),
        ("lists", ["n00000004", "n00000005"]),
        ("Ren tieredImageNet", ["val 0", "val 1"]),
        ("RFS tieredImageNet", ["val class 4", "val class 5"]),
        ("CIFAR-FS", ["val class 4", "val class 5"]),
    ],
)
def test_class_names_are_those_of_the_files(source, form, expected):
    FORMS[form](source)
    assert open_source(options(source)).splits["val"].class_names == expected


def test_both_forms_of_tiered_imagenet_have_the_same_colours(tmp_path):
    make_rfs_tiered(tmp_path / "rfs")
    make_ren_tiered(tmp_path / "ren")
    rfs, ren = (gather(open_source(options(tmp_path / name)).splits["test"]) for name in ("rfs", "ren"))
    np.testing.assert_array_equal(rfs.images, ren.images)


@pytest.mark.parametrize("form", ["RFS miniImageNet", "RFS tieredImageNet", "Ren tieredImageNet"])
def test_images_are_resized_on_demand(source, form):
    FORMS[form](source)
    stream = open_source(options(source, image_size=8)).splits["train"]
    expected = Image.fromarray(make_images("train", 4)[0]).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(gather(stream).images[0], np.asarray(expected))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_images("val", 2).astype(np.float64), None),
        (make_images("val", 2) / 255, "not whole numbers from 0 to 255"),
        (make_images("val", 2).astype(np.int64) - 1, "not whole numbers from 0 to 255"),
        (make_images("val", 2)[..., 0], r"images are uint8 \(6, 12, 12\); expected"),
        (make_images("val", 2)[1:], "5 images but 6 labels"),
    ],
)
def test_pixels_of_other_types_are_taken_where_they_are_whole_numbers(source, data, message):
    make_rfs_mini(source)
    labels = make_labels("val")
    value = {"data": data, "labels": labels}
    write(source, "miniImageNet_category_split_val.pickle", pickle.dumps(value, 2))
    if message is None:
        np.testing.assert_array_equal(gather(open_source(options(source)).splits["val"]).images, data)
    else:
        with pytest.raises(InputError, match=message):
            gather(open_source(options(source)).splits["val"])


def test_a_missing_part_is_named_and_where_to_get_it(source):
    make_rfs_tiered(source)
    (source / "val_labels.pkl").unlink()
    with pytest.raises(InputError, match=r"of RFS's tieredImageNet, val_labels.pkl are missing; .*md5 e07e811b9f2"):
        open_source(options(source))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "miniImageNet",
            r"miniImageNet as .*_split_\{train_phase_train,val,test\}.pickle, or .*b38f1eb4251fb9",
        ),
        (
            "tiered-imagenet",
            r"tieredImageNet as \{train,val,test\}_images.npz and \{train,val,test\}_labels.pkl, or .*e07e811b9f29",
        ),
        ("cifar_fs", "CIFAR-FS as CIFAR_FS_.*`source: cifar-fs`"),
        ("birds", "a folder per class"),
    ],
)
def test_a_missing_or_empty_source_says_what_is_expected(tmp_path, name, expected):
    with pytest.raises(InputError, match=rf"{name}: is not there; expected {expected}"):
        open_source(options(tmp_path / name))
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{name}: is empty; expected {expected}"):
        open_source(options(tmp_path / name))


def test_two_forms_in_one_folder(source):
    make_rfs_mini(source)
    make_cifar_fs(source)
    with pytest.raises(
        InputError, match="holds the files of RFS's miniImageNet and MetaOptNet's CIFAR-FS; keep one"
    ):
        open_source(options(source))


def test_other_counts_than_the_published_ones(source):
    make_pickles(source, "CIFAR_FS_{}.pickle", CLASSES | {"val": 3})
    with pytest.raises(InputError, match=r"has 4/3/3 classes; CIFAR-FS has 4/2/3 .* get it again"):
        open_source(options(source))


def test_a_class_with_another_number_of_images(source):
    make_rfs_mini(source)
    value = {"data": make_images("test", 3), "labels": [6, 6, 6, 6, 7, 7, 8, 8, 8]}
    write(source, "miniImageNet_category_split_test.pickle", python_2(value))
    with pytest.raises(InputError, match="split test: class 'test class 6' has 4 images, not 3"):
        open_source(options(source))


def test_another_known_subset_is_a_warning(source, monkeypatch):
    counts = {part: PER_CLASS * count for part, count in (CLASSES | {"val": 1}).items()}
    monkeypatch.setitem(published.OTHER_SUBSETS, "mini-imagenet", counts)
    for part in SPLITS:
        classes = CLASSES | {"val": 1}
        value = {"data": make_images(part, classes[part]), "labels": make_labels(part, classes)}
        name = "train_phase_train" if part == "train" else part
        write(source, f"miniImageNet_category_split_{name}.pickle", python_2(value))
    opened = open_source(options(source))
    assert opened.warnings == ["these 12/3/9 images are another data set than the published miniImageNet"]
    assert not opened.is_published


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a dictionary with 'labels'"),
        ({"labels": [0, 1]}, "holds 'labels'; expected a dictionary with 'data'"),
        ({"labels": ["a"], "data": 1}, "labels are no list of whole numbers"),
        ({"labels": [0], "data": "x"}, "images are str; expected uint8"),
        ({"labels": [2**70], "data": 1}, "labels hold numbers beyond 64 bits"),
    ],
)
def test_pickles_that_hold_something_else(source, content, message):
    make_cifar_fs(source)
    write(source, "CIFAR_FS_train.pickle", pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        open_source(options(source))


def npz(array=None, header=None, body=b"", name="images.npy", compressed=False) -> bytes:
    """An archive with an array, or with a header and a body that need not fit."""
    buffer = io.BytesIO()
    content = io.BytesIO()
    if array is None:
        np.lib.format.write_array_header_1_0(content, header)
    else:
        np.save(content, array)
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content.getvalue() + body)
    return buffer.getvalue()


GOOD = make_images("train", 4)
U1 = {"descr": "|u1", "fortran_order": False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Quota exceeded</html>", "is no whole .npz file"),
        (npz(GOOD)[:-200], "is no whole .npz file"),
        (npz(GOOD, name="arr_0.npy"), "holds arr_0.npy; expected 'images'"),
        (npz(GOOD.astype(np.float32)), "images are float32; expected uint8"),
        (npz(header={"descr": "|O", "fortran_order": False, "shape": (12,)}, body=b"x"), "images are object"),
        (npz(header=U1 | {"shape": (12, 10**6, 10**6, 3)}, body=b"abc"), "claim to be .* but have 3 bytes"),
        (npz(GOOD[:5]), r"images are \(5, 12, 12, 3\); train_labels.pkl asks for \(12, height"),
        (npz(np.zeros((12, 999, 999, 3), np.uint8), compressed=True), r"unfolds to \d+ times its size"),
    ],
    ids=["html", "truncated", "name", "float", "object", "huge shape", "count", "bomb"],
)
def test_archives_that_are_not_what_they_should_be(source, content, message):
    make_rfs_tiered(source)
    write(source, "train_images.npz", content)
    with pytest.raises(InputError, match=message) as raised:
        open_source(options(source))
    assert "\n" not in str(raised.value)


def test_a_damaged_archive_is_found_on_the_way(source):
    make_rfs_tiered(source)
    content = bytearray((source / "train_images.npz").read_bytes())
    content[len(content) // 2] ^= 255
    write(source, "train_images.npz", bytes(content))
    with pytest.raises(InputError, match=r"train_images.npz: is damaged \(Bad CRC-32"):
        gather(open_source(options(source)).splits["train"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"no image", "cannot be read .cannot identify image file"),
        (bytes(png(GOOD[0]))[:60], r"cannot be read \("),
        (bytes(png(np.zeros((13, 12, 3), np.uint8))), r"are not all \(12, 12\)"),
    ],
)
def test_a_damaged_image_in_a_list(source, bad, message):
    make_ren_tiered(source)
    files = [png(image) for image in make_images("val", 2)]
    files[4] = np.frombuffer(bad, np.uint8)
    write(source, "val_images_png.pkl", python_2(files))
    with pytest.raises(InputError, match=message):
        gather(open_source(options(source)).splits["val"])


def test_a_image_bomb_in_a_list(source, monkeypatch):
    make_ren_tiered(source)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"image 0 cannot be read \(Image size \(144 pixels\) exceeds limit"):
        open_source(options(source))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("a,b\n1,2\n", "lacks the columns 'filename' and 'label'"),
        ("filename,label\n../../etc/passwd,x\n", "line 2: 'filename' and 'label' must be names"),
        ("filename,label\nabsent.png,x\n", "its first image, 'absent.png', is not there; looked for images/"),
        ("filename,label\nx\n", "line 2"),
    ],
)
def test_damaged_lists(source, text, message):
    make_lists(source)
    (source / "val.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_source(options(source))


def test_images_of_a_list_that_are_missing(source):
    make_lists(source)
    sorted((source / "images").iterdir())[-1].unlink()
    with pytest.raises(InputError, match=r"test.csv: 1 of 9 images are missing, the first is n00000008"):
        open_source(options(source))


def test_published_lists_of_cifar(repository):
    """Ours are those of the fixture."""
    lists = json.loads((repository / "tests" / "fixtures" / "cifar100_splits.json").read_text())
    assert lists["cifar-fs"] == cifar.CIFAR_FS
    assert lists["fc100 (superclasses)"] == cifar.FC100


def make_cifar100(folder, monkeypatch):
    """CIFAR-100 in small: 100 classes with 3 images, 2 in the training and 1 in the test file."""
    own = folder / CIFAR100.base_folder
    own.mkdir(parents=True)
    chosen = [name for part in cifar.CIFAR_FS.values() for name in part]
    fine = sorted(chosen + [f"other{index}" for index in range(100 - len(chosen))])
    listed = [name for part in cifar.FC100.values() for name in part]
    coarse = sorted(listed + [f"group{index}" for index in range(20 - len(listed))])
    files = {"meta": {"fine_label_names": fine, "coarse_label_names": coarse}}
    for name, repeats in (("train", 2), ("test", 1)):
        labels = list(range(100)) * repeats
        data = np.random.default_rng(repeats).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        files[name] = {"data": data, "fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}
    md5s = {}
    for name, value in files.items():
        write(own, name, python_2(value))
        md5s[name] = hashlib.md5((own / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5s["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5s["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5s["meta"]})
    return files


@pytest.mark.parametrize(("name", "classes"), [("cifar-fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_cifar_100_is_split_as_published(tmp_path, monkeypatch, name, classes):
    files = make_cifar100(tmp_path, monkeypatch)
    small = published._equal_classes("t", classes, 3, "", "")
    monkeypatch.setitem(published.PUBLISHED, name, small)
    opened = open_source(DatasetOptions(source=name, download_folder=str(tmp_path)))
    fine = files["meta"]["fine_label_names"]
    for part in SPLITS:
        split = gather(opened.splits[part])
        assert split.class_names == sorted(split.class_names)
        label = fine.index(split.class_names[1])
        expected = [
            files["train"]["data"][label],
            files["train"]["data"][label + 100],
            files["test"]["data"][label],
        ]
        for image, pixels in zip(split.images[split.labels == 1], expected, strict=True):
            np.testing.assert_array_equal(image, pixels.reshape(3, 32, 32).transpose(1, 2, 0))
    if name == "cifar-fs":
        assert opened.splits["val"].class_names == sorted(cifar.CIFAR_FS["val"])
    else:
        groups = {
            files["meta"]["coarse_label_names"][fine.index(name) // 5] for name in opened.splits["test"].class_names
        }
        assert groups == set(cifar.FC100["test"])


@pytest.fixture
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.usefixtures("_no_network")
def test_cifar_100_that_cannot_be_fetched(tmp_path, monkeypatch):
    make_cifar100(tmp_path, monkeypatch)
    (tmp_path / CIFAR100.base_folder / "train").write_bytes(b"damaged")
    with pytest.raises(
        InputError,
        match=r"https://.* cannot be fetched \(no network\); place cifar-100-.* \(md5 eb9058c3a382ff.*unpack",
    ):
        open_source(DatasetOptions(source="cifar-fs", download_folder=str(tmp_path)))


def make_omniglot(folder, monkeypatch):
    """Omniglot in small: 7 + 2 alphabets of 2 characters with 2 drawings each."""
    rng = np.random.default_rng(0)
    for name, alphabets in (("images_background", 7), ("images_evaluation", 2)):
        for alphabet in range(alphabets):
            for character in ("character01", "character02"):
                own = folder / Omniglot.folder / name / f"{name[7:9]}{alphabet}" / character
                own.mkdir(parents=True)
                for index in range(2):
                    drawing = Image.fromarray(rng.integers(0, 2, (105, 105), dtype=np.uint8) * 255).convert("1")
                    drawing.save(own / f"{index}.png")
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 14, "images_evaluation": 4})
    monkeypatch.setattr(omniglot, "DRAWINGS", 2)


@pytest.mark.parametrize("rotations", [False, True])
def test_omniglot_is_split_by_alphabets(tmp_path, monkeypatch, rotations):
    make_omniglot(tmp_path, monkeypatch)
    opened = open_source(DatasetOptions(source="omniglot", download_folder=str(tmp_path), rotations=rotations))
    times = 4 if rotations else 1
    assert [len(opened.splits[part].class_names) for part in SPLITS] == [4 * times, 10 * times, 4 * times]
    assert {name.split("/")[0] for name in opened.splits["train"].class_names} == {"ba0", "ba1"}
    split = gather(opened.splits["test"])
    assert split.images.shape == (8 * times, 28, 28, 3)
    if rotations:
        turned = split.images[split.labels == split.class_names.index("ev0/character02, 90 degrees")]
        upright = split.images[split.labels == split.class_names.index("ev0/character02")]
        np.testing.assert_array_equal(turned, np.rot90(upright, 1, axes=(1, 2)))


@pytest.mark.usefixtures("_no_network")
def test_omniglot_that_cannot_be_fetched_or_is_not_whole(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"images_background.zip \(md5 68d2efa1b9178cc"):
        open_source(DatasetOptions(source="omniglot", download_folder=str(tmp_path)))
    make_omniglot(tmp_path, monkeypatch)
    monkeypatch.setattr(omniglot, "DRAWINGS", 20)
    with pytest.raises(InputError, match=r"images_background: has 14 characters .* 14 with 20 drawings"):
        open_source(DatasetOptions(source="omniglot", download_folder=str(tmp_path)))


def test_a_published_split_that_shares_images_is_refused(source, tmp_path):
    make_rfs_mini(source)
    data = make_images("test", 3)
    data[4] = make_images("train", 4)[0]
    value = {"data": data, "labels": make_labels("test")}
    write(source, "miniImageNet_category_split_test.pickle", python_2(value))
    with pytest.raises(InputError, match=r"1 images stand in train and in test; .*not the published splits"):
        write_dataset(tmp_path / "out" / "data", open_source(options(source)), name="n", source=str(source))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_manifest_holds_the_checksums_of_the_sources(source, tmp_path):
    make_rfs_tiered(source)
    manifest = write_dataset(tmp_path / "data", open_source(options(source)), name="n", source=str(source))
    assert len(manifest["files"]) == 6
    expected = hashlib.sha256((source / "val_labels.pkl").read_bytes()).hexdigest()
    assert manifest["files"]["val_labels.pkl"] == expected
    assert manifest["licence"].startswith("images of ImageNet")


def make_own_lists(folder, *, per_class=4, classes=2, name="{split} {index}", place="{label}/{number}.png"):
    """A split by lists of other classes than miniImageNet's."""
    for split in SPLITS:
        rows = ["filename,label"]
        for index in range(classes):
            label = name.format(split=split, number=SPLITS.index(split), index=index)
            for number in range(per_class):
                file = folder / place.format(label=label, number=number, split=split)
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng([SPLITS.index(split), index, number]).integers(0, 256, (9, 9, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(file)
                rows.append(f"{file.name},{label}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("place", ["{label}/{number}.png", "{split}/{label}/{number}.png"])
def test_lists_of_other_data_sets_are_a_split_of_ones_own(source, place):
    make_own_lists(source, place=place)
    opened = open_source(options(source, ways=2))
    assert [split.class_names for split in opened.splits.values()] == [[f"{s} 0", f"{s} 1"] for s in SPLITS]
    assert not opened.is_published
    assert opened.licence == "unknown: the images are yours"
    assert opened.warnings == []
    with pytest.raises(InputError, match=r"train\.csv: lists 2 classes; 3 are needed for 3 ways"):
        open_source(options(source, ways=3))


def test_unreadable_images_of_lists_can_be_left_out(source):
    make_own_lists(source)
    (source / "train 0" / "1.png").write_bytes(b"no image")
    opened = open_source(options(source, ways=2, skip_unreadable=True))
    assert len(opened.splits["train"].labels) == 7
    assert "left out, cannot be read" in opened.warnings[0]


@pytest.mark.parametrize("label", ["train 0 ", "tr\nain", "\ttrain"])
def test_labels_that_no_table_shows_are_refused(source, label):
    make_own_lists(source)
    path = source / "train.csv"
    rows = path.read_text().replace("train 0\n", f'"{label}"\n', 1)
    path.write_text(rows)
    with pytest.raises(InputError, match=r"train\.csv, line 2: label .* has spaces around it, or a line break"):
        open_source(options(source, ways=2))


def test_lists_of_other_classes_of_imagenet_are_not_silently_miniimagenet(source):
    make_own_lists(source, name="n0000{number}{index:03d}")
    opened = open_source(options(source, ways=2))
    assert opened.warnings == ["the lists have 2/2/2 classes, miniImageNet 4/2/3: taken as another data set"]
    assert not opened.is_published


def test_a_list_that_is_missing_is_named(source):
    make_own_lists(source)
    (source / "train.csv").unlink()
    with pytest.raises(InputError, match=r"has val\.csv and test\.csv, but no train\.csv"):
        open_source(options(source, ways=2))
    for split in ("val", "test"):  # tables of something else, beside class folders
        (source / f"{split}.csv").write_text("id,species\n1,x\n")
    assert sum(len(split.class_names) for split in open_source(options(source, ways=2)).splits.values()) == 6


def test_tables_that_are_no_lists_are_passed_over_beside_class_folders(source):
    make_own_lists(source)
    for split in SPLITS:
        (source / f"{split}.csv").write_text("id,species\n1,x\n")
    opened = open_source(options(source, ways=2))
    assert sum(len(split.class_names) for split in opened.splits.values()) == 6
    assert opened.warnings == [
        "train.csv, val.csv, test.csv: passed over, for want of the columns 'filename' and 'label'"
    ]


def test_a_filename_of_a_list_may_be_a_path(source):
    make_own_lists(source, classes=1)
    for split in SPLITS:
        path = source / f"{split}.csv"
        path.write_text(re.sub(r"\n(?=\d)", f"\n{split} 0/", path.read_text()))
    assert open_source(options(source, ways=1)).splits["val"].image_names[:2] == ["val 0/0.png", "val 0/1.png"]


def each_class(split) -> list[int]:
    return np.bincount(split.labels).tolist()


@pytest.mark.parametrize("form", ["folder", "RFS miniImageNet", "cifar-fs", "omniglot"])
def test_any_source_can_be_capped(source, monkeypatch, form):
    """Images of a class are a subset, in order."""
    if form == "folder":
        make_own_lists(source, per_class=6)
        for split in SPLITS:
            (source / f"{split}.csv").unlink()
        whole, how = options(source, ways=2), {"source": str(source), "ways": 2}
    elif form == "RFS miniImageNet":
        make_rfs_mini(source)
        whole, how = options(source), {"source": str(source)}
    else:
        make_cifar100(source, monkeypatch) if form == "cifar-fs" else make_omniglot(source, monkeypatch)
        small = published._equal_classes("t", (64, 16, 20), 3, "", "")
        monkeypatch.setitem(published.PUBLISHED, "cifar-fs", small)
        how = {"source": form, "download_folder": str(source)}
        whole = DatasetOptions(**how)
    for part, split in open_source(whole).splits.items():
        every, capped = gather(split), open_source(DatasetOptions(**how, images_per_class=2)).splits[part]
        assert each_class(capped) == [2] * len(split.class_names)
        images = gather(capped).images
        position = {image.tobytes(): index for index, image in enumerate(every.images)}
        indices = [position[image.tobytes()] for image in images]
        assert np.array_equal(every.labels[indices], capped.labels)
        assert form == "omniglot" or indices == sorted(indices)


def test_the_seed_decides_which_images_are_left(source):
    make_own_lists(source, per_class=20)
    names = [
        open_source(options(source, ways=2, images_per_class=5, seed=seed)).splits["train"].image_names
        for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]


def test_a_capped_data_set_is_not_the_published_one(source):
    make_rfs_mini(source)
    assert not open_source(options(source, images_per_class=2)).is_published
