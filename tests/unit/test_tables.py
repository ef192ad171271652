"""Tables from made-up finished chains: means, marks, differences, and the paper's numbers beside ours."""

import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_chain import ASKED, change, write_chain

import aggregate_tables
from metantk.options import catalogue
from metantk.results import tables
from metantk.runtime.files import InputError
from metantk.statistics import confidence_95

SEARCHES = ("metantk", "te-nas", "linear-regions", "random")
TITLES = tables.Titles(searches=catalogue.TITLES["searches"], learners=catalogue.TITLES["learners"])
DISTANCES = {"metantk": 6.0, "te-nas": 0.3}


@pytest.fixture
def chains(tmp_path) -> list[Path]:
    """Four searches with three seeds each, and a ResNet-12 with one."""
    folders = [
        write_chain(tmp_path, name, seed, shift=DISTANCES.get(name, 0.0)) for name in SEARCHES for seed in (0, 1, 2)
    ]
    return [*folders, write_chain(tmp_path, "fixed", 0, backbone="resnet12")]


@pytest.fixture
def groups(chains):
    return tables.group_chains(map(tables.read_chain, chains))


@pytest.fixture
def summary(groups):
    return tables.summarise(groups, TITLES)


def accuracies_of(chains: list[Path], search: str, shots: int) -> np.ndarray:
    """`(seeds, episodes)`, straight from the files."""
    files = [pd.read_csv(folder / "episodes.csv") for folder in chains if f"/{search}/" in str(folder)]
    return np.array([table.loc[table["shots"] == shots, "accuracy"] for table in files])


# --- Summary -----------------------------------------------------------------------------------------------


def test_summary_means_and_deviations_by_hand(chains, summary):
    assert list(summary.columns) == tables.SUMMARY_COLUMNS
    assert len(summary) == 2 * 5
    row = summary[(summary["search"] == "random") & (summary["shots"] == 5)].iloc[0]
    members = accuracies_of(chains, "random", 5)
    assert (row["dataset"], row["backbone"], row["learner"]) == ("glyphs", "5cells-48ch", "rfs")
    assert (row["model"], row["seeds"], row["device"]) == ("Random Cell", 3, "cpu")
    assert row["params"] == 1_000_001
    assert row["multiply_accumulates"] == 5_000_001  # without the head
    assert row["latency_ms"] == 2.25
    assert row["search_seconds"] == 101
    assert row["search_operations"] == 2.5e12 + 1
    assert row["accuracy_mean"] == pytest.approx(members.mean())
    assert row["accuracy_std"] == pytest.approx(members.mean(1).std(ddof=1))
    assert row["ci95"] == pytest.approx(2.0226909 * members.mean(0).std(ddof=1) / 40**0.5, rel=1e-6)
    single = summary[summary["backbone"] == "resnet12"].iloc[0]
    assert single["model"] == "RFS"  # nothing was searched: the learner names the row
    assert np.isnan(single["accuracy_std"])


def test_pretrained_rows_are_called_by_their_backbones(tmp_path):
    names = {"theirs": {"file": "w", "sha256": "0"}, "others": {"file": "v", "sha256": "1"}, "conv4": None}
    folders = [write_chain(tmp_path, "fixed", 0, backbone=name, learner="none") for name in names]
    for folder, weights in zip(folders, names.values(), strict=True):
        change(folder / "model.json", initial_weights=weights, parameters=0, parameters_in_tests=0)
        change(folder / "evaluation.json", parameters=0)
    groups = tables.group_chains(map(tables.read_chain, folders))
    summary = tables.summarise(groups, TITLES)
    assert summary["model"].unique().tolist() == ["Pretrained (theirs)", "Pretrained (others)", "Not trained"]
    assert summary.set_index("backbone")["pretrained"].to_dict() == {
        "theirs": "yes",
        "others": "yes",
        "conv4": "no",
    }
    assert set(tables.make_table1(summary, groups)["Params"]) == {"0"}


