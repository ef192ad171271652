"""The table of models on test classes of other data sets, from made-up finished chains."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_chain import ASKED, change, write_chain, write_evaluation

from metantk.options import catalogue
from metantk.results import tables, transfer
from metantk.runtime.files import InputError

TITLES = tables.Titles(searches=catalogue.TITLES["searches"], learners=catalogue.TITLES["learners"])
FACTS = {"image_size": 28, "resized_to": None, "shared_classes": []}


def write_transfer(chain: Path, trained_on: str, tested_on: str, seed: int, shift: float, **facts) -> Path:
    """What evaluate_episodes.py leaves of a chain's model on another data set."""
    folder = chain / f"on-{tested_on}"
    folder.mkdir()
    write_evaluation(folder, seed, shift, 3, ASKED)
    change(
        folder / "evaluation.json", transfer={"trained_on": trained_on, "tested_on": tested_on, **FACTS, **facts}
    )
    return folder


@pytest.fixture
def chains(tmp_path):
    """One row on each of two data sets, and another row on the second; two seeds."""
    rows = [("a", "metantk"), ("b", "metantk"), ("b", "random")]
    return [write_chain(tmp_path, name, seed, dataset=data) for data, name in rows for seed in (0, 1)]


@pytest.fixture
def evaluated(chains):
    """The models of `a` on `b`; one of them had other images."""
    return [
        write_transfer(chains[0], "a", "b", 0, shift=9, resized_to=16, shared_classes=["o|x", "_y"]),
        write_transfer(chains[1], "a", "b", 1, shift=9, resized_to=16, shared_classes=["o|x", "_y"]),
    ]


def make(chains, folders) -> pd.DataFrame:
    groups = tables.group_chains(map(tables.read_chain, chains))
    return transfer.make_table([transfer.read_transfer(folder) for folder in folders], groups, TITLES)


def means(folders: list[Path], shots: int) -> pd.Series:
    files = [pd.read_csv(folder / "episodes.csv") for folder in folders]
    return pd.Series([table.loc[table["shots"] == shots, "accuracy"].mean() for table in files])


def test_models_of_other_data_sets_stand_beside_the_data_sets_own(chains, evaluated):
    table = make(chains, evaluated)
    keys = ["Trained on", "Backbone", "Search", "Learner"]
    assert table[keys].to_numpy().tolist() == [
        ["a", "5cells-48ch", "metantk", "rfs"],
        ["b", "5cells-48ch", "metantk", "rfs"],
        ["b", "5cells-48ch", "random", "rfs"],
    ]
    assert list(table) == ["Trained on", "Model", *keys[1:], "b, 1-shot", "b, 5-shot", "±", "Notes"]
    for shots in (1, 5):
        for found, folders in zip(table[f"b, {shots}-shot"], (evaluated, chains[2:4], chains[4:]), strict=True):
            expected = means(folders, shots)
            assert found == f"{expected.mean():.2f} ± {expected.std():.2f}"
    assert table["Model"].tolist() == ["MetaNTK-NAS", "MetaNTK-NAS", "Random Cell"]
    assert set(table["±"]) == {"std over seeds (2)"}
    assert table["Notes"].tolist() == [
        "b resized from 28 to 16 pixels; test classes of b that are training classes: o x, _y", "", "",
    ]  # fmt: skip
    best = tables.bold_best(table, "**{}**")["b, 5-shot"]
    assert [text.startswith("**") for text in best] == [True, False, False]


def test_a_row_without_its_own_evaluation_has_a_line_and_gaps_are_empty(chains, evaluated):
    other = write_transfer(chains[2], "b", "a", 0, shift=0)
    table = make(chains[2:], [*evaluated, other])
    assert table["Trained on"].tolist() == ["b", "b", "a"]
    assert table["a, 1-shot"].tolist()[1:] == ["", ""]
    assert " ± " not in table["a, 1-shot"][0]


def test_without_transfers_the_table_is_empty(chains):
    table = make(chains, [])
    assert table.empty
    assert len(tables.to_markdown(table).splitlines()) == 2
    assert "tabular" in tables.to_latex(table)


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("evaluation.json", {"weights_sha256": "another"}, "is of another model; run evaluate_episodes again"),
        ("evaluation.json", {"split": "val"}, "is not of another data set's test split"),
        ("evaluation.json", {"transfer": None}, "is not of another data set's test split"),
        ("evaluation.json", {"transfer": {**FACTS, "trained_on": "a", "tested_on": "a"}}, "is not of another data"),
        ("evaluation.json", {"data_sha256": "another"}, "were evaluated on different images of b"),
        ("evaluation.json", {"options": ASKED | {"seed": 1}}, "were not evaluated on the same episodes"),
    ],
)
def test_what_does_not_belong_together_is_refused(chains, evaluated, file, edit, message):
    change(evaluated[0] / file, **edit)
    with pytest.raises(InputError, match=message) as error:
        make(chains, evaluated)
    assert str(evaluated[0]) in str(error.value)


def test_a_model_twice_on_the_same_data_set_is_refused(chains, evaluated, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(chains[0], copy)
    with pytest.raises(InputError, match="are the same model on the same data set"):
        make(chains, [*evaluated, copy / "on-b"])


def test_an_evaluation_that_is_given_twice_is_refused(chains, evaluated):
    with pytest.raises(InputError, match="are the same model on the same data set"):
        make(chains, [*evaluated, evaluated[0]])


def test_the_ordinary_tables_refuse_an_evaluation_on_other_data(chains, evaluated):
    for name in ("evaluation.json", "episodes.csv"):
        shutil.copy(evaluated[0] / name, chains[0] / name)
    change(chains[0] / "evaluation.json", data_sha256="of b")
    with pytest.raises(InputError, match=r"evaluation\.json is not of its data set's test split"):
        tables.read_chain(chains[0])
