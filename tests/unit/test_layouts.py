"""Trees of images as people have them: which are read, and as what; which are refused, and by what name."""

import pytest

from metantk.data import folder, layouts
from metantk.data.sources import open_source
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError


def make(root, *files: str) -> None:
    """Empty files: no layout is read from the images."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def classes_of(root, ways=1) -> dict[str, list[str]]:
    found = folder.find_images(root, seed=0, ways=ways)
    return {split: list(classes) for split, classes in found.items()}


def all_classes(root) -> list[str]:
    return sorted(name for names in classes_of(root).values() for name in names)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "valid", "test"),
    ],
)
@pytest.mark.parametrize("around", ["", "birds/"])
def test_splits_are_known_by_the_names_that_people_give_them(tmp_path, names, around):
    for index, name in enumerate(names):
        make(tmp_path, *(f"{around}{name}/{'abc'[index]}{k}/0.png" for k in range(2)))
    assert classes_of(tmp_path) == {"train": ["a0", "a1"], "val": ["b0", "b1"], "test": ["c0", "c1"]}
    assert len(layouts.watched_files(tmp_path)) == 6


def test_validation_classes_are_held_out_of_training_where_only_test_is_given(tmp_path):
    make(tmp_path, *(f"Training/a{k:02d}/0.png" for k in range(20)), "Test/b0/0.png", "Test/b1/0.png")
    splits = classes_of(tmp_path, ways=2)
    assert [len(names) for names in splits.values()] == [16, 4, 2]
    assert splits["test"] == ["b0", "b1"]
    assert sorted(splits["train"] + splits["val"]) == [f"a{k:02d}" for k in range(20)]
    make(tmp_path, *(f"Test/c{k}/0.png" for k in range(9)))
    with pytest.raises(InputError, match="has 20 class folders; 22 are needed, 11 ways in each of train and val"):
        classes_of(tmp_path, ways=11)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/0.png", "val/b/0.png"], "has train/ with class folders, but no test/; expected all three"),
        (["Training/a/0.png", "b/0.png"], "has Training/ with class folders, but no val/ and test/"),
        (["valid/a/0.png", "test/b/0.png"], "has valid/ with class folders, but no train/"),
        (["train/a/0.png", "Training/b/0.png", "test/c/0.png"], "has Training/ and train/; keep one of them"),
        (["Training/a/0.png", "Training/b/0.png", "Test/b/0.png"], "class 'b' stands in Training/ and in Test/"),
        (
            ["train/a/0", "train/b/0", "val/a/0", "val/b/0", "test/c/0"],
            "class 'a' and 1 others stands in train/ and in val/, but few-shot learning splits classes",
        ),
        (
            ["a/train/0.png", "a/test/0.png", "b/train/0.png", "b/test/0.png"],
            "a: holds test/ and train/, which",
        ),
        (["all/train/a/0", "all/test/b/0", "other/c/0"], "all: holds test/ and train/, which .* name it as the"),
        (["train/images/0", "train/labels/0.txt", "test/a/0"], "labels: holds 1 text files and no images"),
    ],
)
def test_what_looks_like_a_split_and_is_none_is_refused_by_name(tmp_path, files, message):
    make(tmp_path, *files)
    with pytest.raises(InputError, match=message):
        classes_of(tmp_path)
    if "labels" not in message:
        with pytest.raises(InputError, match=message):
            layouts.watched_files(tmp_path)


def test_tiny_imagenet_as_it_is_downloaded(tmp_path):
    """CLASS/images/*.JPEG beside CLASS/*_boxes.txt, and the names of classes beside all of them."""
    ids = [f"n0144353{k}" for k in range(4)]
    for wordnet_id in ids:
        make(tmp_path / "train", f"{wordnet_id}/{wordnet_id}_boxes.txt")
        make(tmp_path / "train", *(f"{wordnet_id}/images/{wordnet_id}_{k}.JPEG" for k in range(3)))
    assert all_classes(tmp_path / "train") == ids
    (tmp_path / "words.txt").write_text(
        f"{ids[0]}\tgoldfish, Carassius auratus\n{ids[1]}\tcrane\n{ids[2]}\tcrane, machine\nn99999999\tother\n"
    )
    expected = ["crane (n01443531)", "crane (n01443532)", "goldfish", "n01443533"]
    assert all_classes(tmp_path / "train") == expected
    assert list(folder.find_class_files(tmp_path / "train")) == [expected[k] for k in (2, 0, 1, 3)]
    source = tmp_path / "train"
    opened = open_source(DatasetOptions(source=str(source), ways=1))
    assert opened.warnings == [
        "4 text files beside images are passed over, e.g. n01443530/n01443530_boxes.txt",
    ]
    watched = layouts.watched_files(source)
    assert len(watched) == 13
    assert {path.rsplit("/", 1)[1] for path in watched if path.endswith(".txt")} == {"words.txt"}


def test_tiny_imagenet_whole_is_refused_with_the_folder_to_name(tmp_path):
    files = ["val/images/val_0.JPEG", "val/val_annotations.txt", "test/images/test_0.JPEG"]
    make(tmp_path, *files, *(f"train/n0000000{k}/images/0.JPEG" for k in range(3)))
    message = f"test/ holds one folder, 'images', .* the classes of train/ at random, name {tmp_path}/train"
    with pytest.raises(InputError, match=message):
        classes_of(tmp_path)


def test_names_in_words_change_no_split(tmp_path):
    ids = [f"n{k:08d}" for k in range(30)]
    make(tmp_path, *(f"{wordnet_id}/0.png" for wordnet_id in ids))
    before = classes_of(tmp_path, ways=5)
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"n{k:08d} word{99 - k}, x\n" for k in range(30)))
    expected = {split: [f"word{99 - int(name[1:])}" for name in names] for split, names in before.items()}
    assert classes_of(tmp_path, ways=5) == expected


def test_other_class_names_are_left_alone(tmp_path):
    make(tmp_path, "a/0.png", "b/0.png", "n00000001/0.png")
    (tmp_path / "words.txt").write_text("a\tb\nb\ta\n")
    assert all_classes(tmp_path) == ["a", "b", "n00000001"]


def test_groups_of_classes_and_a_class_called_like_a_split_stay(tmp_path):
    make(tmp_path, "vehicles/train/0.png", "vehicles/car/0.png", "animals/cat/0.png")
    assert all_classes(tmp_path) == ["animals/cat", "vehicles/car", "vehicles/train"]


@pytest.mark.parametrize(
    "left", ["0.png:Zone.Identifier", "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/x", "Thumbs.db"]
)
def test_what_copying_leaves_behind_is_passed_over(tmp_path, left):
    make(tmp_path, "a/0.png", "b/0.png", "c/0.png", left, f"a/{left}")
    assert list(folder.find_class_files(tmp_path).values()) == [[tmp_path / name / "0.png"] for name in "abc"]
    assert open_source(DatasetOptions(source=str(tmp_path), ways=1)).warnings == []


def test_images_to_classify_may_lie_in_folders(tmp_path):
    make(tmp_path, "2.png", "a/1.png", "a/deep/0.png", "a/notes.txt", "@eaDir/3.png")
    found = folder.find_query_files(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in found] == ["2.png", "a/1.png", "a/deep/0.png"]
    for link in ("a/up", "a/deep/up"):
        (tmp_path / link).symlink_to(tmp_path)
        with pytest.raises(InputError, match="up: is a link to a folder that it lies in"):
            folder.find_query_files(tmp_path)
    (tmp_path / "a" / "up").unlink()
    (tmp_path / "a" / "deep" / "up").unlink()
    make(tmp_path, "deep2/inner/notes.txt")
    with pytest.raises(InputError, match="deep2: holds no images"):
        folder.find_query_files(tmp_path / "deep2")