def test_a_latency_that_was_not_measured_is_left_empty(tmp_path):
    folders = [write_chain(tmp_path, "metantk", seed) for seed in range(2)]
    change(folders[1] / "model.json", latency_ms=None)
    groups = tables.group_chains(map(tables.read_chain, folders))
    summary = tables.summarise(groups, TITLES)
    assert summary["latency_ms"].isna().all()
    assert set(tables.make_table1(summary, groups)["Latency"]) == {""}


def test_means_of_each_seed_are_listed(chains, groups):
    table = tables.per_seed(groups)
    # Nothing that a clock measures: tables of a killed run and of another are compared by their bytes.
    assert list(table) == [*tables.KEY, "seed", "params", "multiply_accumulates", "shots", "accuracy"]
    assert len(table) == 2 * len(chains)
    row = table.query("search == 'te-nas' and seed == 2 and shots == 1")
    assert row[["params", "multiply_accumulates"]].to_numpy().tolist() == [[1_000_002, 5_000_002]]
    assert row["accuracy"].tolist() == pytest.approx([accuracies_of(chains, "te-nas", 1)[2].mean()])


def test_a_row_is_what_its_files_say_whatever_its_folder(tmp_path):
    folder = write_chain(tmp_path, "metantk", 3, search_folder="some/where/else")
    (tmp_path / "elsewhere").symlink_to(folder)
    for name in ("search.json", "architecture.json"):
        (tmp_path / name).write_text((folder.parent / name).read_text())
    chain = tables.read_chain(tmp_path / "elsewhere")
    assert chain.key == ("glyphs", "5cells-48ch", "metantk", "rfs")
    assert chain.seed == 3


@pytest.mark.parametrize(
    "different", [{"seed": 1}, {"episodes": 20}, {"ways": 4}, {"queries": 5}, {"shots": [1, 5, 10]}]
)
def test_rows_asked_different_episodes_are_refused(tmp_path, different):
    folders = [
        write_chain(tmp_path, "metantk", 0),
        write_chain(tmp_path, "random", 0, asked=ASKED | different),
    ]
    with pytest.raises(InputError, match="were not evaluated on the same episodes") as error:
        tables.group_chains(map(tables.read_chain, folders))
    assert all(str(folder) in str(error.value) for folder in folders)


@pytest.mark.parametrize("other", ["metantk", "random"])
def test_rows_and_seeds_evaluated_on_different_images_are_refused(tmp_path, other):
    folders = [write_chain(tmp_path, "metantk", 0), write_chain(tmp_path, other, 1)]
    for name in ("model.json", "evaluation.json"):
        change(folders[1] / name, data_sha256="of other images")
    with pytest.raises(InputError, match="were evaluated on different images of glyphs") as error:
        tables.group_chains(map(tables.read_chain, folders))
    assert all(str(folder) in str(error.value) for folder in folders)


def test_seeds_of_one_row_that_were_not_made_alike_are_refused(tmp_path):
    folders = [write_chain(tmp_path, "metantk", seed) for seed in (0, 1, 2)]
    change(folders[0] / "model.json", learner={"kind": "rfs", "epochs": 90})
    with pytest.raises(InputError, match=r"are seeds of one row, but learner\.epochs is 90 and None; run"):
        tables.group_chains(map(tables.read_chain, folders[:2]))
    options = json.loads((folders[1].parent / "search.json").read_text())["options"]
    change(folders[1].parent / "search.json", options=options | {"criteria": ["naswot"]})
    with pytest.raises(InputError, match=r"search\.criteria is .* and "):
        tables.group_chains(map(tables.read_chain, folders[1:]))
    for file in (folders[2] / "model.json", folders[2].parent / "architecture.json"):
        content = json.loads(file.read_text())
        content.get("architecture", content)["channels"] = 16
        file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"backbone\.channels is 48 and 16"):
        tables.group_chains(map(tables.read_chain, [folders[0], folders[2]]))


