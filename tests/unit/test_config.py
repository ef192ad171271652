"""Options: strictness, messages, what names stand for, and what each search and learner depends on."""

import json
import re

import pytest
import yaml

from metantk.options import base, catalogue, config
from metantk.options.base import parse
from metantk.options.config import Config, check_study, parse_config
from metantk.options.searches.prune import PruneOptions
from metantk.runtime.files import SCRIPTS, InputError

SMALL = """
datasets: {glyphs: {source: glyphs}}
rows: [{backbone: 5cells-48ch, search: [metantk, random], learner: rfs}]
seeds: [0]
"""
NOWHERE = {"kind": "given", "genotypes": ["no/where.json"]}
CRITERIA = {
    "metantk": {"meta_ntk_condition", "linear_regions"},
    "te-nas": {"ntk_condition", "linear_regions"},
    "linear-regions": {"linear_regions"},
    "random": set(),
    "metanas-cells": set(),
}


def make(**changes):
    return parse_config({**yaml.safe_load(SMALL), **changes})


def test_defaults_are_the_papers_for_mini_imagenet():
    config = make()
    learner = config.learner("rfs")
    assert (learner.epochs, learner.lr, learner.falls) == (100, 0.02, [60, 80])
    assert (learner.momentum, learner.weight_decay, learner.batch_size) == (0.9, 5e-4, 64)
    assert (learner.drop_rate, learner.lr_decay) == (0.2, 0.1)
    assert (config.evaluation.episodes, config.evaluation.shots, config.evaluation.support_copies) == (
        1000,
        [1, 5],
        5,
    )
    search = config.search("metantk")
    assert (search.repeats, search.criteria_options["linear_regions"]["images"]) == (3, 3000)
    meta = config.criteria.meta_ntk
    assert (meta.tasks, meta.ways, meta.shots, meta.queries, meta.ridge) == (3, 5, 1, 1, 1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seedz": [1]}, "unknown key 'seedz'"),
        ({"learners": {"rfs": {"epoch": 3}}}, "learners.rfs: unknown key 'epoch'"),
        ({"learners": {"rfs": yaml.safe_load("lr: 1e-3")}}, "learners.rfs: 'lr'.*'1e-3'"),
        ({"learners": {"rfs": {"milestones": [5, 3]}}}, "learners.rfs: milestones must ascend"),
        ({"learners": {"rfs": {"milestones": [60, 100]}}}, "learners.rfs: milestones: 100 is not below epochs"),
        ({"learners": {"mine": {"epochs": 3}}}, "learners.mine: 'kind' is missing; choose from rfs"),
        ({"learners": {"mine": {"kind": "rsf"}}}, "learners: unknown kind 'rsf': choose from rfs"),
        ({"learners": {"mine": {"kind": 3}}}, "learners: unknown kind 3"),
        ({"seeds": [-1]}, "'seeds.0'"),
        ({"seeds": []}, "'seeds'"),
        ({"seeds": [1, 1]}, "seeds: one is listed twice"),
        ({"rows": []}, "'rows'"),
        ({"rows": [{"backbone": "5cells-48ch", "search": "metantkk"}]}, "unknown searches name 'metantkk': choose"),
        ({"rows": [{"backbone": "5cells-48ch", "search": []}]}, "'rows.0.search'"),
        ({"rows": [{"search": "metantk"}]}, r"'rows.0.backbone' is missing"),
        ({"rows": [{"backbone": "5cells"}]}, "unknown backbones name '5cells'"),
        ({"rows": [{"backbone": "1cells-4ch", "search": "random"}]}, "'cells'.*greater than or equal to 2"),
        ({"rows": [{"backbone": "5cells-4ch"}]}, "5cells-4ch takes a search; choose from metantk"),
        ({"rows": [{"backbone": "conv4", "search": "random"}]}, r"conv4 has nothing to find.*\(random\)"),
        (
            {"rows": [{"backbone": "conv4"}, {"backbone": ["resnet12", "conv4"]}]},
            "conv4 × fixed × rfs is listed twice",
        ),
        ({"datasets": {}}, "'datasets'"),
        (
            {"datasets": {"Birds": {"source": "x"}}},
            "'datasets.Birds': names are small letters, digits, `-` and `_`",
        ),
        ({"rows": [{"backbone": "Conv4"}]}, "'rows.0.backbone.0': names are small letters"),
        ({"backbones": {"conv4": {"channels": 3}}}, "backbones.conv4: is built in; choose another name"),
        ({"searches": {"random": {"kind": "prune"}}}, "searches.random: is built in with kind 'sample'"),
        ({"searches": {"prune": {"kind": "sample"}}}, "searches.prune: is the name of a kind"),
        ({"searches": {"mine": {"kind": "prune"}}}, "searches.mine: 'criteria' is missing"),
        (
            {"searches": {"metantk": {"criteria_options": {}}}},
            "searches.metantk: options of criteria stand in .* `criteria`",
        ),
        ({"searches": {"mine": {"kind": "prune", "criteria": ["nothing"]}}}, "unknown criterion 'nothing'"),
        (
            {"searches": {"mine": {"kind": "prune", "criteria": [{"linear_regions": 0}]}}},
            "criteria.*greater than 0",
        ),
        (
            {"searches": {"mine": {"kind": "prune", "criteria": ["linear_regions", {"linear_regions": 2.0}]}}},
            "one criterion is listed twice",
        ),
        (
            {"criteria": {"meta_ntkk": {"ridge": 1.0}}},
            "criteria: unknown key 'meta_ntkk'.*meta_ntk, ntk, linear_regions",
        ),
        ({"criteria": {"meta_ntk": {"ridge": -1.0}}}, "'criteria.meta_ntk.ridge'"),
        ({"datasets": {"x" * 101: {"source": "glyphs"}}}, "'datasets.x.*x': string should have at most 100"),
        ({"searches": {"x" * 350: {"kind": "sample"}}}, "'searches.*at most 100 characters"),
        (
            {"rows": [{"backbone": "5cells-4ch", "search": "mine"}], "searches": {"mine": NOWHERE}},
            "searches.mine: no/where.json: is neither a file nor the name of a published genotype",
        ),
        (
            {"evaluation": {"test_on": ["birds"]}},
            "evaluation.test_on: unknown data set 'birds': choose from glyphs",
        ),
        ({"evaluation": {"test_on": ["glyphs"]}}, "evaluation.test_on: glyphs is the only data set"),
        ({"evaluation": {"test_on": ["glyphs"] * 2}}, "'evaluation.test_on': one is listed twice"),
        (
            {"searches": {"t-nas": {"image_size": 3}}},
            "searches.t-nas: image_size 3 is too small: layout t-nas needs 4 pixels",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_mistakes_are_named_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("configuration: ")


@pytest.mark.parametrize(
    ("search", "seeds", "study", "message"),
    [
        ("random", 3, {}, "3 different architectures at most, 4 are needed; add seeds"),
        ("few", 9, {}, "3 different architectures at most"),
        ("mine", 9, {}, "1 different architectures at most"),
        ("random", 9, {"space": "darts"}, "searches.random finds cells of space few-shot, not darts"),
        ("mine", 9, {"space": "darts"}, "searches.mine: metanas_in_v2: is not of space darts"),
        ("fixed", 9, {}, "no row has a backbone of kind cells"),
    ],
)
def test_a_study_that_nothing_can_come_of(search, seeds, study, message):
    config = make(
        rows=[{"backbone": "conv4" if search == "fixed" else "5cells-4ch", "search": search}],
        searches={
            "few": {"kind": "sample", "distinct": 3},
            "mine": {"kind": "given", "genotypes": ["metanas_in_v2"] * 4},
        },
        seeds=list(range(seeds)),
        study=study,
    )
    with pytest.raises(InputError, match=f"^study: .*{message}"):
        check_study(config)


def test_a_study_of_cells_that_criteria_do_not_score():
    """An operation may stand twice on an edge; that was found out after all searches and trainings."""
    rows = [{"backbone": "5cells-4ch", "search": ["random", "autometa"]}]
    with pytest.raises(InputError, match=r"study: searches\.autometa: cells of autometa may have"):
        check_study(make(rows=rows, seeds=[0, 1, 2, 3]))


def test_a_study_that_has_enough():
    rows = [{"backbone": "5cells-4ch", "search": ["random", "linear-regions"]}, {"backbone": "conv4"}]
    check_study(make(rows=rows, seeds=[0, 1]))
    darts = {"random": {"space": "darts"}}
    check_study(
        make(
            rows=rows[:1],
            seeds=[0, 1, 2, 3],
            searches=darts | {"prune": {"space": "darts"}},
            study={"space": "darts"},
        )
    )


@pytest.mark.parametrize(
    "folder", [".git", "./.venv/", ".snakemake/results", "a/.git", "x/../.venv", "docs", ".", "tests/unit"]
)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_results_do_not_mix_with_the_workflow(monkeypatch, folder, is_absolute):
    monkeypatch.chdir(SCRIPTS.parent)
    with pytest.raises(InputError, match=r"'results': it (would mix with|has to be a folder)"):
        make(results=str(SCRIPTS.parent / folder) if is_absolute else folder)


def test_results_lie_beside_the_workflow_or_in_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("results", ".test/results", str(SCRIPTS.parent / "results"), "gits/.results"):
        assert make(results=folder).results == folder


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": "9" * 10_000},
        {"x" * 10_000: 1},
        {f"unknown{index}": 1 for index in range(300)},
        {"searches": {"mine": {"kind": "x" * 10_000}}},
        {"rows": [{"backbone": "a" * 10_000}]},
        {"results": ["some\nlines\n" * 100]},
    ],
    ids=["value", "key", "many", "kind", "name", "lines"],
)
def test_errors_are_short_whatever_was_given(changes):
    with pytest.raises(InputError) as caught:
        make(**changes)
    assert len(str(caught.value)) <= 500
    assert "\n" not in str(caught.value)


