"""The files between stages: what is wrong with one is said in a line, with the file and the stage to run again."""

import json

import numpy as np
import pandas as pd
import pytest
from small_chain import write, write_chain

from metantk.results import tables
from metantk.results.records import (
    Architecture,
    Evaluation,
    ModelDescription,
    SearchReport,
    read_episodes,
    read_table,
)
from metantk.runtime.files import InputError
from metantk.runtime.typed_files import read_record

# Each typed file: where it lies beside a chain, its class, its stage, and a value of it that is out of range.
FILES = {
    "architecture.json": ("..", Architecture, "search_architecture", {"cells": 0}),
    "search.json": ("..", SearchReport, "search_architecture", {"seconds": -1.0}),
    "model.json": (".", ModelDescription, "train_network", {"parameters": -1}),
    "evaluation.json": (".", Evaluation, "evaluate_episodes", {"shots": {"1": {"accuracy_mean": 101, "ci95": 1}}}),
}
REQUIRED = {
    "architecture.json": ["kind", "origin"],
    "search.json": ["seconds", "device", "options"],
    "model.json": ["architecture", "learner", "learner_name", "parameters", "parameters_in_tests", "device"],
    "evaluation.json": ["ways", "episodes", "shots", "options"],
}


@pytest.fixture(params=FILES)
def record(request, tmp_path):
    """A good file, and how it is read."""
    name = request.param
    where, kind, stage, _ = FILES[name]
    path = write_chain(tmp_path, "metantk", 0) / where / name
    return path, lambda: read_record(path, kind, stage=stage), stage


def assert_one_line(read, path, stage, *words):
    with pytest.raises(InputError) as error:
        read()
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert message.startswith(f"{path}: ")
    for word in (*words, stage):
        assert word in message


def test_good_files_are_read_and_what_else_they_say_is_left_alone(record):
    path, read, _ = record
    expected = read()
    write(path, json.loads(path.read_text()) | {"something": {"else": [1]}})
    assert read().model_dump(exclude={"something"}) == expected.model_dump()


def test_a_missing_file(record):
    path, read, stage = record
    path.unlink()
    assert_one_line(read, path, stage, "cannot be read")


@pytest.mark.parametrize(
    "contents",
    [b"", b"{", b"{'a': 1}", b"[" * 10**5 + b"]" * 10**5, b'{"a":' * 10**5, b"[" * 400 + b"]" * 400, b"9" * 5000],
)
def test_what_is_no_json(record, contents):
    path, read, stage = record
    path.write_bytes(contents)
    assert_one_line(read, path, stage, "is not JSON")


@pytest.mark.parametrize("contents", ["[]", "[1, 2]", "null", "3", '"text"'])
def test_json_that_is_no_object(record, contents):
    path, read, stage = record
    path.write_text(contents)
    assert_one_line(read, path, stage, "valid dictionary")


def test_what_is_no_text(record):
    path, read, stage = record
    path.write_bytes(b"\xff\xfe")
    assert_one_line(read, path, stage, "cannot be read (byte 0 is no UTF-8)")


def test_each_key_that_is_missing_is_named(record):
    path, read, stage = record
    whole = json.loads(path.read_text())
    for key in REQUIRED[path.name]:
        write(path, {name: value for name, value in whole.items() if name != key})
        assert_one_line(read, path, stage, f"'{key}' is missing")


@pytest.mark.parametrize("wrong", [[], [[1]], "text \n of two lines", None, {"a": 1}, -1, "x" * 10**6])
def test_each_key_of_a_wrong_type_is_named(record, wrong):
    path, read, stage = record
    whole = json.loads(path.read_text())
    for key in REQUIRED[path.name]:
        if type(wrong) is not type(whole[key]) and not (isinstance(wrong, dict) and key in ("learner", "options")):
            write(path, whole | {key: wrong})
            assert_one_line(read, path, stage, f"'{key}")


def test_values_out_of_range_are_named(record):
    path, read, stage = record
    bad = FILES[path.name][3]
    write(path, json.loads(path.read_text()) | bad)
    assert_one_line(read, path, stage, next(iter(bad)))


