"""Tables from made-up finished runs."""

import json

import numpy as np
import pandas as pd
import pytest
from metantk.config import METHODS

from metantk import tables
from metantk.storage import InputError


def write_part(root, method, seed, *, dataset="glyphs", run="5cells-48ch", shift=0.0):
    folder = root / dataset / run / method / f"seed{seed}"
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, len(method)])
    rows = [
        {"shots": shots, "episode": number, "accuracy": 50 + shots + shift + seed + rng.uniform(-1, 1)}
        for shots in (1, 5)
        for number in range(40)
    ]
    pd.DataFrame(rows).to_csv(folder / "episodes.csv", index=False)
    search = {"seconds": 100.0 + seed, "options": {"criteria": METHODS[method]}}
    (folder / "search.json").write_text(json.dumps(search))
    (folder / "backbone.json").write_text(json.dumps({"parameters": 1_000_000 + seed}))
    return folder


@pytest.fixture
def parts(tmp_path):
    folders = [write_part(tmp_path, m, s, shift=3.0 * (m == "metantk")) for m in METHODS for s in (0, 1, 2)]
    return [tables.read_part(folder) for folder in folders]


def test_summary_means_and_deviations_by_hand(parts):
    summary = tables.summarise(parts)
    assert list(summary.columns) == tables.SUMMARY_COLUMNS
    assert len(summary) == 8
    row = summary[(summary["method"] == "random") & (summary["shots"] == 5)].iloc[0]
    members = [p.episodes.query("shots == 5")["accuracy"].to_numpy() for p in parts if p.method == "random"]
    assert row["seeds"] == 3
    assert row["params"] == 1_000_001
    assert row["search_seconds"] == 101
    assert row["accuracy_mean"] == pytest.approx(np.mean(members))
    assert row["accuracy_std"] == pytest.approx(np.std([m.mean() for m in members], ddof=1))
    over_seeds = np.mean(members, axis=0)
    assert row["ci95"] == pytest.approx(2.0226909 * over_seeds.std(ddof=1) / 40**0.5, rel=1e-6)


def test_table_2_has_the_papers_marks_and_bold_best(parts):
    summary = tables.summarise(parts)
    table = tables.make_table2(summary, {part.method: part.search["options"]["criteria"] for part in parts})
    assert table["Model"].tolist() == ["MetaNTK-NAS", "TE-NAS", "Linear Region", "Random Cell"]
    assert table[["MetaNTK", "NTK", "Linear Region"]].to_numpy().tolist() == [
        ["✓", "", "✓"],
        ["", "✓", "✓"],
        ["", "", "✓"],
        ["", "", ""],
    ]
    bold = tables.bold_best(table, "**{}**")
    for column in ("1-shot, 5cells-48ch", "5-shot, 5cells-48ch"):
        assert [value.startswith("**") for value in bold[column]] == [True, False, False, False]


def test_table_1_sets_the_papers_rows_beside_ours(tmp_path):
    folder = write_part(tmp_path, "metantk", 0, dataset="mini-imagenet")
    table = tables.make_table1(tables.summarise([tables.read_part(folder)]))
    assert (table["Source"] == "paper").sum() == 11
    ours = table.iloc[-1]
    assert (ours["Source"], ours["Cells"], ours["Params"], ours["Search cost"]) == (
        "this run",
        "5",
        "1.00M",
        "100.0 s",
    )
    assert "±" not in ours["5-shot"]  # one seed has no deviation


def test_formats(parts):
    table = tables.make_table2(tables.summarise(parts), METHODS)
    latex = tables.to_latex(table)
    assert "\\toprule" in latex
    assert "±" not in latex
    assert "\\checkmark" in latex
    assert tables.to_markdown(table).count("\n") == 6
    assert [tables.format_seconds(s) for s in (5, 600, 9000)] == ["5.0 s", "10.0 min", "2.50 h"]
    assert [tables.format_count(c) for c in (1_770_000, 30_500)] == ["1.77M", "30.5k"]


def test_unfinished_and_misnamed_parts_are_refused(tmp_path):
    folder = write_part(tmp_path, "random", 0)
    (folder / "search.json").unlink()
    with pytest.raises(InputError, match=r"search\.json"):
        tables.read_part(folder)
    (folder / "episodes.csv").write_text("shots,episode\n1,0\n")
    with pytest.raises(InputError, match=r"episodes\.csv"):
        tables.read_part(folder)
    with pytest.raises(InputError, match="is not named"):
        tables.read_part(tmp_path)