def test_of_many_mistakes_their_number_is_told():
    with pytest.raises(InputError, match=r"unknown key 'unknown0'; .*; and \d+ more$"):
        make(**{f"unknown{index}": 1 for index in range(300)})


FORMER_KEYS = [
    ("datasets.glyphs.keep_together", "split_by_group"),
    ("datasets.glyphs.leave_out_unreadable", "skip_unreadable"),
    ("searches.prune.repeat", "repeats"),
    ("searches.prune.draws", "random_numbers"),
    ("searches.metantk-bo.first_sample", "initial_samples"),
    ("searches.metantk-bo.block", "samples_per_round"),
    ("searches.metantk-bo.measurements", "max_evaluations"),
    ("searches.metantk-bo.certificate", "random_comparisons"),
    ("searches.metanas.steps", "inner_steps"),
    ("searches.metanas.weight_rate", "inner_lr"),
    ("searches.metanas.meta_alpha_rate", "arch_meta_lr"),
    ("searches.metanas.batch", "inner_batch_size"),
    ("searches.t-nas.steps", "inner_steps"),
    ("searches.t-nas.weight_inner_rate", "inner_lr"),
    ("searches.t-nas.weight_rate", "meta_lr"),
    ("searches.t-nas.theta_rate", "arch_meta_lr"),
    ("searches.autometa.iterations", "meta_steps"),
    ("searches.autometa.steps", "inner_steps"),
    ("searches.autometa.validation_tasks", "validation_episodes"),
    ("learners.rfs.learning_rate", "lr"),
    ("learners.rfs.decay", "lr_decay"),
    ("learners.maml.learning_rate", "meta_lr"),
    ("learners.maml.inner_rate", "inner_lr"),
    ("learners.maml.steps", "steps_per_epoch"),
    ("learners.maml.tasks", "meta_batch_size"),
    ("learners.maml.answer", "test_classifier"),
    ("learners.reptile.learning_rate", "meta_lr"),
    ("learners.metaoptnet.learning_rate", "lr"),
    ("learners.metaoptnet.penalty", "svm_c"),
    ("learners.metanas.steps", "steps_per_epoch"),
    ("learners.metanas.adaptation.steps", "inner_steps"),
    ("criteria.gradients.pictures", "images"),
    ("criteria.gradients.draw", "sampling"),
    ("evaluation.copies", "support_copies"),
    ("evaluation.pool", "support_copy_pool"),
    ("study.draws", "repeats"),
    ("study.short_training", "short_training_epochs"),
    ("theory.rate", "meta_lr"),
    ("theory.steps", "meta_steps"),
    ("theory.learner.steps", "meta_steps"),
]