@pytest.mark.parametrize("index", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_not_finite(tmp_path, index):
    path = write_chain(tmp_path, "metantk", 0).parent / "search.json"
    path.write_text(f'{{"seconds": {index}, "device": "cpu", "options": {{}}}}')
    assert_one_line(lambda: read_record(path, SearchReport, stage="search"), path, "search", "number")


@pytest.mark.parametrize("shots", ["one", "0", "-1", "1.0", "", "01", "9" * 30])
def test_shots_that_are_no_count(tmp_path, shots):
    path = write_chain(tmp_path, "metantk", 0) / "evaluation.json"
    write(path, json.loads(path.read_text()) | {"shots": {shots: {"accuracy_mean": 50, "ci95": 1}}})
    assert_one_line(lambda: read_record(path, Evaluation, stage="evaluation"), path, "evaluation", "'shots.")


# --- Tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'a,b\n1,2,3,4\n"', "cannot be read"),
        (b"a,c\n1,2\n", "lacks the columns b"),
        (b"[[[[", "lacks the columns a, b"),
    ],
)
def test_tables_that_are_none(tmp_path, contents, message):
    path = tmp_path / "table.csv"
    if contents is not None:
        path.write_bytes(contents)
    assert_one_line(lambda: read_table(path, {"a": None, "b": None}, stage="training"), path, "training", message)


@pytest.fixture
def evaluation(tmp_path):
    folder = write_chain(tmp_path, "metantk", 0)
    return folder / "episodes.csv", read_record(folder / "evaluation.json", Evaluation, stage="evaluation")


def test_episodes_come_sorted_and_without_other_columns(evaluation):
    path, record = evaluation
    expected = read_episodes(path, record)
    assert list(expected.columns) == ["shots", "episode", "accuracy"]
    pd.read_csv(path).sample(frac=1, random_state=0).assign(more=1).to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_episodes(path, record), expected)
    # Numbers of shots as a spreadsheet may write them.
    pd.read_csv(path).astype({"shots": float}).to_csv(path, index=False)
    assert read_episodes(path, record)["accuracy"].tolist() == expected["accuracy"].tolist()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.drop(columns="episode"), "lacks the columns episode"),
        (lambda t: t.assign(accuracy="high"), "other things than numbers"),
        (lambda t: t.assign(accuracy=t["accuracy"].where(t.index != 3)), "accuracy has gaps"),
        (lambda t: t.assign(accuracy=np.inf), "accuracy holds a number that is not finite"),
        (lambda t: t.assign(accuracy=t["accuracy"] + 60), "accuracy holds a number that is not in 0 to 100"),
        (lambda t: t.assign(shots=t["shots"] + 0.5), "shots holds a number that is not whole"),
        (lambda t: t[t["shots"] == 1], "has other shots than evaluation.json"),
        (lambda t: t.assign(shots=t["shots"] + 1), "has other shots than evaluation.json"),
        (lambda t: t.iloc[:-1], "has not the 40 episodes of 5-shot"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "has not the 40 episodes of 1-shot"),
        (lambda t: t.assign(episode=t["episode"] + 1), "has not the 40 episodes of 1-shot"),
        (lambda t: t.assign(accuracy=t["accuracy"] + 0.01), "its 1-shot mean is not that of evaluation.json"),
        (lambda t: t.iloc[:0], "has other shots than evaluation.json"),
    ],
)
def test_episodes_that_are_not_those_of_the_evaluation(evaluation, edit, message):
    path, record = evaluation
    edit(pd.read_csv(path)).to_csv(path, index=False)
    assert_one_line(lambda: read_episodes(path, record), path, "evaluate_episodes", message)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("evaluation.json", "evaluate_episodes"),
        ("episodes.csv", "evaluate_episodes"),
        ("model.json", "train_network"),
        ("../search.json", "search_architecture"),
    ],
)
def test_a_chain_names_the_file_and_the_stage_that_it_lacks(tmp_path, name, stage):
    folder = write_chain(tmp_path, "random", 0)
    (folder / name).resolve().unlink()
    with pytest.raises(InputError, match=rf"{name.split('/')[-1]}: cannot be read .*{stage}"):
        tables.read_chain(folder)