def test_other_data_sets_and_other_answers_may_differ(tmp_path):
    """Episodes are those of a data set; how a task is answered is a row's own."""
    asked = [ASKED, ASKED | {"support_copies": 1, "classifier": "svm"}]
    folders = [
        write_chain(tmp_path, name, 0, asked=a) for name, a in zip(("metantk", "random"), asked, strict=True)
    ]
    folders.append(write_chain(tmp_path, "metantk", 0, dataset="omniglot", asked=ASKED | {"seed": 5}))
    assert len(tables.group_chains(map(tables.read_chain, folders))) == 3


def test_a_seed_that_is_there_twice_is_refused(tmp_path):
    folders = [write_chain(tmp_path, "random", 0), write_chain(tmp_path, "random", 0, search_folder="copy")]
    with pytest.raises(InputError, match="has a seed twice"):
        tables.group_chains(map(tables.read_chain, folders))


@pytest.mark.parametrize("text", ["[", "[]", "3", '"x"', '{"searches": 3}', '{"searches": [1]}', "null"])
def test_titles_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--titles: "):
        tables.parse_titles(text)


def test_what_has_no_title_stands_for_itself():
    titles = tables.parse_titles('{"searches": {"metantk": "MetaNTK-NAS", "fixed": ""}}')
    assert [titles.model(*names) for names in (("metantk", "rfs"), ("mine", "rfs"), ("fixed", "maml"))] == [
        "MetaNTK-NAS",
        "mine",
        "maml",
    ]


# --- Tables 1 and 2 ----------------------------------------------------------------------------------------


def test_table_2_has_the_papers_marks_and_bold_best(summary, groups):
    table = tables.make_table2(summary, groups)
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


def test_table_2_marks_weights_and_criteria_of_ones_own(tmp_path):
    criteria = [{"meta_ntk_condition": 0.5}, "linear_regions", {"my/own_score.py": 2}]
    mine = write_chain(tmp_path, "mine", 0, search_options={"kind": "prune", "criteria": criteria})
    paper = write_chain(tmp_path, "metantk", 0)
    groups = tables.group_chains(map(tables.read_chain, (mine, paper)))
    table = tables.make_table2(tables.summarise(groups, TITLES), groups)
    columns = ["Model", "MetaNTK", "NTK", "Linear Region", "own_score"]
    assert table[columns].to_numpy().tolist() == [
        ["mine", "✓ × 0.5", "", "✓", "✓ × 2"],
        ["MetaNTK-NAS", "✓", "", "✓", ""],
    ]
    latex = tables.to_latex(table)
    assert r"$\checkmark$ $\times$ 0.5" in latex
    assert r"own\_score" in latex


@pytest.mark.parametrize("criteria", [3, "meta_ntk_condition", [3], [{"x": "much"}], [["x"]], {"a": 1}])
def test_criteria_that_are_none_are_named_with_their_file(tmp_path, criteria):
    folder = write_chain(tmp_path, "mine", 0, search_options={"kind": "prune", "criteria": criteria})
    groups = tables.group_chains([tables.read_chain(folder)])
    with pytest.raises(InputError, match=r"search\.json: .*criteria.*run search_architecture again"):
        tables.make_table2(tables.summarise(groups, TITLES), groups)


def test_searches_without_criteria_have_no_marks(tmp_path):
    """Whatever a user-defined search calls `criteria`, only those of a pruning are marks."""
    folder = write_chain(tmp_path, "mine", 0, search_options={"kind": "my/search.py", "criteria": "many"})
    groups = tables.group_chains([tables.read_chain(folder)])
    table = tables.make_table2(tables.summarise(groups, TITLES), groups)
    assert table[list(tables.MARKS.values())].to_numpy().tolist() == [["", "", ""]]


