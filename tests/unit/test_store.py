"""Writing a data set as a stream: the same bytes in one go, in blocks or after a kill, and flat memory."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bench_preparation import FORMS, measure
from filelock import FileLock
from PIL import Image

from metantk.data import store
from metantk.data.store import SPLITS, Source, Split, load_split, read_manifest, stream_split, write_dataset
from metantk.runtime.files import InputError

SHAPE = (6, 6, 3)
IMAGES = 40


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(store, "BLOCK_BYTES", 4 * int(np.prod(SHAPE)))


def make_source(**changes) -> Source:
    streams = {}
    for index, part in enumerate(SPLITS):
        images = np.random.default_rng(index).integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
        streams[part] = stream_split(Split(images, np.arange(IMAGES) % 5, [f"{part} {name}" for name in range(5)]))
    source = Source(streams, licence="l", files=[], warnings=[], is_published=False)
    return source._replace(**changes)


def write(directory, source):
    return write_dataset(directory, source, name="n", source="s")


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_manifest_describes_the_arrays(tmp_path):
    manifest = write(tmp_path / "data", make_source(warnings=["look out"]))
    assert manifest == read_manifest(tmp_path / "data")
    assert manifest["warnings"] == ["look out"]
    pixels = load_split(tmp_path / "data", "train").images.reshape(-1, 3) / 255
    np.testing.assert_allclose(manifest["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(manifest["std"], pixels.std(0), rtol=1e-12)
    for part in SPLITS:
        for name, expected in manifest["splits"][part]["sha256"].items():
            assert store.sha256_of(tmp_path / "data" / part / name) == expected


def test_the_size_of_blocks_changes_no_byte(tmp_path, monkeypatch):
    write(tmp_path / "small", make_source())
    monkeypatch.setattr(store, "BLOCK_BYTES", 1 << 20)
    write(tmp_path / "large", make_source())
    assert contents(tmp_path / "small") == contents(tmp_path / "large")


def interrupted(source: Source, part: str, after: int) -> Source:
    """The source, until the blocks of `part` are interrupted."""

    def blocks():
        for first, block in enumerate(source.splits[part].blocks()):
            if first == after:
                raise KeyboardInterrupt
            yield block

    return source._replace(splits=source.splits | {part: source.splits[part]._replace(blocks=blocks)})


@pytest.mark.parametrize(("part", "after"), [("train", 0), ("train", 3), ("val", 5), ("test", 9)])
def test_interrupted_work_leaves_nothing_and_begins_anew_with_the_same_bytes(tmp_path, part, after):
    write(tmp_path / "whole", make_source())
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", interrupted(make_source(), part, after))
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    write(tmp_path / "data", make_source())
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_an_old_data_set_stays_until_the_new_one_is_whole(tmp_path):
    write(tmp_path / "data", make_source())
    before = contents(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", interrupted(make_source(), "test", 3))
    assert contents(tmp_path / "data") == before


def test_two_processes_do_not_write_the_same(tmp_path):
    unfinished = tmp_path / ".data.unfinished"
    unfinished.mkdir()
    with FileLock(unfinished / "lock"), pytest.raises(InputError, match="is being written by another process"):
        write(tmp_path / "data", make_source())
    assert unfinished.exists()
    write(tmp_path / "data", make_source())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_too_few_or_wrong_images(tmp_path):
    source = make_source()
    short = source.splits["val"]._replace(blocks=lambda: (b[1:] for b in source.splits["val"].blocks()))
    with pytest.raises(InputError, match="split val: 30 images but 40 labels"):
        write(tmp_path / "data", source._replace(splits=source.splits | {"val": short}))
    wrong = source.splits["val"]._replace(blocks=lambda: iter([np.zeros((40, 5, 6, 3), np.uint8)]))
    with pytest.raises(InputError, match=r"split val: images are uint8 \(5, 6, 3\), not"):
        write(tmp_path / "data", source._replace(splits=source.splits | {"val": wrong}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shared", "is_published"), [(1, True), (1, False), (0, True)])
def test_images_in_two_splits(tmp_path, shared, is_published):
    source = make_source(is_published=is_published)
    train, test = (next(source.splits[part].blocks()) for part in ("train", "test"))
    test[:shared] = train[:shared]
    if shared and is_published:
        with pytest.raises(InputError, match="1 images stand in train and in test"):
            write(tmp_path / "data", source)
    else:
        warnings = write(tmp_path / "data", source)["warnings"]
        assert [warning.split(";")[0] for warning in warnings] == ["1 images stand in train and in test"] * shared


def test_a_few_images_in_two_splits_are_tolerated(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TOLERATED_SHARE", 1 / IMAGES)
    source = make_source(is_published=True)
    next(source.splits["test"].blocks())[0] = next(source.splits["train"].blocks())[0]
    (warning,) = write(tmp_path / "data", source)["warnings"]
    assert warning.startswith("1 images stand in train and in test")


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_looks_finished(tmp_path, repository, environment):
    for index in range(15):
        folder = tmp_path / "images" / f"class{index:02d}"
        folder.mkdir(parents=True)
        for image in range(2):
            pixels = np.random.default_rng([index, image]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")

    def command(output):
        script = repository / "scripts" / "prepare_dataset.py"
        words = (sys.executable, script, "--name", "mine", "--source", "images", "--image-size", 1024)
        return [*map(str, words), "--output", output]

    process = subprocess.Popen(command("data"), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob(".data.unfinished/files/train/images.npy")):
            assert process.poll() is None, "it ended without a trace"
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "data").exists()
    for output in ("data", "whole"):
        subprocess.run(command(output), cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "images", "whole"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("form", FORMS)
def test_memory_does_not_grow_with_the_number_of_images(form):
    """60 MB of images more; the list of PNG files keeps 2 KB for each, the archive nothing."""
    few, many = (measure(form, images)["peak_mb"] for images in (2_000, 5_000))
    assert many - few < 30