def nested(path: str, value: object) -> dict:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


@pytest.mark.parametrize(("path", "present"), FORMER_KEYS, ids=lambda value: value)
def test_a_former_key_is_refused_by_its_present_name(path, present):
    section, former = path.rpartition(".")[::2]
    with pytest.raises(InputError, match=f"unknown key '{former}': it is called '{present}' now$") as caught:
        make(**config.merge(yaml.safe_load(SMALL), nested(path, 1)))
    assert all(name in str(caught.value) for name in ("configuration: ", *section.split(".")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("searches.metanas.meta_epochs", "meta-steps are 'epochs' times 'steps_per_epoch' now"),
        ("searches.t-nas.tasks_per_epoch", "'steps_per_epoch' now, in meta-steps of 'meta_batch_size' tasks each"),
    ],
)
def test_a_key_that_counted_something_else_is_refused_by_the_present_unit(path, advice):
    with pytest.raises(InputError, match=advice):
        make(**nested(path, 1))


def test_a_warm_up_in_the_former_unit_is_refused():
    with pytest.raises(InputError, match="warm_up_epochs, 15000, is not below epochs, 30"):
        make(searches={"metanas": {"warm_up_epochs": 15000}})


@pytest.mark.parametrize(
    ("changes", "present"),
    [
        ({"rows": [{"backbone": "5cells-48ch", "search": "metantk-fit"}]}, "metantk-bo"),
        ({"searches": {"fit": {"tolerance": 0.5}}}, "bayesian-optimisation"),
        ({"searches": {"mine": {"kind": "fit"}}}, "bayesian-optimisation"),
        ({"searches": {"trained-fit": {"tolerance": 0.5}}}, "short-training-bo"),
    ],
)
def test_a_former_name_of_a_search_is_refused_by_its_present_one(changes, present):
    with pytest.raises(InputError, match=f": it is called '{present}' now$"):
        make(**changes)


