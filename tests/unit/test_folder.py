"""A folder of one's own images: both layouts, what becomes of an image, and every way to get it wrong."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from metantk.data.folder import find_images, skip_unreadable, stream_images
from metantk.data.store import SPLITS, check_splits, gather
from metantk.runtime.files import InputError

SIZE = 16


def save(path, colour="red", size=(20, 20), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def make_classes(folder, count, images=2, prefix="class"):
    for index in range(count):
        for image in range(images):
            save(folder / f"{prefix}{index:02d}" / f"{image}.png", (index, image, 0))


def read(source, ways=1, seed=0, split_by_group=False):
    parts = find_images(source, seed=seed, ways=ways, split_by_group=split_by_group)
    streams = stream_images(source, parts, image_size=SIZE)
    check_splits(streams, source="folder")
    return {part: gather(stream) for part, stream in streams.items()}


@pytest.fixture
def source(tmp_path):
    """Three classes, of which `c` becomes whatever a test puts into it."""
    make_classes(tmp_path, 3)
    return tmp_path


def read_one(source, name):
    """The image `name` of the first class, as it was read."""
    for split in read(source).values():
        if "class00" in split.class_names:
            names = sorted(path.name for path in (source / "class00").iterdir())
            return split.images[names.index(name)]
    raise AssertionError("class00 is in no part")


def test_given_splits_are_kept_and_sorted(tmp_path):
    for name, classes in zip(SPLITS, (["b", "a"], ["d", "c"], ["f", "e"]), strict=True):
        for number, label in enumerate(classes):
            save(tmp_path / name / label / "2.png", (ord(label), 2, 0))
            save(tmp_path / name / label / "1.jpg", (ord(label), 1, 0))
            save(tmp_path / name / label / "3.png", (ord(label), 3, number))
    splits = read(tmp_path, ways=2)
    assert [split.class_names for split in splits.values()] == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert splits["val"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits["val"].images.shape == (6, SIZE, SIZE, 3)
    assert splits["val"].images.dtype == np.uint8
    assert splits["val"].images[[1, 2, 4], 0, 0, :2].tolist() == [[99, 2], [99, 3], [100, 2]]


@pytest.mark.parametrize(
    ("classes", "ways", "sizes"),
    [
        (100, 5, [64, 16, 20]),
        (50, 5, [32, 8, 10]),
        (15, 5, [5, 5, 5]),
        (20, 5, [10, 5, 5]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_unsplit_classes_are_shared_out(tmp_path, classes, ways, sizes):
    make_classes(tmp_path, classes, images=1)
    splits = read(tmp_path, ways=ways)
    assert [len(split.class_names) for split in splits.values()] == sizes
    assert all(split.class_names == sorted(split.class_names) for split in splits.values())
    assert len({name for split in splits.values() for name in split.class_names}) == classes


def test_labels_follow_the_images(tmp_path):
    make_classes(tmp_path, 12)
    for split in read(tmp_path, ways=2).values():
        for image, label in zip(split.images, split.labels, strict=True):
            assert split.class_names[label] == f"class{image[0, 0, 0]:02d}"


def test_seed_decides_the_split(tmp_path):
    make_classes(tmp_path, 20, images=1)
    names = [read(tmp_path, seed=seed)["test"].class_names for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_hidden_files_and_files_beside_classes_are_passed_over(source):
    (source / "README.txt").write_text("about")
    (source / ".cache").mkdir()
    (source / "class00" / ".DS_Store").write_bytes(b"\0")
    assert sum(len(split.labels) for split in read(source).values()) == 6


def test_a_class_may_be_called_train(source):
    make_classes(source / "tmp", 1)
    (source / "tmp" / "class00").rename(source / "train")
    (source / "tmp").rmdir()
    assert "train" in [name for split in read(source).values() for name in split.class_names]


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (300, 32), (1, 40), (16, 16)])
def test_shorter_side_is_brought_to_size_and_the_middle_kept(source, size):
    pixels = np.random.default_rng(0).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(source / "class00" / "oblong.png")
    whole = np.asarray(image.resize([length * SIZE // min(size) for length in size], Image.Resampling.BICUBIC))
    top, left = (whole.shape[0] - SIZE) // 2, (whole.shape[1] - SIZE) // 2
    expected = whole[top : top + SIZE, left : left + SIZE]
    np.testing.assert_allclose(read_one(source, "oblong.png").astype(int), expected, atol=1)


def test_a_circle_stays_round(source):
    y, x = np.mgrid[:60, :120]
    disc = np.uint8(255 * (np.hypot(x - 59.5, y - 29.5) < 20))
    Image.fromarray(disc).save(source / "class00" / "disc.png")
    ink = read_one(source, "disc.png")[..., 0] > 127
    assert ink.any(0).sum() == ink.any(1).sum() == pytest.approx(SIZE * 40 / 60, abs=1)


def test_exif_orientation_is_honoured(source):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the top comes to the right
    Image.fromarray(pixels).save(source / "class00" / "turned.jpg", exif=exif, quality=95)
    image = read_one(source, "turned.jpg").astype(int)
    assert image[:, -4:].min() > 240
    assert image[:, :4].max() < 15


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("L", 77, "grey.png", 77),
        ("1", 1, "bits.png", 255),
        ("P", 0, "palette.gif", 0),
        ("RGBA", (10, 10, 10, 255), "opaque.png", 10),
        ("RGBA", (10, 10, 10, 0), "clear.png", 255),
        ("LA", (10, 0), "clear_grey.png", 255),
        ("CMYK", (0, 0, 0, 0), "print.tiff", 255),
    ],
)
def test_every_mode_becomes_rgb(source, mode, colour, name, expected):
    save(source / "class00" / name, colour, mode=mode)
    assert np.unique(read_one(source, name)).tolist() == [expected]


def test_large_jpeg_is_read_like_the_same_png(source):
    ramp = np.linspace(0, 255, 400, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), -1)
    Image.fromarray(pixels).save(source / "class00" / "ramp.png")
    Image.fromarray(pixels).save(source / "class00" / "ramp.jpg", quality=98, subsampling=0)
    png, jpeg = read_one(source, "ramp.png"), read_one(source, "ramp.jpg")
    assert np.abs(png.astype(int) - jpeg).max() <= 4


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"absent: cannot be read \(No such file or directory\); expected a"):
        read(tmp_path / "absent")


def test_a_file_is_not_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"one.png: cannot be read \(Not a directory\)"):
        read(save(tmp_path / "one.png"))


def test_empty_source(tmp_path):
    with pytest.raises(InputError, match=r"is empty$"):
        read(tmp_path)


def test_no_class_folders(tmp_path):
    save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"holds 1 files and no folders$"):
        read(tmp_path)


def test_given_split_without_class_folders(tmp_path):
    for name in SPLITS:
        save(tmp_path / name / "one.png")
    with pytest.raises(InputError, match="train: holds 1 files and no folders; expected a folder per class"):
        read(tmp_path)


def test_part_of_a_split_is_missing(tmp_path):
    make_classes(tmp_path / "train", 5)
    with pytest.raises(InputError, match=r"has train/ with class folders, but no val/ and test/; expected all"):
        read(tmp_path)


def test_too_few_classes_to_split(tmp_path):
    make_classes(tmp_path, 14, images=1)
    with pytest.raises(InputError, match="has 14 class folders; 15 are needed, 5 ways in each of train, val"):
        read(tmp_path, ways=5)


def test_too_few_classes_in_a_given_split(tmp_path):
    for name, count in zip(SPLITS, (5, 5, 4), strict=True):
        make_classes(tmp_path / name, count, images=1, prefix=name)
    with pytest.raises(InputError, match="split test: has 4 class folders; 5 are needed for 5 ways"):
        read(tmp_path, ways=5)


def test_empty_class(source):
    (source / "vacant").mkdir()
    (source / "vacant" / ".keep").touch()
    with pytest.raises(InputError, match="vacant: is empty; expected the images of a class"):
        read(source)


def test_folder_in_a_class_folder(source):
    save(source / "class00" / "more" / "one.png")
    with pytest.raises(InputError, match="more: is a folder in a class folder; expected images only"):
        read(source)


def test_damaged_files_are_named_and_counted(source):
    whole = save(source / "class00" / "whole.png", size=(200, 200)).read_bytes()
    (source / "class00" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "class00" / "gone.png").symlink_to(source / "nowhere.png")
    for number in range(3):
        (source / "class01" / f"text{number}.png").write_text("no image")
    with pytest.raises(InputError) as raised:
        read(source)
    message = str(raised.value)
    assert "5 of 12 files cannot be read: " in message
    assert message.count("(") == 3
    assert message.endswith(", ...; mend or remove them")
    assert "\n" not in message


def test_unreadable_files_are_left_out_and_named_on_demand(source):
    (source / "class01" / "notes.png").write_text("no image")
    parts, warnings = skip_unreadable(find_images(source, seed=0, ways=1), image_size=SIZE)
    assert warnings == ["left out, cannot be read: class01/notes.png (not an image)"]
    assert sum(len(files) for classes in parts.values() for files in classes.values()) == 6
    for file in (source / "class01").iterdir():
        file.write_text("no image")
    with pytest.raises(InputError, match="class class01: none of its files can be read as an image"):
        skip_unreadable(find_images(source, seed=0, ways=1), image_size=SIZE)


def test_reasons_are_given(source):
    (source / "class01" / "notes.png").write_text("no image")
    with pytest.raises(InputError, match=r"1 of 7 files cannot be read: class01/notes.png \(not an image\)"):
        read(source)


def test_a_pipe_is_not_waited_for(source):
    os.mkfifo(source / "class01" / "pipe.png")
    with pytest.raises(InputError, match=r"class01/pipe.png \(not a file\)"):
        read(source)


def test_32_bit_pixels_are_refused(source):
    save(source / "class01" / "float.tiff", 0.5, mode="F")
    with pytest.raises(InputError, match=r"float.tiff .mode F: 32-bit pixels have no known white"):
        read(source)


@pytest.mark.parametrize("limit", [300, 100])
def test_a_bomb_is_named(source, monkeypatch, limit):
    # Pillow warns above the limit and refuses above twice the limit: 441 pixels are one or the other.
    save(source / "class01" / "bomb.png", size=(21, 21))
    for index in range(3):
        for number in range(2):
            save(source / f"class{index:02d}" / f"{number}.png", size=(5, 5))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller's filter does not make it pass
        with pytest.raises(InputError, match=r"bomb.png \(more than 0 million pixels\)"):
            read(source)


def make_alphabets(folder, alphabets, characters=4):
    for alphabet in alphabets:
        for character in range(1, characters + 1):
            save(folder / alphabet / f"character{character:02d}" / "0001_01.png", (character, len(alphabet), 0))
    (folder / "README.txt").write_text("beside the alphabets")


def test_classes_of_nested_folders_are_those_that_hold_images(tmp_path):
    make_alphabets(tmp_path, ["Greek", "Latin", "N_Ko"])
    save(tmp_path / "plain" / "0.png")
    splits = read(tmp_path)
    names = {name for split in splits.values() for name in split.class_names}
    alphabets = {f"{alphabet}/character{k:02d}" for alphabet in ("Greek", "Latin", "N_Ko") for k in range(1, 5)}
    assert names == alphabets | {"plain"}


@pytest.mark.parametrize("seed", range(5))
def test_a_split_keeps_groups_together_if_asked(tmp_path, seed):
    make_alphabets(tmp_path, ["Greek", "Latin", "N_Ko", "Ojibwe", "Tagalog", "Tifinagh"])
    part_of = {}
    for part, split in read(tmp_path, ways=4, seed=seed, split_by_group=True).items():
        for name in split.class_names:
            part_of.setdefault(name.split("/")[0], set()).add(part)
    assert all(len(parts) == 1 for parts in part_of.values())
    assert sorted(part for (part,) in part_of.values()) == ["test", "test", "train", "train", "train", "val"]
    apart = read(tmp_path, ways=4, seed=seed)
    assert {len(split.class_names) for split in apart.values()} == {15, 4, 5}


def test_too_few_groups_to_split_by_group_are_named(tmp_path):
    make_alphabets(tmp_path, ["Greek", "Latin"], characters=10)
    with pytest.raises(InputError, match="its 2 groups of classes leave 0 classes for train; 5 are needed"):
        read(tmp_path, ways=5, split_by_group=True)


def test_nested_folders_in_a_split_of_ones_own(tmp_path):
    for part in SPLITS:
        make_alphabets(tmp_path / part, [f"{part}-script"], characters=2)
    splits = read(tmp_path, ways=2)
    assert splits["val"].class_names == ["val-script/character01", "val-script/character02"]
