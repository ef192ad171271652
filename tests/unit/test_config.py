"""Options: strictness, messages, and what each method's search depends on."""

import pytest
import yaml
from metantk.config import METHODS, Config, SearchOptions, parse

from metantk.storage import InputError

SMALL = """
datasets: {glyphs: {source: glyphs}}
runs: [{cells: 5, channels: 48}]
methods: [metantk, random]
seeds: [0]
"""


def make(**changes):
    return parse(Config, {**yaml.safe_load(SMALL), **changes}, where="config.yaml")


def test_defaults_are_the_papers_for_mini_imagenet():
    config = make()
    assert (config.training.epochs, config.training.learning_rate, config.training.milestones) == (
        100,
        0.02,
        [60, 80],
    )
    assert (config.training.momentum, config.training.weight_decay, config.training.batch_size) == (0.9, 5e-4, 64)
    assert (config.evaluation.episodes, config.evaluation.shots, config.evaluation.copies) == (1000, [1, 5], 5)
    assert (config.search.repeat, config.search.linear_regions.pictures) == (3, 3000)
    meta = config.search.meta_ntk
    assert (meta.tasks, meta.ways, meta.shots, meta.queries, meta.ridge) == (3, 5, 1, 1, 1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seedz": [1]}, "unknown key 'seedz'"),
        ({"training": {"epoch": 3}}, "unknown key 'training.epoch'"),
        ({"training": yaml.safe_load("learning_rate: 1e-3")}, "'training.learning_rate'.*'1e-3'"),
        ({"seeds": [-1]}, "'seeds.0'"),
        ({"seeds": []}, "'seeds'"),
        ({"seeds": [1, 1]}, "seeds: one is listed twice"),
        ({"methods": ["metantkk"]}, "unknown method 'metantkk': choose from metantk, te-nas"),
        ({"runs": [{"cells": 5}]}, r"'runs.0.channels' is missing"),
        ({"datasets": {}}, "'datasets'"),
        ({"datasets": {"Bad Name": {"source": "x"}}}, "Bad Name"),
        ({"training": {"milestones": [5, 3]}}, "milestones must ascend"),
        ({"search": {"criteria": {"mine": ["nothing"]}}}, "'search.criteria.mine.0.name': input should be"),
        (
            {"search": {"criteria": {"mine": [{"linear_regions": 0}]}}},
            "'search.criteria.mine.0.weighted.linear_regions'",
        ),
        (
            {"search": {"criteria": {"mine": ["linear_regions", {"linear_regions": 2.0}]}}},
            "'search.criteria.mine': one criterion is listed twice",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("config.yaml: ")


def test_methods_of_ones_own():
    config = make(methods=["both"], search={"criteria": {"both": ["meta_ntk_condition", "ntk_condition"]}})
    assert config.search_options("both").criteria == ["meta_ntk_condition", "ntk_condition"]


@pytest.mark.parametrize("method", METHODS)
def test_a_search_depends_on_the_options_that_it_uses_only(method):
    plain = make().search_options(method)
    for section, key, value, criterion in [
        ("meta_ntk", "ridge", 1.0e-5, "meta_ntk_condition"),
        ("ntk", "pictures", 10, "ntk_condition"),
        ("linear_regions", "pictures", 10, "linear_regions"),
    ]:
        changed = make(search={section: {key: value}}).search_options(method)
        assert (changed != plain) == (criterion in METHODS[method])
    assert (make(search={"repeat": 5}).search_options(method) != plain) == bool(METHODS[method])


def test_search_options_survive_json():
    options = make(search={"meta_ntk": {"time": 1.0}}).search_options("metantk")
    assert SearchOptions.model_validate_json(options.model_dump_json()) == options
    assert options.meta_ntk.time == 1.0
    assert make().search_options("metantk").meta_ntk.time == "infinite"