def every_options_class() -> list[type[base.Options]]:
    classes = [
        Config,
        *catalogue.SECTIONS.values(),
        *(kind for of in catalogue.KINDS.values() for kind in of.values()),
    ]
    for options in classes:
        for field in options.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, base.Options) and inner not in classes:
                    classes.append(inner)
    return classes


def test_each_former_name_leads_to_an_option_of_today():
    classes = every_options_class()
    for entry, names in base.FORMER.items():
        owner, former = entry.rpartition(".")[::2]
        of = [options for options in classes if options.__name__ == owner] if owner else classes
        told = {base.present_name(options, former) for options in of if former not in options.model_fields}
        assert told & set(names), entry
    for present in base.FORMER_NAMES.values():
        assert catalogue.named("searches", present) or present in catalogue.KINDS["searches"]


def test_every_description_stands_by_itself():
    """It is read alone: in the schema, in the table of keys, and in `--help`."""
    for options in every_options_class():
        assert re.match(r"[A-Z].*\.$", options.__doc__.splitlines()[0]), options
        for name, field in options.model_fields.items():
            if name == "kind" or hasattr(field.annotation, "model_fields"):
                continue
            text = field.description or ""
            assert re.match(r"[A-Zβλρη]", text), (options, name, text)
            assert not re.search(r"\b(as (for|of) `|the same for|pictures?)\b", text), (options, name, text)
            for sentence in re.split(r"[.;:] ", text):
                assert len(sentence.split()) <= 20, (options, name, sentence)


