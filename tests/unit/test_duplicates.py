"""Equal images within a split, and channels that are the same everywhere: counted and named in the manifest."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from metantk.data import duplicates
from metantk.data.sources import open_source
from metantk.data.store import SPLITS, Source, Split, check_statistics, load_split, stream_split, write_dataset
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError


def make_source(images: np.ndarray, **changes: np.ndarray) -> Source:
    """Images `(6, 8, 8, 3)` of three classes in each split; `changes` replaces those of a split."""
    splits = {
        part: Split(changes.get(part, images + index), np.arange(6) // 2, [f"{part} {name}" for name in "abc"])
        for index, part in enumerate(SPLITS)
    }
    streams = {part: stream_split(split) for part, split in splits.items()}
    return Source(streams, licence="l", files=[], warnings=[], is_published=True)


def noise(seed: int = 0, count: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, (count, 8, 8, 3), dtype=np.uint8)


def warnings_of(source: Source, folder) -> list[str]:
    return write_dataset(folder / "data", source, name="n", source="s")["warnings"]


def test_images_of_a_folder_that_stand_more_than_once_are_counted_and_named(tmp_path):
    for index in range(9):
        folder = tmp_path / "source" / SPLITS[index % 3] / f"class{index}"
        folder.mkdir(parents=True)
        for image, pixels in enumerate(noise(index, 2)):
            Image.fromarray(pixels).save(folder / f"{image}.png")
    train = tmp_path / "source" / "train"
    for copy in ("2.png", "3.png"):
        (train / "class0" / copy).write_bytes((train / "class0" / "0.png").read_bytes())
    source = str(tmp_path / "source")
    options = DatasetOptions(source=source, image_size=8, ways=3)
    expected = "1 images stand more than once in train, e.g. train/class0/0.png and train/class0/2.png (one class)"
    (warning,) = write_dataset(tmp_path / "one", open_source(options), name="n", source=source)["warnings"]
    assert warning.startswith(expected)
    (train / "class6" / "x.png").write_bytes((train / "class3" / "1.png").read_bytes())
    (warning,) = write_dataset(tmp_path / "two", open_source(options), name="n", source=source)["warnings"]
    assert warning.startswith(
        "2 images stand more than once in train, 1 of them in several classes, "
        "e.g. train/class3/1.png and train/class6/x.png (two classes); "
    )


def test_copies_in_a_published_split_are_a_warning_and_named_by_class(tmp_path):
    test = noise(9)
    test[5] = test[0]
    (warning,) = warnings_of(make_source(noise(), test=test), tmp_path)
    assert "e.g. test a (image 0) and test c (image 5) (two classes)" in warning


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_counting(seed):
    rng = np.random.default_rng(seed)
    hashes, labels = rng.integers(0, 12, 15).tolist(), rng.integers(0, 3, 15)
    split = stream_split(Split(np.zeros((15, 1, 1, 3), np.uint8), labels, ["a", "b", "c"]))
    copied = [number for number, count in Counter(hashes).items() if count > 1]
    labels_of = {n: {k for h, k in zip(hashes, labels.tolist(), strict=True) if h == n} for n in copied}
    mixed = sum(len(found) > 1 for found in labels_of.values())
    found = duplicates.within_split("val", split, hashes)
    if not copied:
        assert found == []
        return
    assert found[0].startswith(f"{len(copied)} images stand more than once in val")
    assert (f", {mixed} of them in several classes, " in found[0]) == (mixed > 0)


def test_a_constant_channel_is_a_warning_and_stays_finite(tmp_path):
    images = noise()
    images[..., 2] = 0
    source = make_source(images, val=noise(1), test=noise(2))
    manifest = write_dataset(tmp_path / "data", source, name="n", source="s")
    assert manifest["warnings"] == ["blue is the same in all pixels of train; it carries no information"]
    assert manifest["std"][2] == 1
    assert manifest["std"][:2] == pytest.approx((images / 255).std((0, 1, 2))[:2])
    check_statistics(tmp_path / "data", load_split(tmp_path / "data", "train"))


def test_images_that_are_all_one_colour_are_refused(tmp_path):
    with pytest.raises(InputError, match="split train: all pixels of all images are equal"):
        warnings_of(make_source(noise(), train=np.full((6, 8, 8, 3), 7, np.uint8)), tmp_path)
