"""Too little data is said before anything costs."""

import json
import os
import shutil

import numpy as np
import pytest

from metantk.data.manifest import Manifest
from metantk.data.needs import (
    check_data,
    check_needs,
    counts_of_manifest,
    counts_of_splits,
    needs_from_json,
    needs_to_json,
)
from metantk.data.sources import open_source
from metantk.data.store import write_dataset
from metantk.options.config import parse_config
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError

GLYPHS = {"source": "glyphs", "image_size": 16, "images_per_class": 20}


def configuration(**sections) -> dict:
    row = {"backbone": "2cells-1ch", "search": "random", "learner": "none"}
    return {"datasets": {"glyphs": GLYPHS}, "rows": [row], "seeds": [0]} | sections


def row(**parts) -> list[dict]:
    return [{"backbone": "2cells-1ch", "search": "random", "learner": "none"} | parts]


def fitted(criterion: str) -> dict:
    return {
        "rows": row(search="mine"),
        "searches": {"mine": {"kind": "bayesian-optimisation", "criteria": [criterion]}},
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """20 images of 16 pixels in each of 64, 16 and 20 classes."""
    options = DatasetOptions(**GLYPHS)
    folder = tmp_path_factory.mktemp("prepared") / "data"
    written = {"name": "glyphs", "source": "glyphs", "options": options.model_dump()}
    return folder, write_dataset(folder, open_source(options), **written)


def check(manifest: dict, values: dict) -> None:
    needs = needs_from_json(needs_to_json(parse_config(values).needs()))
    check_needs(counts_of_manifest(Manifest.model_validate(manifest)), needs, where="data")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"evaluation": {"ways": 21}}, "test has 20 classes, 21 are needed by evaluation"),
        (
            {"evaluation": {"queries": 16}},
            "test has 20 images in its smallest class .*, 21 are needed by evaluation",
        ),
        (
            {"evaluation": {"shots": [1, 6]}},
            "test has 20 images in its smallest class 'armenian/capital letter eh', 21",
        ),
        (
            {"rows": row(search="metantk"), "criteria": {"meta_ntk": {"ways": 65}}},
            "train has 64 classes, 65 are needed by criteria.meta_ntk of searches.metantk",
        ),
        (
            {"rows": row(search="te-nas"), "criteria": {"ntk": {"images": 1281}}},
            "train has 1280 images, 1281 are needed by criteria.ntk of searches.te-nas",
        ),
        (
            {"rows": row(learner="maml"), "learners": {"maml": {"shots": [6], "queries": 15}}},
            "train has 20 images in its smallest class .*, 21 are needed by learners.maml",
        ),
        (
            {"rows": row(search="t-nas"), "searches": {"t-nas": {"ways": 17}}},
            "val has 16 classes, 17 are needed by searches.t-nas",
        ),
        (
            {"rows": row(search="autometa"), "searches": {"autometa": {"validation_shots": 6}}},
            "val has 20 images in its smallest class .*, 21 are needed by searches.autometa",
        ),
        (
            {"rows": row(learner="reptile"), "learners": {"reptile": {"shots": 21}}},
            "21 are needed by learners.reptile",
        ),
        (
            {"rows": row(search="metanas"), "searches": {"metanas": {"shots": 21}}},
            "21 are needed by searches.metanas",
        ),
        ({"rows": row(learner="metaoptnet"), "learners": {"metaoptnet": {"queries": 6}}}, "21 are needed"),
        (
            {"rows": row(learner="metaoptnet"), "learners": {"metaoptnet": {"queries": 5, "validation_shots": 6}}},
            "val has 20 images in its smallest class .*, 21 are needed by learners.metaoptnet",
        ),
        (
            fitted("naswot") | {"criteria": {"patterns": {"images": 1281}}},
            "train has 1280 images, 1281 are needed by criteria.patterns of searches.mine",
        ),
        (
            fitted("snip") | {"criteria": {"gradients": {"sampling": "batch", "images": 1281}}},
            "train has 1280 images, 1281 are needed by criteria.gradients of searches.mine",
        ),
        (
            fitted("snip") | {"criteria": {"gradients": {"ways": 2, "images": 42}}},
            "train has 20 images in its smallest class .*, 21 are needed by criteria.gradients of searches.mine",
        ),
        (
            fitted("short_training") | {"criteria": {"short_training": {"ways": 17}}},
            "val has 16 classes, 17 are needed by criteria.short_training of searches.mine",
        ),
    ],
)
def test_what_a_row_lacks_is_said_and_one_less_is_enough(prepared, sections, message):
    with pytest.raises(InputError, match=f"^data: too little data: .*{message}"):
        check(prepared[1], configuration(**sections))
    check(prepared[1], configuration(**json.loads(json.dumps(sections), parse_int=one_less)))