def test_models_are_tested_on_every_other_data_set_that_is_named():
    datasets = {name: {"source": "glyphs"} for name in ("a", "b", "c")}
    config = make(datasets=datasets, evaluation={"test_on": ["c", "a"], "episodes": 7})
    assert config.transfers == [("a", "c"), ("b", "c"), ("b", "a"), ("c", "a")]
    alone = config.evaluation.episodes_alone
    assert alone.episodes == 7
    assert alone.model_dump() == config.evaluation.model_dump(exclude={"test_on"})
    assert make(datasets=datasets).transfers == []


def test_rows_multiply_in_their_order():
    config = make(
        rows=[
            {"backbone": ["2cells-3ch", "3cells-3ch"], "search": ["random", "metantk"], "learner": "rfs"},
            {"backbone": "conv4", "learner": ["rfs", "rfs-resnet12"]},
        ]
    )
    assert [" ".join(chain) for chain in config.chains] == [
        "2cells-3ch random rfs",
        "2cells-3ch metantk rfs",
        "3cells-3ch random rfs",
        "3cells-3ch metantk rfs",
        "conv4 fixed rfs",
        "conv4 fixed rfs-resnet12",
    ]


def test_built_in_names():
    config = make()
    cells = config.backbone("5cells-48ch")
    assert (cells.kind, cells.cells, cells.channels, cells.searchable) == ("cells", 5, 48, True)
    assert config.backbone("resnet12").pool == "average"
    assert config.backbone("resnet12-flat").pool == "none"
    assert config.learner("rfs-resnet12").lr == 0.05
    assert config.search("metantk-cells-tiered-8").genotypes == [f"metantk_tiered_8cell_{k}" for k in (1, 2, 3)]
    assert config.title("searches", "metantk-cells-mini-5") == "MetaNTK-NAS (published cells)"
    assert config.title("searches", "of-my-own") == "of-my-own"


@pytest.mark.parametrize("family", catalogue.NAMED)
def test_every_built_in_name_has_valid_options_and_a_title(family):
    config = make()
    find = {"backbones": config.backbone, "searches": config.search, "learners": config.learner}[family]
    for name, values in catalogue.NAMED[family].items():
        assert find(name).kind == values["kind"]
        assert family == "backbones" or name in catalogue.TITLES[family]


def test_options_of_a_kind_hold_for_its_names_and_yield_to_theirs():
    config = make(
        searches={"prune": {"repeats": 5, "image_size": 16}, "te-nas": {"repeats": 7}},
        learners={"rfs": {"epochs": 30, "lr": 0.5, "augmentation": {"padding": 1}}},
    )
    assert [config.search(name).repeats for name in ("metantk", "te-nas")] == [5, 7]
    assert config.search("te-nas").image_size == 16
    resnet = config.learner("rfs-resnet12")
    assert (resnet.epochs, resnet.lr, resnet.augmentation.padding) == (30, 0.05, 1)
    assert resnet.augmentation.flip


def test_a_search_and_a_backbone_of_ones_own():
    both = ["meta_ntk_condition", "ntk_condition"]
    config = make(
        rows=[{"backbone": ["mine", "3cells-2ch"], "search": "both"}],
        backbones={"mine": {"kind": "cells", "cells": 4, "channels": 6}},
        searches={"both": {"kind": "prune", "criteria": both}},
    )
    assert config.search("both").criteria == both
    assert set(config.search("both").criteria_options) == {"meta_ntk", "ntk"}
    assert config.backbone("mine").cells == 4


@pytest.mark.parametrize("search", CRITERIA)
def test_a_search_depends_on_the_options_that_it_uses_only(search):
    plain = make().search(search)
    for section, key, value, criterion in [
        ("meta_ntk", "ridge", 1.0e-5, "meta_ntk_condition"),
        ("ntk", "images", 10, "ntk_condition"),
        ("linear_regions", "images", 10, "linear_regions"),
    ]:
        changed = make(criteria={section: {key: value}}).search(search)
        assert (changed != plain) == (criterion in CRITERIA[search])
    assert (make(searches={"prune": {"repeats": 5}}).search(search) != plain) == bool(CRITERIA[search])