def test_table_2_has_a_column_for_each_backbone_and_its_gaps_are_empty(tmp_path):
    folders = [
        write_chain(tmp_path, "metantk", 0),
        write_chain(tmp_path, "metantk", 0, backbone="8cells-48ch", shift=1),
        write_chain(tmp_path, "random", 0, backbone="8cells-48ch"),
    ]
    groups = tables.group_chains(map(tables.read_chain, folders))
    table = tables.make_table2(tables.summarise(groups, TITLES), groups)
    assert [column for column in table if "shot" in column] == [
        f"{shots}-shot, {cells}cells-48ch" for shots in (1, 5) for cells in (5, 8)
    ]
    assert (table["1-shot, 5cells-48ch"] == "").tolist() == [False, True]


def test_table_1_sets_the_papers_rows_beside_ours(tmp_path):
    folders = [
        write_chain(tmp_path, "metantk", 0, dataset="mini-imagenet"),
        write_chain(tmp_path, "fixed", 0, dataset="mini-imagenet", backbone="resnet12"),
    ]
    change(folders[1].parent / "search.json", seconds=0.0)
    groups = tables.group_chains(map(tables.read_chain, folders))
    table = tables.make_table1(tables.summarise(groups, TITLES), groups)
    assert Counter(table["Source"]) == {"paper": 11, "this run": 2}
    assert set(table["Data"]) == {"mini-imagenet"}
    cells, resnet = table.iloc[-2], table.iloc[-1]
    names = [
        "Model",
        "Learner",
        "Arch.",
        "Cells",
        "Params",
        "Multiply-accumulates",
        "Latency",
        "Search cost",
        "Search FLOPs",
        "Device",
    ]
    assert cells[names].tolist() == [
        "MetaNTK-NAS",
        "rfs",
        "Cells, 48 channels",
        "5",
        "1.00M",
        "5.0M",
        "1.25 ms",
        "100.0 s",
        "2.5T",
        "cpu",
    ]
    assert resnet[names].tolist() == ["RFS", "rfs", "ResNet-12", "", "1.00M", "5.0M", "1.25 ms", "", "", ""]
    assert "±" not in cells["5-shot"]  # one seed has no deviation
    assert cells["±"] == "one seed"


def test_published_numbers_are_those_of_the_data_file(tmp_path):
    published = pd.read_csv(tables.PUBLISHED, dtype=str, keep_default_na=False)
    assert Counter(published["dataset"]) == {"mini-imagenet": 11, "tiered-imagenet": 7}
    folders = [write_chain(tmp_path, "metantk", 0, dataset=name) for name in ("tiered-imagenet", "glyphs")]
    groups = tables.group_chains(map(tables.read_chain, folders))
    table = tables.make_table1(tables.summarise(groups, TITLES), groups)
    theirs = table[table["Source"] == "paper"]
    expected = published[published["dataset"] == "tiered-imagenet"]
    assert theirs["1-shot"].tolist() == expected["one_shot"].tolist()
    assert theirs["5-shot"].tolist() == expected["five_shot"].tolist()
    assert "71.12 ± 0.49" in set(theirs["1-shot"])  # MetaNTK-NAS, 5 cells
    assert set(theirs["±"]) == {"95 % interval over episodes", "std over seeds"}


def test_data_sets_that_the_paper_does_not_have_carry_none_of_its_rows(summary, groups):
    table = tables.make_table1(summary, groups)
    assert set(table["Data"]) == {"glyphs"}
    assert set(table["Source"]) == {"this run"}
    assert table["±"].tolist() == ["std over seeds (3)"] * 4 + ["one seed"]


def test_the_papers_best_is_not_compared_with_ours_on_other_data(tmp_path):
    folders = [
        write_chain(tmp_path, "metantk", 0, dataset="glyphs"),
        write_chain(tmp_path, "random", 0, dataset="mini-imagenet"),
    ]
    groups = tables.group_chains(map(tables.read_chain, folders))
    bold = tables.bold_best(tables.make_table1(tables.summarise(groups, TITLES), groups), "**{}**")
    best = bold[bold["5-shot"].str.startswith("**")]
    assert best["Data"].tolist() == ["glyphs", "mini-imagenet"]
    assert best["Model"].tolist() == ["MetaNTK-NAS", "MetaNTK-NAS"]