def one_less(text: str) -> int:
    """The numbers above are one too large; small ones are not the ones meant."""
    if text == "42":  # 21 of each of two classes
        return 40
    return int(text) - 1 if int(text) in (6, 16, 17, 21, 65, 1281) else int(text)


def test_images_that_are_too_small_for_a_backbone(prepared):
    small = json.loads(json.dumps(prepared[1]))
    for entry in small["splits"].values():
        entry["shape"] = [8, 8, 3]
    with pytest.raises(InputError, match=r"train has images of 8 pixels, 16 are needed by backbones\.conv4"):
        check(small, configuration(rows=[{"backbone": "conv4"}]))


def test_a_learner_that_answers_tasks_of_its_own_ways_only_is_refused_before_it_is_trained():
    with pytest.raises(InputError, match=r"learner maml is trained on 5-way tasks .* 4-way"):
        parse_config(configuration(rows=row(learner="maml"), evaluation={"ways": 4}))
    parse_config(configuration(rows=row(learner="metaoptnet"), evaluation={"ways": 4}))


def test_equal_needs_of_two_rows_are_one():
    one = configuration(rows=row(search="metantk"))
    both = configuration(rows=row(search=["metantk", "other"]), searches={"other": one_search()})
    assert needs_to_json(parse_config(one).needs()) == needs_to_json(parse_config(both).needs())


def one_search() -> dict:
    return {"kind": "prune", "criteria": ["meta_ntk_condition"]}


def test_prepared_data_are_looked_at_unless_a_run_would_prepare_them_anew(prepared, tmp_path):
    folder = shutil.copytree(prepared[0], tmp_path / "data")
    needs = parse_config(configuration(evaluation={"ways": 21})).needs()
    with pytest.raises(InputError, match="too little data"):
        check_data(folder, DatasetOptions(**GLYPHS), needs)
    check_data(folder, DatasetOptions(**GLYPHS | {"images_per_class": 30}), needs)
    check_data(tmp_path / "nowhere", DatasetOptions(**GLYPHS), needs)
    (folder / "manifest.json").write_text("{}")  # it can be prepared again
    check_data(folder, DatasetOptions(**GLYPHS), needs)


def test_counts_are_known_before_images_are_read(prepared):
    splits = open_source(DatasetOptions(**GLYPHS)).splits
    assert counts_of_splits(splits) == counts_of_manifest(Manifest.model_validate(prepared[1]))


def test_an_edited_folder_is_prepared_anew_and_so_not_looked_at(prepared, tmp_path):
    source = tmp_path / "source"
    (source / "class").mkdir(parents=True)
    folder = shutil.copytree(prepared[0], tmp_path / "data")
    options = DatasetOptions(source=str(source))
    manifest = json.loads((folder / "manifest.json").read_text()) | {"options": options.model_dump()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    needs = parse_config(configuration(evaluation={"ways": 21})).needs()
    os.utime(folder / "manifest.json", (2**32, 2**32))
    with pytest.raises(InputError, match="too little data"):
        check_data(folder, options, needs)
    os.utime(folder / "manifest.json", (2**30, 2**30))
    for split, classes in {"train": 5, "val": 5, "test": 20}.items():
        for index in range(classes):
            for image in range(16):
                (source / split / f"{split}{index}").mkdir(parents=True, exist_ok=True)
                (source / split / f"{split}{index}" / f"{image}.png").touch()
    shutil.rmtree(source / "class")
    with pytest.raises(InputError, match="source: too little data: test has 20 classes, 21 are needed by"):
        check_data(folder, options, needs)
    (source / "test" / "test7" / "0.png").unlink()
    few = {"ways": 20, "shots": [1], "queries": 15}
    with pytest.raises(InputError, match="test has 15 images in its smallest class 'test7', 16 are needed"):
        check_data(folder, options, parse_config(configuration(evaluation=few)).needs())
    check_data(folder, options, parse_config(configuration(evaluation=few | {"queries": 14})).needs())


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"of": "a"}]', "[" * 10**5, "NaN"])
def test_needs_that_are_none(text):
    with pytest.raises(InputError, match="--needs"):
        needs_from_json(text)


def test_the_smallest_class_is_counted(prepared):
    labels = np.load(prepared[0] / "val" / "labels.npy")
    assert prepared[1]["splits"]["val"]["smallest_class"] == np.bincount(labels).min() == 20
