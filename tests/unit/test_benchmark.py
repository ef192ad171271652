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
    side = {"glyphs": 20, "caltech101": 32, "cifar-fs": 16}[name.rsplit("-", 2)[0]]
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
    with pytest.raises(InputError, match="nothing is within the limits"):
        unknown.best()


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
