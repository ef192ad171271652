"""Unfinished work: what is kept comes back, what is damaged is named, what belongs to other work is removed."""

import os
import pickle

import pytest
import torch

from metantk.runtime.checkpoints import CheckpointFile, freeze, thaw
from metantk.runtime.files import InputError, WriteError, checkpoint_path

STATE = {
    "numbers": [1, 2.5, None, True, "text"],
    "nested": {"a": {"b": [[1], [2]]}},
    "tensor": torch.arange(6.0).view(2, 3),
    "half": torch.ones(3, dtype=torch.float16),
    "mask": torch.tensor([True, False]),
}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name])
            assert value.dtype == other[name].dtype
        else:
            assert value == other[name]


def test_what_is_kept_is_what_comes_back(tmp_path):
    file = CheckpointFile(tmp_path, "search", {"seed": 1})
    assert file.state is None
    file.save({"first": 1})
    file.save(STATE)
    assert_same(CheckpointFile(tmp_path, "search", {"seed": 1}).state, STATE)
    file.remove()
    assert list(tmp_path.iterdir()) == []
    assert CheckpointFile(tmp_path, "search", {"seed": 1}).state is None


def test_a_kept_state_does_not_follow_later_changes(tmp_path):
    weights = torch.zeros(2)
    file = CheckpointFile(tmp_path, "search", {})
    file.save({"weights": weights})
    weights += 1
    assert CheckpointFile(tmp_path, "search", {}).state["weights"].tolist() == [0, 0]


def test_checkpoints_of_other_options_are_removed_and_those_of_other_stages_stay(tmp_path):
    CheckpointFile(tmp_path, "evaluation", {}).save({"a": 1})
    old = CheckpointFile(tmp_path, "training", {"epochs": 1})
    old.save({"b": 2})
    assert checkpoint_path(tmp_path, "training", {"epochs": 1}) == old.path
    assert old.path.exists()
    new = CheckpointFile(tmp_path, "training", {"epochs": 2})
    assert new.state is None
    assert new.path != old.path
    assert not old.path.exists()
    new.remove()
    assert CheckpointFile(tmp_path, "evaluation", {}).state == {"a": 1}


def test_a_failed_write_leaves_what_was_kept_before(tmp_path, monkeypatch):
    file = CheckpointFile(tmp_path, "search", {})
    file.save({"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="free some space"):
        file.save({"a": 2})
    monkeypatch.undo()
    assert CheckpointFile(tmp_path, "search", {}).state == {"a": 1}
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


def assert_damaged(contents: bytes) -> None:
    with pytest.raises(InputError, match=r"^here: is damaged; remove it to begin this stage anew$"):
        thaw(contents, where="here")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("contents", [b"", b"{}", b"PK\x03\x04", b"\x80", b"\x80\x04", bytes(1000)])
def test_what_is_no_checkpoint_is_named(contents):
    assert_damaged(contents)


def test_a_checkpoint_cut_off_anywhere_is_named():
    whole = freeze(STATE)
    for length in range(0, len(whole), 97):
        assert_damaged(whole[:length])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_with_flipped_bytes_is_read_or_named():
    """Never another error; PyTorch guards the tensors' bytes by checksums only in part."""
    whole = freeze(STATE)
    named = 0
    for place in range(0, len(whole), 13):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            assert isinstance(thaw(bytes(damaged)), dict)
        except InputError:
            named += 1
    assert named > 0


@pytest.mark.parametrize("value", [[1, 2], torch.ones(2), None, 3])
def test_a_checkpoint_that_is_no_object_is_named(value):
    assert_damaged(freeze(value))


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_damaged(freeze({"evil": Evil()}))
    assert_damaged(pickle.dumps({"evil": Evil()}))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named_when_the_stage_begins(tmp_path):
    path = checkpoint_path(tmp_path, "search", {})
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="is damaged") as error:
        CheckpointFile(tmp_path, "search", {})
    assert str(path) in str(error.value)
