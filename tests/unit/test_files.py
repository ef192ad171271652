"""Atomic writes, JSON, the data format, generators."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from metantk.data.store import SPLITS, Source, Split, load_split, stream_split, write_dataset
from metantk.runtime import devices
from metantk.runtime.files import (
    InputError,
    WriteError,
    atomic_directory,
    atomic_write,
    canonical_json,
    read_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no regular file"), atomic_write(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="cannot be written"), atomic_write(tmp_path / "file" / "below"):
        pass


def test_canonical_json_ignores_the_order_of_keys():
    assert canonical_json({"b": 1, "a": [1.0, None]}) == canonical_json({"a": [1.0, None], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("contents", ["", "{", "[" * 10**5, '{"a":' * 10**5 + "1" + "}" * 10**5])
def test_what_is_no_json_is_one_line(tmp_path, contents):
    (tmp_path / "file.json").write_text(contents)
    with pytest.raises(InputError, match=r"file\.json: is not JSON") as error:
        read_json(tmp_path / "file.json")
    assert "\n" not in str(error.value)


def test_json_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"file\.json: cannot be read"):
        read_json(tmp_path / "file.json")


def fail_after(folder, error):
    with atomic_directory(folder) as unfinished:
        (unfinished / "part").write_text("half")
        raise error


@pytest.mark.parametrize("error", [InputError("made up"), KeyboardInterrupt(), OSError(errno.EIO, "made up")])
def test_a_folder_that_is_interrupted_leaves_nothing(tmp_path, error):
    with pytest.raises((InputError, KeyboardInterrupt)):
        fail_after(tmp_path / "data", error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_full_disk_interrupts_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"data: cannot be written .*free some space"):
        fail_after(tmp_path / "data", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


KILLED = """
import os, signal, sys
from metantk.runtime.files import atomic_directory
with atomic_directory(sys.argv[1]) as unfinished:
    (unfinished / "part").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_is_removed(tmp_path, repository):
    environment = os.environ | {"PYTHONPATH": str(repository / "scripts")}
    command = [sys.executable, "-c", KILLED, tmp_path / "data"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".data.unfinished"]
    with atomic_directory(tmp_path / "data") as unfinished:
        assert list(unfinished.iterdir()) == []
        (unfinished / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "whole"]


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    with (
        atomic_directory(tmp_path / "data"),
        pytest.raises(InputError, match="is being written by another process"),
        atomic_directory(tmp_path / "data"),
    ):
        pass


def make_splits():
    rng = np.random.default_rng(0)
    return {
        part: Split(
            rng.integers(0, 256, size=(6, 4, 4, 3), dtype=np.uint8),
            np.repeat([0, 1], 3),
            [f"{part} a", f"{part} b"],
        )
        for part in SPLITS
    }


def write(directory, splits, **changes):
    """Write splits that are in memory."""
    streams = {part: stream_split(split) for part, split in splits.items()}
    source = Source(streams, licence="l", files=[], warnings=[], is_published=False)
    return write_dataset(directory, source._replace(**changes), name="n", source="s")


def test_a_data_set_comes_back_as_it_was_written(tmp_path):
    splits = make_splits()
    write(tmp_path / "data", splits)
    for part in SPLITS:
        loaded = load_split(tmp_path / "data", part)
        assert isinstance(loaded.images, np.memmap)
        np.testing.assert_array_equal(loaded.images, splits[part].images)
        np.testing.assert_array_equal(loaded.labels, splits[part].labels)
        assert loaded.class_names == splits[part].class_names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(labels=s.labels[:-1]), "s, split train: 6 images but 5 labels"),
        (lambda s: s._replace(labels=s.labels + 1), "do not cover"),
        (lambda s: s._replace(images=s.images.astype(float)), "not uint8"),
        (lambda s: s._replace(class_names=["val a", "x"]), "'val a' is in split"),
    ],
)
def test_wrong_splits_are_refused_and_nothing_is_written(tmp_path, change, message):
    splits = make_splits()
    splits["train"] = change(splits["train"])
    with pytest.raises(InputError, match=message):
        write(tmp_path / "data", splits)
    assert list(tmp_path.iterdir()) == []


def test_damaged_arrays_are_named(tmp_path):
    write(tmp_path, make_splits())
    path = tmp_path / "test" / "images.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"images\.npy: cannot be read"):
        load_split(tmp_path, "test")
    np.save(path, np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"manifest\.json says"):
        load_split(tmp_path, "test")
    with pytest.raises(InputError, match="holds no data set"):
        load_split(tmp_path / "nowhere", "test")


def test_generators_are_named_by_their_key():
    def draw(*key):
        return torch.rand(4, generator=devices.generator(*key)).tolist()

    keys = [("weights", 0, 1), ("weights", 1, 0), ("weights", 0), ("images", 0, 1), ("weights", -1, 1)]
    draws = [tuple(draw(*key)) for key in keys]
    assert len(set(draws)) == len(keys)
    assert draw(*keys[0]) == list(draws[0])
    assert devices.numpy_generator("ab", 1).random() != devices.numpy_generator("a", "b", 1).random()


def test_an_unknown_device_is_an_input_error(monkeypatch):
    monkeypatch.setenv("METANTK_DEVICE", "cuda:99")
    with pytest.raises(InputError, match="no such device"):
        devices.pick_device()
