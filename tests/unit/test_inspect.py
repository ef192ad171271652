"""The look at a prepared data set: what is printed, and the contact sheet."""

import numpy as np
import pytest
from conftest import run_program
from PIL import Image

from metantk.data import contact_sheet
from metantk.data.store import SPLITS, Source, Split, stream_split, write_dataset


@pytest.fixture
def data(tmp_path):
    """Splits of 12, 2 and 3 classes with 5 images each, in a colour per split."""
    streams = {}
    for part, classes, colour in zip(SPLITS, (12, 2, 3), ([255, 0, 0], [0, 255, 0], [0, 0, 255]), strict=True):
        images = np.zeros((5 * classes, 8, 8, 3), np.uint8) + np.array(colour, np.uint8)
        images[:, 0, 0] = np.arange(5 * classes)[:, None]
        names = [f"{part} {index}" for index in range(classes)]
        streams[part] = stream_split(Split(images, np.repeat(np.arange(classes), 5), names))
    source = Source(streams, "free", files=[], warnings=["look out"], is_published=False)
    write_dataset(tmp_path / "data", source, name="birds", source="somewhere")
    return tmp_path / "data"


def test_counts_are_printed_and_the_sheet_is_drawn(data, repository, tmp_path):
    script = repository / "scripts" / "inspect_dataset.py"
    run = run_program("python", script, data, "--output", tmp_path / "sheet")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "birds, from somewhere; free"
    assert [line.split() for line in lines[1:4]] == [
        ["train", "60", "images", "of", "8", "×", "8,", "12", "classes", "of", "5", "to", "5"],
        ["val", "10", "images", "of", "8", "×", "8,", "2", "classes", "of", "5", "to", "5"],
        ["test", "15", "images", "of", "8", "×", "8,", "3", "classes", "of", "5", "to", "5"],
    ]
    assert lines[-1] == "warning: look out"
    with Image.open(tmp_path / "sheet" / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    width = sheet.width
    for index, colour in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        columns = np.flatnonzero((pixels == colour).all(1)) % width
        assert len(columns) > 1000
        assert index * width / 3 < columns.mean() < (index + 1) * width / 3


def test_equal_data_give_equal_bytes(data, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), dtype=np.uint8)
    split = Split(images, np.arange(6) // 3, ["a", "b" * 50])
    for name in ("one.png", "two.png"):
        contact_sheet.save(contact_sheet.draw_contact_sheet({"train": split}, "title"), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("chough", "chough"),
        ("Häher $1", "Häher $1"),
        ("鳥", "class 7"),
        ("चिड़िया", "class 7"),
        ("x" * 40, "x" * 27 + "…"),
    ],
)
def test_names_that_the_font_cannot_draw_are_indices(name, label):
    assert contact_sheet.label_of(name, 7) == label


def test_rows_of_different_lengths_are_tiled_on_white():
    rows = [np.full((2, 3, 4, 3), 1, np.uint8), np.full((1, 3, 4, 3), 2, np.uint8)]
    sheet, step = contact_sheet.tile(rows)
    assert step == 3 + contact_sheet.GAP
    assert sheet.shape == (2 * step, 2 * (4 + contact_sheet.GAP), 3)
    assert (sheet == 1).sum() == 2 * 36
    assert (sheet == 2).sum() == 36
    assert (sheet[step:, 4:] == 255).all()