def test_formats(summary, groups):
    table = tables.make_table2(summary, groups)
    latex = tables.to_latex(table)
    assert "\\toprule" in latex
    assert "±" not in latex
    assert "\\checkmark" in latex
    assert tables.to_markdown(table).count("\n") == 6
    assert [tables.format_seconds(s) for s in (5, 600, 9000)] == ["5.0 s", "10.0 min", "2.50 h"]
    assert [tables.format_count(c) for c in (1_770_000, 30_500)] == ["1.77M", "30.5k"]
    counts = (0, 12, 999_000, 4.2e9, 123e9, 2.5e12, 7.1e15, 3e18)
    shown = ["", "12.0", "999k", "4.2G", "123G", "2.5T", "7.1P", "3.0E"]
    assert [tables.format_operations(count) for count in counts] == shown


def test_rows_that_look_alike_are_told_apart(tmp_path):
    names = ("metantk-cells-mini-5", "metantk-cells-tiered-5")
    titles = tables.Titles(searches=dict.fromkeys(names, "MetaNTK-NAS (published cells)"))
    groups = tables.group_chains(tables.read_chain(write_chain(tmp_path, name, 0)) for name in names)
    summary = tables.summarise(groups, titles)
    for table in (tables.make_table1(summary, groups), tables.make_table2(summary, groups)):
        assert table["Model"].tolist() == [f"MetaNTK-NAS (published cells), {name}" for name in names]


def test_all_that_are_best_are_bold():
    table = pd.DataFrame({"Data": ["a", "a", "a"], "1-shot": ["51.10 ± 0.20", "51.10", "50.00"]})
    assert tables.bold_best(table, "**{}**")["1-shot"].tolist() == ["**51.10 ± 0.20**", "**51.10**", "50.00"]


def test_signs_of_latex_and_markdown_in_titles_are_text():
    table = pd.DataFrame({"Model_1": ["A & B | 50 % # {x} ~^\\"], "1-shot": ["51.10 ± 0.20"]})
    latex = tables.to_latex(table)
    assert r"Model\_1 & 1-shot \\" in latex
    title = r"A \& B | 50 \% \# \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert rf"{title} & \textbf{{51.10 $\pm$ 0.20}} \\" in latex
    row = tables.to_markdown(table).splitlines()[-1]
    assert row.replace(r"\|", "").count("|") == 3


# --- Differences -------------------------------------------------------------------------------------------


def test_differences_have_paired_intervals_over_episodes_and_welchs_over_seeds(chains, summary, groups):
    table = tables.differences(summary, groups)
    assert len(table) == 2 * len(list(combinations(range(5), 2)))
    for shots in (1, 5):
        one, other = (accuracies_of(chains, name, shots) for name in ("metantk", "te-nas"))
        row = table[
            (table["other"] == "TE-NAS") & (table["row"] == "MetaNTK-NAS") & (table["shots"] == shots)
        ].iloc[0]
        assert row["difference"] == pytest.approx(one.mean() - other.mean(), abs=6e-4)
        # The same episodes were asked: a paired t-test over them, each averaged over the seeds.
        paired = stats.ttest_rel(one.mean(0), other.mean(0)).confidence_interval(0.95)
        assert row["ci95_episodes"] == pytest.approx((paired.high - paired.low) / 2, abs=6e-4)
        seeds = stats.ttest_ind(one.mean(1), other.mean(1), equal_var=False).confidence_interval(0.95)
        assert row["ci95_seeds"] == pytest.approx((seeds.high - seeds.low) / 2, abs=6e-4)


