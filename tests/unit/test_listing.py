"""What is watched of a folder is what is read of it; nothing that lies in it makes anybody wait."""

import contextlib
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metantk.data import folder, layouts
from metantk.data.sources import open_source
from metantk.data.store import write_dataset
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError

LAYOUTS = {"CLASS/image": "{name}", "part/CLASS/image": "{part}/{name}"}
# Names that a shell, a rule or a reader of tables might take for something else.
ODD_NAMES = (
    "a b",
    "a{b}",
    "ü ñ 日本",
    "it's",
    'a"b',
    "$(touch x)",
    "a;b&c|d",
    "*?[]",
    "-x",
    "#",
    "%s",
    "a,b",
    "$\\frac$",
)


def save_image(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(index).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


@pytest.fixture(params=LAYOUTS)
def source(request, tmp_path) -> Path:
    """A folder of images in one of the two layouts, 3 classes in each part."""
    for index in range(9):
        place = LAYOUTS[request.param].format(part=("train", "val", "test")[index % 3], name=f"class{index}")
        for image in range(2):
            save_image(tmp_path / "source" / place / f"{image}.png", 10 * index + image)
    return tmp_path / "source"


def read_of(source: Path) -> list[str]:
    options = DatasetOptions(source=str(source), image_size=8, ways=2)
    return sorted(str(file) for file in open_source(options).files)


def first_class(source: Path) -> Path:
    return next(path for path in sorted(source.rglob("class*")) if path.is_dir())


def test_what_is_watched_is_what_is_read(source):
    assert layouts.watched_files(source) == read_of(source)
    assert len(read_of(source)) == 18


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png", "._0.png"])
def test_what_systems_leave_behind_changes_nothing(source, name):
    before = read_of(source)
    for place in (source, *(path for path in source.rglob("*") if path.is_dir())):
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    assert layouts.watched_files(source) == read_of(source) == before


def test_text_beside_the_class_folders_changes_nothing(source):
    before = read_of(source)
    for place in {source, first_class(source).parent}:
        for name in ("README.md", "licence.txt", "notes.csv"):
            (place / name).write_text("x")
    assert layouts.watched_files(source) == read_of(source) == before


def test_class_folders_behind_links_are_watched_as_they_are_read(source, tmp_path):
    moved = first_class(source)
    shutil.move(moved, tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    assert layouts.watched_files(source) == read_of(source)
    assert len(read_of(source)) == 18


def bind_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        bind_socket,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.name),
    ],
    ids=["pipe", "socket", "device", "link to nowhere", "link to itself"],
)
def test_what_is_no_file_is_named_and_nobody_waits_for_it(source, tmp_path, make):
    odd = first_class(source) / "odd.png"
    make(odd)
    assert str(odd) not in layouts.watched_files(source)
    with pytest.raises(InputError, match=r"odd\.png \(not a file\)"):
        read_of(source)
    left_out = DatasetOptions(source=str(source), image_size=8, ways=2, skip_unreadable=True)
    found = open_source(left_out)
    assert len(found.warnings) == 1
    assert "odd.png" in found.warnings[0]
    write_dataset(tmp_path / "data", found, name="n", source=str(source))


def test_folders_beside_given_parts_are_neither_read_nor_watched(source):
    if not (source / "train").is_dir():
        pytest.skip("has no parts")
    before = read_of(source)
    save_image(source / "more" / "0.png", 0)
    (source / os.fsdecode(b"caf\xe9")).mkdir()
    assert layouts.watched_files(source) == read_of(source) == before


def test_a_folder_within_itself_ends(source):
    (first_class(source).parent / "loop").symlink_to(source)
    with contextlib.suppress(InputError):
        layouts.watched_files(source)
    with pytest.raises(InputError, match="loop"):
        read_of(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_a_file_without_leave_to_read_it_is_named(source):
    (first_class(source) / "0.png").chmod(0)
    with pytest.raises(InputError, match=r"0\.png \([Pp]ermission denied\)"):
        read_of(source)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_classes_and_images_are_names(source, tmp_path, name):
    renamed = first_class(source).rename(first_class(source).with_name(name))
    (renamed / "0.png").rename(renamed / f"{name}.png")
    assert layouts.watched_files(source) == read_of(source)
    options = DatasetOptions(source=str(source), image_size=8, ways=2)
    manifest = write_dataset(tmp_path / "data", open_source(options), name="n", source=str(source))
    assert any(name in entry["classes"] for entry in manifest["splits"].values())


def test_names_that_are_no_text_are_refused_by_name(source):
    (first_class(source) / os.fsdecode(b"caf\xe9.png")).touch()
    for look in (layouts.watched_files, read_of):
        with pytest.raises(InputError, match="no UTF-8"):
            look(source)


def test_a_link_to_nothing_beside_the_classes_is_named(source):
    root = source / "train" if (source / "train").is_dir() else source
    (root / "gone").symlink_to("nowhere")
    for read in (layouts.watched_files, lambda place: open_source(DatasetOptions(source=str(place)))):
        with pytest.raises(InputError, match="gone: is a link to nothing"):
            read(source)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31mb", "a\x7f"])
def test_names_of_classes_that_no_table_can_hold_are_refused(source, name):
    root = source / "train" if (source / "train").is_dir() else source
    save_image(root / name / "0.png", 0)
    with pytest.raises(InputError, match="another control character"):
        open_source(DatasetOptions(source=str(source)))


def test_unreadable_images_can_be_left_out_of_supports_and_queries(tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / name / "0.png", 0)
        (tmp_path / name / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"2 of 4 files cannot be read: .*text\.png"):
        folder.read_classes(tmp_path, image_size=8)
    split, warnings = folder.read_classes(tmp_path, image_size=8, leave_out=True)
    assert split.images.shape == (2, 8, 8, 3)
    assert len(warnings) == 2
    files, images, warnings = folder.read_images(tmp_path / "a", image_size=8, leave_out=True)
    assert [file.name for file in files] == ["0.png"]
    assert len(images) == len(warnings) == 1