def test_search_options_survive_json():
    options = make(criteria={"meta_ntk": {"time": 1.0}}).search("metantk")
    again = parse(PruneOptions, json.loads(json.dumps(options.model_dump())), where="json")
    assert again == options
    assert options.criteria_options["meta_ntk"]["time"] == 1.0
    assert make().search("metantk").criteria_options["meta_ntk"]["time"] == "infinite"


def test_a_configuration_is_not_changed_by_asking(tmp_path):
    config = make()
    before = config.model_dump()
    config.search("metantk"), config.learner("rfs"), config.backbone("5cells-48ch")
    assert config.model_dump() == before
    assert parse(Config, before, where="again").chains == config.chains


def test_nested_values_of_the_command_line_get_the_types_of_yaml():
    """Snakemake 9 reads them as text."""
    values = {"seeds": ["0", "1"], "evaluation": {"ways": "3", "queries": 7}, "results": "results", "rows": []}
    given = {"seeds": ["0", "1"], "evaluation": {"ways": "3"}, "results": "results"}
    expected = {"seeds": [0, 1], "evaluation": {"ways": 3, "queries": 7}, "results": "results", "rows": []}
    assert config.retype(values, given) == expected
    texts = ["true", "null", "1.0e-3", "1e-3", "2026-01-01", "[", "!!python/object:os.system {}", "a: b", "[1]"]
    typed = [True, None, 1e-3, "1e-3", "2026-01-01", "[", "!!python/object:os.system {}", "a: b", "[1]"]
    assert config.retype({"a": texts}, {"a": texts}) == {"a": typed}


@pytest.mark.parametrize("text", [SMALL, '{\n\t"seeds": [0]\n}', "base: &base {a: 1}\nmore: {<<: *base, b: 2}"])
def test_a_configurations_file_is_read_as_snakemake_reads_it(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert config.read_yaml(path) == yaml.safe_load(text.replace("\t", " "))


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", '{"a": 1, "a": 2}', "outer: {a: 1, a: 2}", "- {a: 1, a: 2}"])
def test_a_key_that_stands_twice_is_named(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="'a' stands there twice"):
        config.read_yaml(path)


def test_the_head_counts_where_it_answers_test_tasks():
    row = {"backbone": "conv4", "learner": ["rfs"]}
    config = parse_config({"datasets": {"glyphs": {"source": "glyphs"}}, "rows": [row]})
    using = [name for name in catalogue.NAMED["learners"] if config.learner(name).uses_head]
    assert using == ["maml", "maml-first-order", "maml-plus-plus", "anil", "reptile", "metanas"]


@pytest.mark.parametrize("learner", ["rfs", "none", "maml", "metaoptnet"])
def test_mixed_cells_have_the_learner_that_normalises_by_batches(learner):
    """By any other, an image's answer would depend on how many go through the network together."""
    with pytest.raises(InputError, match="rows: backbone mixed: takes a learner of kind metanas"):
        make(rows=[{"backbone": "mixed", "learner": learner}])
    make(rows=[{"backbone": "mixed", "learner": "metanas"}])


@pytest.mark.parametrize("search", ["metantk", "best-of", "ntk-bo"])
def test_criteria_measure_no_other_layout_than_their_own(search):
    """They would rank networks that nobody builds."""
    backbones = {"two": {"kind": "cells", "cells": 2, "channels": 4, "layout": "t-nas"}}
    with pytest.raises(InputError, match=f"backbone two, search {search}: has layout t-nas; criteria are measured"):
        make(rows=[{"backbone": "two", "search": search}], backbones=backbones)
    config = make(rows=[{"backbone": "two", "search": "random"}], backbones=backbones, seeds=[0, 1, 2, 3])
    with pytest.raises(InputError, match="study: backbone two: has layout t-nas"):
        check_study(config)