def test_only_what_exceeds_both_intervals_is_significant(summary, groups):
    table = tables.differences(summary, groups).query("shots == 1").set_index(["row", "other"])
    far, near = table.loc[("MetaNTK-NAS", "Random Cell")], table.loc[("TE-NAS", "Random Cell")]
    assert abs(far["difference"]) > max(far["ci95_episodes"], far["ci95_seeds"])
    assert far["significant"] == "yes"
    # More than chance over episodes, but not over seeds.
    assert near["ci95_episodes"] < abs(near["difference"]) < near["ci95_seeds"]
    assert near["significant"] == "no"
    single = table.loc[("MetaNTK-NAS", "RFS")]
    assert np.isnan(single["ci95_seeds"])
    assert single["significant"] == "unknown: needs 2 seeds"


def test_pairing_leaves_out_what_makes_episodes_hard(tmp_path):
    """Both rows fail on the same episodes: their difference is known better than either accuracy."""
    folders = [write_chain(tmp_path, name, seed, shift=-20) for name in ("metantk", "random") for seed in (0, 1)]
    hard = np.random.default_rng(0).normal(0, 8, 40)
    for folder in folders:
        table = pd.read_csv(folder / "episodes.csv")
        table["accuracy"] += hard[table["episode"]]
        table.to_csv(folder / "episodes.csv", index=False)
        shots = {
            str(count): {"accuracy_mean": values.mean(), "ci95": confidence_95(values)}
            for count, values in table.groupby("shots")["accuracy"]
        }
        change(folder / "evaluation.json", shots=shots)
    groups = tables.group_chains(map(tables.read_chain, folders))
    summary = tables.summarise(groups, TITLES)
    paired = tables.differences(summary, groups)["ci95_episodes"]
    assert (paired < 0.3 * summary["ci95"].min()).all()


def test_rows_of_different_data_sets_are_not_compared_and_do_not_name_each_other(tmp_path):
    folders = [
        write_chain(tmp_path, "metantk", 0, dataset="a", learner="rfs"),
        write_chain(tmp_path, "metantk", 0, dataset="a", learner="maml"),
        write_chain(tmp_path, "metantk", 0, dataset="b", learner="rfs"),
        write_chain(tmp_path, "random", 0, dataset="b", learner="rfs"),
        write_chain(tmp_path, "metantk", 0, dataset="c", learner="maml"),
    ]
    groups = tables.group_chains(map(tables.read_chain, folders))
    table = tables.differences(tables.summarise(groups, TITLES), groups).query("shots == 1")
    assert table[["dataset", "row", "other"]].to_numpy().tolist() == [
        ["a", "MetaNTK-NAS, rfs", "MetaNTK-NAS, maml"],
        ["b", "MetaNTK-NAS", "Random Cell"],
    ]


def test_labels_tell_rows_apart_by_what_differs(tmp_path):
    folders = [
        write_chain(tmp_path, "metantk", 0),
        write_chain(tmp_path, "metantk", 0, backbone="8cells-48ch"),
        write_chain(tmp_path, "random", 0),
        write_chain(tmp_path, "random", 0, learner="maml"),
        write_chain(tmp_path, "te-nas", 0),
    ]
    groups = tables.group_chains(map(tables.read_chain, folders))
    assert list(tables.labels(tables.summarise(groups, TITLES)).values()) == [
        "MetaNTK-NAS, 5cells-48ch",
        "MetaNTK-NAS, 8cells-48ch",
        "Random Cell, rfs",
        "Random Cell, maml",
        "TE-NAS",
    ]


# --- The program -------------------------------------------------------------------------------------------


def aggregate(monkeypatch, chains, output, *flags):
    words = ["aggregate_tables.py", *chains, *flags, "--output", output]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    aggregate_tables.main()


def test_every_table_is_written_in_every_format(monkeypatch, chains, tmp_path):
    aggregate(monkeypatch, chains, tmp_path / "tables")
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    written = ("summary", "table1", "table2", "differences", "costs", "published", "transfer")
    formats = {f"{name}.{suffix}" for name in written for suffix in ("csv", "md", "tex", "html")}
    assert names == formats | {"seeds.csv", "missing.csv", "cover.rst"}
    assert pd.read_csv(tmp_path / "tables" / "missing.csv").empty
    assert "**" in (tmp_path / "tables" / "table2.md").read_text()


