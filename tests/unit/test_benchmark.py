"""Tabular benchmarks: what they hold, queries by genotype and by size, replayed searches."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from metantk import backbones, benchmark
from metantk.backbones.counting import count_macs, count_parameters
from metantk.benchmark.replay import SEARCHES, replay
from metantk.benchmark.table import Table
from metantk.options.backbones.cells import CellsOptions
from metantk.options.base import parse
from metantk.runtime.files import SCRIPTS, InputError, canonical_json
from metantk.searches.sample import random_genotype
from metantk.space import paths
from metantk.space.canonical import canonical_genotype
from metantk.space.genotype import SPACES

every_benchmark = pytest.mark.parametrize("name", benchmark.names())


@every_benchmark
def test_sizes_are_those_of_the_networks_that_the_genotypes_build(name):
    table = benchmark.load(name)
    backbone = parse(CellsOptions, table.settings["backbone"], where=name)
    sides = {"glyphs": 20, "caltech101": 32, "cifar-fs": 16}
    (side,) = (side for data, side in sides.items() if name.startswith(data))
    for row in table.trainings.iloc[::20].itertuples():
        network = backbones.build(backbone.architecture(side, json.loads(row.genotype)), 5)
        assert row.parameters == count_parameters(network) - count_parameters(network.head)
        assert row.multiply_accumulates == count_macs(network, side) - network.head.weight.numel()


@every_benchmark
def test_every_row_is_whole(name):
    table = benchmark.load(name)
    assert table.trainings["seed"].is_unique
    assert {"dataset", "space", "learner", "evaluation", "command", "hardware", "date"} <= table.settings.keys()
    assert table.trainings[["accuracy_1shot", "accuracy_5shot"]].to_numpy().min() > 20
    assert np.isfinite(table.trainings[table.criteria].to_numpy(float)).all()
    of_architecture = table.trainings.groupby("architecture")["genotype"].nunique()
    assert (of_architecture == 1).all()
    assert len({canonical_json(canonical_genotype(json.loads(g))) for g in table.architectures["genotype"]}) == len(
        table.architectures
    )


def test_an_architecture_is_found_whatever_the_order_of_its_nodes():
    table = benchmark.load("glyphs-3cells-4ch")
    genotype = random_genotype(SPACES["few-shot"], 3)
    swapped = genotype | {"normal": [node[::-1] for node in genotype["normal"]]}
    assert swapped != genotype
    found = table.query(swapped)
    assert found["architecture"].unique().tolist() == [3]
    assert found["seed"].tolist() == [3, 51]
    with pytest.raises(InputError, match="has no such architecture"):
        table.query(random_genotype(SPACES["few-shot"], 1000))


def test_reordered_nodes_are_one_architecture_and_another_input_is_not():
    pairs = {"normal_concat": [2, 3], "reduce_concat": [2, 3], "reduce": [[["conv_3x3", 0], ["conv_3x3", 1]]] * 2}
    one = pairs | {"normal": [[["skip_connect", 0], ["conv_3x3", 1]], [["conv_3x3", 0], ["conv_3x3", 1]]]}
    same = pairs | {"normal": one["normal"][::-1]}
    other = pairs | {"normal": [[["skip_connect", 1], ["conv_3x3", 0]], [["conv_3x3", 0], ["conv_3x3", 1]]]}
    assert canonical_genotype(one) == canonical_genotype(same) != canonical_genotype(other)


def test_the_best_within_a_limit_is_that_of_a_slow_search():
    table = benchmark.load("caltech101-5cells-8ch")
    limit = table.architectures["parameters"].median()
    means: dict[int, list[float]] = {}
    for row in table.trainings.itertuples():
        if row.parameters <= limit:
            means.setdefault(row.architecture, []).append(row.accuracy_1shot)
    expected = max(means, key=lambda each: sum(means[each]) / len(means[each]))
    assert table.best(shots=1, parameters=limit).name == expected
    with pytest.raises(InputError, match="nothing is within the limits; the smallest has parameters"):
        table.best(parameters=10)
    with pytest.raises(InputError, match="'latency' is no limit"):
        table.best(latency=1)
    with pytest.raises(InputError, match="has no accuracy at 3 shots"):
        table.best(shots=3)
    for none in (None, "10k", float("nan")):
        with pytest.raises(InputError, match=r"parameters is .*, no number"):
            table.best(parameters=none)
    unknown = dataclasses.replace(table, trainings=table.trainings.assign(accuracy_5shot=float("nan")))
    with pytest.raises(InputError, match="has no accuracy at 5 shots"):
        unknown.best()
    assert table.best(shots=1, parameters=np.int64(limit)).name == expected


def test_the_page_counts_what_there_is_and_its_example_runs():
    page = (SCRIPTS.parent / "docs" / "benchmark.md").read_text(encoding="utf-8")
    counts = {
        name: (int(a), int(b)) for name, a, b in re.findall(r"^\| `(\S+)` \|.*\| (\d+) \| (\d+) \|$", page, re.M)
    }
    tables = {name: benchmark.load(name) for name in benchmark.names()}
    assert counts == {name: (len(table.architectures), len(table.trainings)) for name, table in tables.items()}
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    scope: dict = {}
    exec(example.replace("seeds=20", "seeds=1"), scope)
    assert scope["regrets"]["evaluations"].tolist() == list(range(1, 49))


def test_an_unknown_benchmark_is_one_line():
    with pytest.raises(InputError, match="choose from caltech101-5cells-8ch"):
        benchmark.load("imagenet")


@pytest.mark.parametrize("search", SEARCHES)
def test_a_replay_ends_with_the_architecture_that_measured_best(search):
    table = benchmark.load("glyphs-3cells-4ch")
    curves = replay(table, search, seeds=2)
    assert curves.groupby("seed").size().tolist() == [48, 48]
    assert (curves["regret"] >= 0).all()
    # At the end all are evaluated, whatever the order: what is left is the noise of one training against the mean.
    last = curves[curves["evaluations"] == 48].set_index("seed")["regret"]
    pd.testing.assert_series_equal(
        last, replay(table, "random", seeds=2).query("evaluations == 48").set_index("seed")["regret"]
    )


@pytest.mark.slow
def test_a_surrogate_finds_an_additive_optimum_sooner_than_chance():
    space = SPACES["few-shot"]
    genotypes = [random_genotype(space, seed) for seed in range(90)]
    rows = np.stack([paths.row_of(space, genotype) for genotype in genotypes])
    trainings = pd.DataFrame(
        {
            "architecture": range(90),
            "seed": range(90),
            "genotype": [canonical_json(genotype) for genotype in genotypes],
            "accuracy_5shot": rows @ np.random.default_rng(0).normal(size=rows.shape[1]),
        }
    )
    table = Table("made", {"space": "few-shot"}, trainings)
    regret = {name: replay(table, name, seeds=3).query("evaluations == 50")["regret"].mean() for name in SEARCHES}
    assert regret["bayesian-optimisation"] == 0 < regret["random"]


def test_joined_tables_have_numbers_of_their_own():
    table = benchmark.load("glyphs-3cells-4ch")
    rows = [row | {"genotype": json.loads(row["genotype"])} for row in table.trainings.to_dict("records")]
    joined = Table.of("joined", table.settings, rows[5:] + rows[:5])
    assert len(joined.architectures) == len(table.architectures)
    for row in rows:
        assert set(joined.query(row["genotype"])["seed"]) == set(table.query(row["genotype"])["seed"])


def test_scores_are_turned_so_that_larger_is_better():
    table = benchmark.load("cifar-fs-5cells-8ch")
    taus = table.goodness.corrwith(table.architectures["accuracy_1shot"], method="kendall")
    measured = pd.read_csv(SCRIPTS.parent / "tests" / "benchmarks" / "measured" / "criteria-cifar-fs.csv")
    expected = measured[measured["shots"] == 1].set_index("criterion")["tau"]
    assert taus.to_dict() == pytest.approx(expected[taus.index].to_dict(), abs=0.03)  # of first trainings there
    assert taus["meta_ntk_condition"] < -0.2
    unknown = dataclasses.replace(table, settings={"space": "few-shot"})
    with pytest.raises(InputError, match="does not say which way meta_ntk_condition is better"):
        unknown.goodness  # noqa: B018


def test_accuracies_of_other_shots_are_no_criteria():
    table = benchmark.load("glyphs-3cells-4ch")
    more = dataclasses.replace(table, trainings=table.trainings.assign(accuracy_10shot=50.0, ci95_10shot=1.0))
    assert more.criteria == table.criteria


def test_a_replay_leaves_out_what_has_no_accuracy():
    table = benchmark.load("glyphs-3cells-4ch")
    known = table.trainings["accuracy_5shot"].where(table.trainings["architecture"] > 1)
    part = dataclasses.replace(table, trainings=table.trainings.assign(accuracy_5shot=known))
    for search in SEARCHES:
        curves = replay(part, search, seeds=1)
        assert curves["evaluations"].tolist() == list(range(1, 47))
        assert curves["regret"].notna().all()
    none = dataclasses.replace(table, trainings=table.trainings.assign(accuracy_5shot=np.nan))
    with pytest.raises(InputError, match="has no accuracy at 5 shots"):
        replay(none, "random")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns="seed"), "has no column seed"),
        (lambda table: table.iloc[:0], "has no rows"),
        (lambda table: table.assign(accuracy_5shot="61,5"), "column accuracy_5shot holds what is no number"),
        (lambda table: table.assign(seed=np.nan), "column seed has gaps"),
        (lambda table: table.assign(genotype="cells"), "line 2: is neither JSON nor"),
        (lambda table: table.assign(architecture=7), "gives two architectures one number"),
        (lambda table: table.assign(architecture=range(len(table))), "has another number here"),
    ],
)
def test_a_file_that_is_no_benchmark_is_one_line(tmp_path, edit, message):
    table = benchmark.load("glyphs-3cells-4ch")
    dataclasses.replace(table, name="mine", trainings=edit(table.trainings)).write(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        benchmark.load(tmp_path / "mine.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"], ids=["empty", "not text"])
def test_a_file_that_is_no_table_is_one_line(tmp_path, content):
    (tmp_path / "mine.csv").write_bytes(content)
    (tmp_path / "mine.json").write_text('{"space": "few-shot"}')
    with pytest.raises(InputError, match="is no table"):
        benchmark.load(tmp_path / "mine.csv")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(InputError, match="names no space"):
        benchmark.load(tmp_path / "mine.csv")
