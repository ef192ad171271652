"""Copies of images in a folder per class."""

import pytest

from metantk.deployment import sorting
from metantk.deployment.sorting import distinct, sorted_copies
from metantk.runtime.files import InputError


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / "from" / name for name in ("a/1.png", "b/1.PNG", "1 (2).png")]
    for index, file in enumerate(found):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(index))
    return found


def contents(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_equal_names_get_numbers(tmp_path, files):
    with sorted_copies(tmp_path / "to", ["x", "y"], files, [0, 0, 0]):
        assert not (tmp_path / "to").exists()
    assert contents(tmp_path / "to") == {"x/1.png": "0", "x/1 (3).PNG": "1", "x/1 (2).png": "2"}
    assert sorted(place.name for place in (tmp_path / "to").iterdir()) == ["x", "y"]


def test_classes_of_any_name_stay_within_the_folder(tmp_path, files):
    names = ["../up", "..", "A/b", "a?B", "out of distribution"]
    with sorted_copies(tmp_path / "to", names, files, [0, 1, None]):
        pass
    assert sorted(place.name for place in tmp_path.iterdir()) == ["from", "to"]
    folders = {place.name for place in (tmp_path / "to").iterdir()}
    assert folders == {"_up", "_", "A_b", "a_B (2)", "out of distribution", "out of distribution (2)"}
    assert contents(tmp_path / "to")["out of distribution (2)/1 (2).png"] == "2"


def test_nothing_is_overwritten(tmp_path, files):
    (tmp_path / "to").mkdir()
    with pytest.raises(InputError, match="to: is there already"), sorted_copies(tmp_path / "to", [], files, []):
        pass


def test_an_interrupted_copy_leaves_nothing(tmp_path, files, monkeypatch):
    def interrupt(source, target, copy=sorting.shutil.copy2):
        copy(source, target)
        if source == files[1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(sorting.shutil, "copy2", interrupt)
    with pytest.raises(KeyboardInterrupt), sorted_copies(tmp_path / "to", ["x"], files, [0, 0, 0]):
        pass
    assert [place.name for place in tmp_path.iterdir()] == ["from"]


def test_an_error_of_what_is_written_beside_leaves_nothing(tmp_path, files):
    with pytest.raises(ValueError, match="beside"), sorted_copies(tmp_path / "to", ["x"], files, [0, 0, 0]):
        raise ValueError("beside")
    assert [place.name for place in tmp_path.iterdir()] == ["from"]


def test_numbers_avoid_names_that_come_later():
    assert distinct(["a.png", "A.png", "a (2).png", "a.png"]) == ["a.png", "A (3).png", "a (2).png", "a (4).png"]