def test_episodes_are_read_once(monkeypatch, chains, tmp_path):
    read, read_csv = Counter(), pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda path, **options: (read.update([path]), read_csv(path, **options))[1])
    aggregate(monkeypatch, chains, tmp_path / "tables")
    assert {path: count for path, count in read.items() if path.name == "episodes.csv"} == {
        folder / "episodes.csv": 1 for folder in chains
    }


def test_partial_tables_name_what_is_missing(monkeypatch, chains, tmp_path, caplog):
    (chains[0] / "evaluation.json").unlink()
    (chains[3] / "model.json").unlink()
    (chains[3] / "evaluation.json").unlink()
    unsearched = tmp_path / "glyphs" / "5cells-48ch" / "mine" / "seed0" / "rfs"
    aggregate(monkeypatch, [*chains, unsearched], tmp_path / "tables", "--partial")
    missing = pd.read_csv(tmp_path / "tables" / "missing.csv")
    assert missing.to_numpy().tolist() == [
        [str(chains[0]), "evaluate_episodes"],
        [str(chains[3]), "train_network"],
        [str(unsearched), "search_architecture"],
    ]
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv").query("shots == 1").set_index("search")
    assert summary["seeds"].to_dict() == {
        "metantk": 2,
        "te-nas": 2,
        "linear-regions": 3,
        "random": 3,
        "fixed": 1,
    }
    assert f"{unsearched}: not finished, search_architecture is to come" in caplog.text


def test_unfinished_chains_are_an_error_where_tables_shall_be_whole(monkeypatch, chains, tmp_path):
    (chains[0] / "evaluation.json").unlink()
    with pytest.raises(InputError, match=r"evaluation\.json: cannot be read .*run evaluate_episodes again"):
        aggregate(monkeypatch, chains, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_damaged_files_of_finished_chains_are_an_error_also_in_partial_tables(monkeypatch, chains, tmp_path):
    (chains[0] / "model.json").write_text("{}")
    with pytest.raises(InputError, match="run train_network again"):
        aggregate(monkeypatch, chains, tmp_path / "tables", "--partial")


def test_nothing_finished_is_said_so(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="none of 1 chains is finished yet"):
        aggregate(monkeypatch, [tmp_path], tmp_path / "tables", "--partial")


def test_networks_without_a_search_alone_leave_table_2_empty(monkeypatch, tmp_path):
    folder = write_chain(tmp_path, "fixed", 0, backbone="resnet12")
    aggregate(monkeypatch, [folder], tmp_path / "tables")
    assert pd.read_csv(tmp_path / "tables" / "table2.csv").empty
    assert (tmp_path / "tables" / "table2.md").exists()
    assert pd.read_csv(tmp_path / "tables" / "differences.csv").empty


def test_transductive_rows_and_trainings_that_warned_are_marked(tmp_path):
    plain = write_chain(tmp_path, "random", 0)
    together = [write_chain(tmp_path, "fixed", seed, backbone="conv4", learner="maml") for seed in (0, 1)]
    for folder in together:
        change(folder / "model.json", transductive=True)
    change(together[1] / "model.json", warnings=["the last loss is that of guessing"])
    groups = tables.group_chains(map(tables.read_chain, [plain, *together]))
    summary = tables.summarise(groups, TITLES)
    table = tables.make_table1(summary, groups).set_index("Learner")
    assert table.loc["rfs", "Notes"] == ""
    expected = "transductive; 1 of 2 trainings warned, seed 1: the last loss is that of guessing"
    assert table.loc["maml", "Notes"] == expected
    assert summary.loc[summary["learner"] == "maml", "notes"].unique().tolist() == [expected]
