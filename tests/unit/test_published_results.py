"""Our rows beside published results: what is compared with what, and the verdicts."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_chain import ASKED, change, write_chain

from metantk.options import catalogue
from metantk.options.base import parse
from metantk.results import tables
from metantk.results.published_results import PUBLISHED, compare_with_published

MEASURED = Path(__file__).parents[1] / "benchmarks" / "measured"
CONV4_RFS = {"kind": "conv4", "channels": 64, "poolings": 3, "pool": "average", "genotype": None, "cells": None}


def compare(folder, **changes) -> pd.DataFrame:
    """The comparison of one made-up chain on CIFAR-FS, after changes of its model's architecture or learner."""
    file = folder.parent / "architecture.json"
    change(file, **CONV4_RFS | changes.get("architecture", {}))
    architecture, learner = json.loads(file.read_text()), changes.get("learner", {"kind": "rfs"})
    change(folder / "model.json", architecture=architecture, learner=learner)
    groups = tables.group_chains([tables.read_chain(folder)])
    return compare_with_published(groups, tables.summarise(groups, tables.Titles()))


@pytest.fixture
def folder(tmp_path):
    return write_chain(tmp_path, "fixed", 0, dataset="cifar-fs", backbone="conv4-rfs")


def test_the_published_network_and_method_are_compared(folder):
    table = compare(folder)
    assert table["shots"].tolist() == [1, 5]
    assert table["training"].tolist() == [""] * 2
    assert table["published"].tolist() == [62.7, 78.7]
    episodes = pd.read_csv(folder / "episodes.csv")
    one = episodes.loc[episodes["shots"] == 1, "accuracy"]
    assert table["accuracy"][0] == pytest.approx(one.mean(), abs=1e-3)
    assert table["difference"][0] == pytest.approx(one.mean() - 62.7, abs=2e-3)
    apart = abs(table["difference"]) > table["ci95"] + table["published_ci95"]
    expected = np.where(apart, np.where(table["difference"] > 0, "above", "below"), "within")
    assert table["verdict"].tolist() == expected.tolist()
    assert set(expected) & {"above", "below"}


@pytest.mark.parametrize(
    "changes",
    [{"architecture": {"channels": 32}}, {"learner": {"kind": "maml", "first_order": True, "shots": [1, 5]}}],
    ids=["narrower", "another learner"],
)
def test_another_network_or_method_has_no_published_result_beside_it(folder, changes):
    assert compare(folder, **changes).empty


def test_published_networks_and_learners_are_those_of_the_catalogue():
    """Each entry's options are options of its kind, so that a renamed one cannot silently match nothing."""
    published = pd.read_csv(PUBLISHED)
    assert set(published["checked"]) == {"yes", "no"}
    for family, column in (("backbones", "architecture"), ("learners", "learner")):
        for text in published[column].unique():
            values = json.loads(text)
            parse(catalogue.KINDS[family][values["kind"]], values, where=text)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model.json", {"image_size": 16}),
        ("evaluation.json", {"options": ASKED | {"classifier": "svm"}}),
        ("evaluation.json", {"options": ASKED | {"classifier": {"1": "svm", "5": "svm"}}}),
    ],
)
def test_other_images_or_another_classifier_have_no_published_result_beside_them(folder, file, values):
    compare(folder)
    change(folder / file, **values)
    assert compare(folder).empty


def test_the_classifier_counts_at_each_number_of_shots(folder):
    compare(folder)
    change(folder / "evaluation.json", options=ASKED | {"classifier": {"1": "svm", "5": "logistic_regression"}})
    assert compare(folder)["shots"].tolist() == [5]


@pytest.mark.parametrize(
    ("learner", "told"),
    [({"epochs": 90}, "90 epochs"), ({"epochs": 20, "steps_per_epoch": 1000}, "20 epochs of 1000 meta-steps")],
)
def test_the_length_of_our_training_stands_beside_the_published_result(folder, learner, told):
    assert set(compare(folder, learner={"kind": "rfs"} | learner)["training"]) == {told}


def test_the_images_of_our_training_stand_beside_the_published_result(folder):
    change(folder / "model.json", training_images=12_800)
    assert set(compare(folder, learner={"kind": "rfs", "epochs": 90})["training"]) == {"90 epochs, 12,800 images"}


def test_anil_of_second_order_is_not_the_published_one(folder):
    conv4 = {"channels": 32, "poolings": 4, "pool": "none"}
    learner = {"kind": "maml", "adapt": "head", "test_classifier": "head", "learn_inner_lr": False, "shots": [1, 5]}
    assert compare(folder, architecture=conv4, learner=learner | {"first_order": False}).empty
    assert len(compare(folder, architecture=conv4, learner=learner | {"first_order": True})) == 2


def test_maml_is_compared_where_it_was_trained_with_as_many_shots(folder):
    conv4 = {"channels": 32, "poolings": 4, "pool": "none"}
    learner = {"kind": "maml", "adapt": "all but norms", "learn_inner_lr": False, "shots": [5]}
    table = compare(folder, architecture=conv4, learner=learner | {"first_order": True})
    assert set(table["shots"]) == {5}


@pytest.mark.parametrize("kept", sorted(MEASURED.glob("*.csv")), ids=lambda path: path.stem)
def test_tables_of_what_was_measured_have_a_value_for_each_column(kept):
    with kept.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert rows
    assert {len(row) for row in rows} == {len(header)}
