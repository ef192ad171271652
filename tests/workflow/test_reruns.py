"""Reruns: after a change exactly the jobs that depend on it run again."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_configuration
from PIL import Image

from metantk.options.config import parse_config
from metantk.runtime import plugins
from metantk.runtime.provenance import local_modules

CELLS, CONV4 = "glyphs/3cells-2ch", "glyphs/conv4-2"
PRUNED, SEARCHED = ("metantk", "linear-regions"), ("metantk", "linear-regions", "random")
DRAWN = {f"draw_searches figures/{CELLS}/{search}" for search in SEARCHED}
RESULTS = {"draw_results figures/glyphs"}
TABLES = {"aggregate_tables tables", *RESULTS}
THEORY = {"verify_theory theory"}
INSPECTED = {"inspect_dataset figures/glyphs"}
STAGES = ("search_architecture", "train_network", "evaluate_episodes")


def chains(searches=SEARCHED, *, conv4=True, seeds=(0,), cells=CELLS, learner="rfs"):
    """Folders of trained networks."""
    folders = [f"{cells}/{search}" for search in searches] + [f"{CONV4}/fixed"] * conv4
    return [f"{folder}/seed{seed}/{learner}" for folder in folders for seed in seeds]


def jobs_from(rule, folders=None):
    """The jobs of a rule for some chains, and everything downstream of them."""
    folders = chains() if folders is None else folders
    if rule == "prepare_dataset":
        return {"prepare_dataset glyphs/data", *INSPECTED} | jobs_from("search_architecture", folders)
    jobs = set(TABLES)
    for stage in STAGES[STAGES.index(rule) :]:
        for folder in folders:
            *place, seed, _ = folder.split("/")
            if stage == "search_architecture":
                jobs.add(f"{stage} {'/'.join([*place, seed])}")
                if place[-1] != "fixed":
                    jobs.add(f"draw_searches figures/{'/'.join(place)}")
            else:
                jobs.add(f"{stage} {folder}")
    return jobs


ALL = jobs_from("prepare_dataset") | THEORY
SEARCHES = ("metantk", "linear-regions", "random", "fixed")
OF_CELLS, OF_CONV4 = ("train cells", "evaluate cells"), ("train conv4", "evaluate conv4")
TRAINED = ("train cells", "train conv4")
EVALUATED = ("evaluate cells", "evaluate conv4")
LEARNED = (*TRAINED, *EVALUATED)
FIGURES = ("draw_searches", "draw_results")
READERS = ("prepare", "inspect", *SEARCHES, *LEARNED, "theory")
EVERYTHING = (*READERS, "aggregate", *FIGURES)

# Behind which jobs of the tiny configuration files of scripts/ stand; written by hand, not computed. What is not
# listed stands behind none. Searches are called by their names, trainings and evaluations by the backbone.
BEHIND = {
    EVERYTHING: """
        metantk/__init__.py metantk/runtime/command_line.py metantk/options/__init__.py metantk/options/base.py
        metantk/runtime/__init__.py metantk/runtime/plugins.py metantk/runtime/files.py
        metantk/runtime/typed_files.py
    """,
    READERS: "metantk/data/__init__.py metantk/data/duplicates.py metantk/data/manifest.py metantk/data/store.py",
    ("prepare",): """
        prepare_dataset.py metantk/options/dataset.py metantk/data/arrays.py metantk/data/listing.py
        metantk/data/layouts.py metantk/data/class_splits.py metantk/data/caps.py metantk/data/image_files.py
        metantk/data/needs.py metantk/data/cifar.py
        metantk/data/folder.py metantk/data/omniglot.py metantk/data/published.py
        metantk/data/ren.py metantk/data/rfs.py metantk/data/sources.py
        metantk/data/split_lists.py metantk/data/unpickle.py metantk/data/downloads.py
        metantk/data/published_splits.py metantk/data/torchvision_sets.py
    """,
    ("prepare", "theory"): "metantk/data/glyphs.py",
    ("inspect",): "inspect_dataset.py metantk/data/contact_sheet.py",
    (*SEARCHES, *LEARNED): "metantk/runtime/checkpoints.py",
    (*SEARCHES, *LEARNED, "theory"): """
        metantk/runtime/devices.py metantk/runtime/leases.py metantk/runtime/memory.py
        metantk/runtime/provenance.py
    """,
    SEARCHES: """
        search_architecture.py metantk/searches/__init__.py metantk/searches/base.py
    """,
    PRUNED: """
        metantk/searches/prune.py metantk/criteria/__init__.py
        metantk/criteria/base.py metantk/criteria/chunks.py metantk/criteria/linear_regions.py
        metantk/criteria/inputs.py metantk/options/criteria/__init__.py
        metantk/options/criteria/linear_regions.py metantk/searches/plan.py
        metantk/criteria/formulas.py
    """,
    # Tables read the weights of criteria from a search's options.
    (*PRUNED, "aggregate", *FIGURES): """
        metantk/options/searches/measuring.py metantk/options/searches/prune.py
    """,
    (
        "aggregate",
        *FIGURES,
    ): """
        metantk/options/searches/bayesian_optimisation.py metantk/options/searches/best_of.py
        metantk/results/records.py metantk/results/tables.py
    """,
    (*SEARCHES, "aggregate", *FIGURES): "metantk/options/searches/__init__.py",
    (*SEARCHED, "aggregate", *FIGURES): "metantk/options/budget.py",
    SEARCHED: """
        metantk/searches/budget.py metantk/searches/latency.py metantk/space/budget.py metantk/space/paths.py
        metantk/space/sizes.py
    """,
    (*SEARCHED, *OF_CELLS): "metantk/options/backbones/cells.py metantk/space/layouts.py",
    ("metantk",): """
        metantk/criteria/gram.py metantk/criteria/meta_ntk.py metantk/options/criteria/meta_ntk.py
    """,
    ("random",): "metantk/searches/sample.py metantk/options/searches/sample.py",
    ("fixed",): "metantk/searches/fixed.py metantk/options/searches/fixed.py",
    (*PRUNED, "theory"): "metantk/kernels.py metantk/space/supernet.py",
    (*PRUNED, *EVALUATED, "theory"): "metantk/data/episodes.py",
    (*PRUNED, *LEARNED): "metantk/data/transforms.py",
    (*PRUNED, *LEARNED, "theory"): "metantk/flops.py",
    (*PRUNED, *LEARNED, "aggregate", *FIGURES): "metantk/options/augmentation.py",
    ("fixed", *OF_CONV4): "metantk/options/backbones/conv4.py",
    (*SEARCHED, *OF_CELLS, "draw_searches", "theory"): "metantk/space/__init__.py metantk/space/genotype.py",
    # Searches may be held to a latency.
    (*SEARCHED, *LEARNED): "metantk/backbones/__init__.py",
    (*SEARCHED, *TRAINED): "metantk/backbones/graph.py metantk/backbones/latency.py",
    LEARNED: """
        metantk/backbones/counting.py metantk/backbones/drop.py
        metantk/backbones/recompute.py
        metantk/options/backbones/__init__.py
        metantk/learners/__init__.py metantk/learners/base.py metantk/learners/linear.py metantk/learners/rfs.py
        metantk/models.py metantk/options/learners/__init__.py metantk/options/learners/rfs.py
        metantk/data/images.py metantk/meta_learning/__init__.py metantk/meta_learning/balance.py
    """,
    OF_CELLS: """
        metantk/backbones/cells.py metantk/space/channels_last.py metantk/space/depthwise.py
        metantk/space/operations.py
    """,
    OF_CONV4: "metantk/backbones/conv4.py",
    (*OF_CELLS, *OF_CONV4): "metantk/backbones/initial.py",
    TRAINED: "train_network.py metantk/training.py metantk/runtime/divergence.py",
    EVALUATED: "evaluate_episodes.py metantk/evaluation.py",
    (*EVALUATED, "aggregate", *FIGURES): "metantk/options/evaluation.py",
    (*EVALUATED, "aggregate", *FIGURES, "theory"): "metantk/statistics.py",
    ("aggregate",): """
        aggregate_tables.py metantk/results/costs.py metantk/results/layout.py metantk/results/published_results.py
        metantk/results/pages.py metantk/results/transfer.py
    """,
    ("draw_searches",): """
        draw_searches.py metantk/results/figures/cells.py metantk/results/figures/effects.py
        metantk/results/figures/search_curves.py metantk/results/figures/search_trace.py
    """,
    ("draw_results",): """
        draw_results.py metantk/results/figures/accuracies.py metantk/results/figures/front.py
        metantk/results/figures/training_curves.py
    """,
    ("aggregate", *FIGURES, "theory"): "metantk/results/__init__.py",
    FIGURES: "metantk/results/figures/palette.py",
    (*FIGURES, "theory"): "metantk/results/figures/__init__.py metantk/results/figures/style.py",
    ("theory",): """
        verify_theory.py metantk/options/theory.py metantk/theory/__init__.py metantk/theory/figures.py
        metantk/theory/judgements.py metantk/theory/kernel_checks.py metantk/theory/kernels.py
        metantk/theory/learner.py metantk/theory/maml.py metantk/theory/measurements.py
        metantk/theory/networks.py metantk/theory/report.py metantk/theory/tasks.py
        metantk/theory/training_checks.py metantk/theory/verdicts.py
    """,
}


def test_every_file_of_scripts_is_behind_the_jobs_that_use_it(repository):
    scripts = repository / "scripts"
    config = parse_config(tiny_configuration())
    cells, conv4 = (plugins.module_files("backbones", config.backbone(name)) for name in ("3cells-2ch", "conv4-2"))
    shapes = dict.fromkeys(SEARCHED, "cells") | {"fixed": "conv4"}
    rfs = plugins.module_files("learners", config.learner("rfs"))
    files = {
        "prepare": ["prepare_dataset.py"],
        "inspect": ["inspect_dataset.py"],
        **{
            search: [
                "search_architecture.py",
                plugins.options_file("backbones", shape),
                *plugins.module_files("searches", config.search(search)),
            ]
            for search, shape in shapes.items()
        },
        "train cells": ["train_network.py", *cells, *rfs],
        "train conv4": ["train_network.py", *conv4, *rfs],
        "evaluate cells": ["evaluate_episodes.py", *cells, *rfs],
        "evaluate conv4": ["evaluate_episodes.py", *conv4, *rfs],
        "aggregate": ["aggregate_tables.py"],
        "draw_searches": ["draw_searches.py"],
        "draw_results": ["draw_results.py"],
        "theory": ["verify_theory.py"],
    }
    behind = {job: set(local_modules(*(scripts / file for file in own))) for job, own in files.items()}
    found = {
        path.relative_to(scripts).as_posix(): {job for job, modules in behind.items() if path in modules}
        for path in scripts.rglob("*.py")
    }
    used = {file: jobs for file, jobs in found.items() if jobs}
    assert used == {file: set(jobs) for jobs, listed in BEHIND.items() for file in listed.split()}


def set_key(configuration, path, value):
    *parents, last = path.split(".")
    for parent in parents:
        configuration = configuration.setdefault(parent, {})
    configuration[last] = value


def row(searches, learner="rfs", backbone="3cells-2ch"):
    return {"backbone": backbone, "search": searches, "learner": learner}


CONV4_ROW = {"backbone": "conv4-2", "learner": "rfs"}
ONLY_METANTK = chains(["metantk"], conv4=False)
ONLY_PRUNED = chains(PRUNED, conv4=False)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("datasets.glyphs.images_per_class", 26, jobs_from("prepare_dataset")),
        ("searches.prune.repeats", 2, jobs_from("search_architecture", ONLY_PRUNED)),
        ("searches.metantk", {"repeats": 2}, jobs_from("search_architecture", ONLY_METANTK)),
        ("searches.unused", {"kind": "prune", "criteria": ["ntk_condition"]}, set()),
        ("criteria.linear_regions.images", 61, jobs_from("search_architecture", ONLY_PRUNED)),
        ("criteria.meta_ntk.ridge", 0.01, jobs_from("search_architecture", ONLY_METANTK)),
        ("criteria.ntk.images", 7, set()),
        ("backbones.conv4-2.channels", 3, jobs_from("search_architecture", chains([]))),
        ("backbones.unused", {"kind": "resnet12"}, set()),
        ("learners.rfs.lr", 0.5, jobs_from("train_network")),
        ("learners.rfs.augmentation.flip", False, jobs_from("train_network")),
        ("learners.rfs-resnet12", {"lr": 0.1}, set()),
        ("evaluation.episodes", 5, jobs_from("evaluate_episodes")),
        ("evaluation.seed", 1, jobs_from("evaluate_episodes")),
        # More classes per episode than any other stage asks for.
        ("evaluation.ways", 6, jobs_from("evaluate_episodes")),
        ("theory.times", [2], THEORY),
        ("theory.learner.meta_steps", 3, THEORY),
        # Searches are drawn for all seeds at once.
        ("seeds", [0, 1], jobs_from("search_architecture", chains(seeds=[1]))),
        # A row more, or fewer.
        (
            "rows",
            [row([*SEARCHED, "te-nas"]), CONV4_ROW],
            jobs_from("search_architecture", chains(["te-nas"], conv4=False)),
        ),
        ("rows", [row(["metantk", "random"]), CONV4_ROW], TABLES),
        (
            "rows",
            [row(SEARCHED), CONV4_ROW, row("random", backbone="2cells-2ch")],
            jobs_from("search_architecture", chains(["random"], conv4=False, cells="glyphs/2cells-2ch")),
        ),
        (
            "rows",
            [row(SEARCHED, learner=["rfs", "rfs-resnet12"]), CONV4_ROW],
            jobs_from("train_network", chains(conv4=False, learner="rfs-resnet12")),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_key_reruns_what_depends_on_it(finished, key, value, expected):
    configuration = finished.configuration
    set_key(configuration, key, value)
    finished.configure(configuration)
    assert finished.planned("all", "theory") == expected


def edit_code(house, *files):
    for file in files:
        path = house.path / "scripts" / file
        path.write_text(path.read_text() + "\nedited = 1\n")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("metantk/runtime/files.py", ALL),
        ("metantk/data/store.py", ALL),
        ("metantk/data/omniglot.py", jobs_from("prepare_dataset")),
        ("metantk/searches/base.py", jobs_from("search_architecture")),
        ("metantk/searches/prune.py", jobs_from("search_architecture", ONLY_PRUNED)),
        ("metantk/searches/sample.py", jobs_from("search_architecture", chains(["random"], conv4=False))),
        ("metantk/criteria/meta_ntk.py", jobs_from("search_architecture", ONLY_METANTK)),
        ("metantk/options/criteria/meta_ntk.py", jobs_from("search_architecture", ONLY_METANTK)),
        ("metantk/kernels.py", jobs_from("search_architecture", ONLY_PRUNED) | THEORY),
        ("metantk/backbones/conv4.py", jobs_from("train_network", chains([]))),
        ("metantk/backbones/cells.py", jobs_from("train_network", chains(conv4=False))),
        ("metantk/learners/rfs.py", jobs_from("train_network")),
        ("metantk/training.py", jobs_from("train_network")),
        ("metantk/evaluation.py", jobs_from("evaluate_episodes")),
        ("metantk/statistics.py", jobs_from("evaluate_episodes") | DRAWN | THEORY),
        ("metantk/data/contact_sheet.py", INSPECTED),
        ("metantk/results/tables.py", TABLES | DRAWN),
        ("metantk/results/figures/cells.py", DRAWN),
        ("metantk/results/figures/accuracies.py", RESULTS),
        ("metantk/results/figures/style.py", DRAWN | RESULTS | THEORY),
        ("metantk/theory/report.py", THEORY),
    ],
)
def test_edited_code_reruns_the_jobs_behind_which_it_stands(finished, module, expected):
    edit_code(finished, module)
    assert finished.planned("all", "theory") == expected


def test_code_that_no_job_uses_reruns_nothing(finished):
    used = {file for listed in BEHIND.values() for file in listed.split()}
    files = {
        path.relative_to(finished.path / "scripts").as_posix() for path in finished.path.glob("scripts/**/*.py")
    }
    unused = files - used
    for family in (
        "backbones/resnet12",
        "criteria/ntk",
        "searches/given",
        "learners/maml",
        "options/config",
    ):
        assert f"metantk/{family}.py" in unused
    edit_code(finished, *unused)
    assert finished.planned("all", "theory") == set()


def add_kind(house, family, name, like):
    """A new built-in kind: its module, its options, and its line in the catalogue."""
    library = house.path / "scripts" / "metantk"
    for folder in (library / family, library / "options" / family):
        source = (folder / f"{like}.py").read_text()
        (folder / f"{name}.py").write_text(
            source.replace(f"{family}.{like}", f"{family}.{name}").replace(f'"{like}"', f'"{name}"')
        )
    add_entry(house, f'"{family}": {{', f'"{name}": Entry({{"kind": "{name}"}}, "new", "New"),')


def add_entry(house, table, line):
    """Add a line to a table of the catalogue."""
    edit_catalogue(house, table, f"{table}\n{line}")


def edit_catalogue(house, old, new):
    catalogue = house.path / "scripts" / "metantk" / "options" / "catalogue.py"
    text = catalogue.read_text()
    assert text.count(old) == 1
    catalogue.write_text(text.replace(old, new))


def test_what_is_added_reruns_nothing_that_is_finished(finished):
    """A backbone, a search, a learner, a criterion and a figure; the first four are used, too."""
    library = finished.path / "scripts" / "metantk"
    add_kind(finished, "backbones", "newnet", like="conv4")
    add_kind(finished, "searches", "newsearch", like="sample")
    add_kind(finished, "learners", "newlearner", like="rfs")
    criterion = (library / "criteria" / "counts.py").read_text()
    (library / "criteria" / "new.py").write_text(criterion.replace('    "layers": c', '    "newcriterion": c'))
    add_entry(finished, "dict[str, CriterionEntry] = {", '"newcriterion": CriterionEntry("new", "x"),')
    by_new = '"by-new": Entry({"kind": "prune", "criteria": ["newcriterion"]}, "new"),'
    add_entry(finished, '"searches": {', by_new)
    (library / "results" / "figures" / "new.py").write_text("drawn = 1\n")
    assert finished.planned("all", "theory") == set()
    configuration = finished.configuration
    configuration["rows"] += [
        row(["newsearch", "by-new"]),
        {"backbone": "newnet", "learner": "newlearner"},
    ]
    finished.configure(configuration)
    added = [f"{CELLS}/{search}/seed0/rfs" for search in ("newsearch", "by-new")]
    added.append("glyphs/newnet/fixed/seed0/newlearner")
    assert finished.planned("all", "theory") == jobs_from("search_architecture", added)


def test_another_title_redraws_tables_and_figures_only(finished):
    edit_catalogue(finished, '"MetaNTK-NAS",', '"Another title",')
    assert finished.planned("all", "theory") == TABLES | {f"draw_searches figures/{CELLS}/metantk"}


def test_touching_everything_reruns_nothing(finished):
    files = [path for path in finished.path.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    assert any(path.name == "architecture.json" for path in files)
    for path in files:
        os.utime(path)
    assert finished.planned("all", "theory") == set()


def test_comments_formatting_and_documentation_of_code_rerun_nothing(finished):
    changed = 0
    for path in finished.path.glob("scripts/**/*.py"):
        text = path.read_text()
        new = "# a comment\n\n" + re.sub(r'\A"""', '"""Other words. ', text)
        new = new.replace('description="', 'description="Other words. ').replace(" = Field(", " = Field(  # why\n")
        changed += new.count("Other words. ")
        path.write_text(new + "\n\n# another\n")
    assert changed > 200
    assert finished.planned("all", "theory") == set()


def test_comments_and_the_order_of_keys_rerun_nothing(finished):
    configuration = finished.configuration
    configuration["criteria"] = dict(reversed(configuration["criteria"].items()))
    finished.configure(dict(reversed(configuration.items())))
    with (finished.path / "config" / "config.yaml").open("a") as file:
        file.write("# a comment\n")
    assert finished.planned("all", "theory") == set()


def test_a_default_that_is_written_out_reruns_nothing(finished):
    configuration = finished.configuration
    set_key(configuration, "learners.rfs.momentum", 0.9)
    set_key(configuration, "searches.metantk", {"kind": "prune", "random_numbers": "common"})
    finished.configure(configuration)
    assert finished.planned("all", "theory") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cores", 1),
        ("--cores", 8, "--resources", "gpu=4", "mem_mb=1000"),
        ("--set-threads", "train_network=2", "search_architecture=2"),
        ("--set-resources", "train_network:mem_mb=1", "evaluate_episodes:runtime=1", "search_architecture:gpu=0"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_resources_rerun_nothing(finished, arguments):
    assert finished.planned(*arguments) == set()


def test_threads_and_resources_of_the_rules_rerun_nothing(finished):
    rules = finished.path / "workflow" / "rules"
    for path in rules.glob("*.smk"):
        text = re.sub(r"threads: (1|THREADS)\b", "threads: 2", path.read_text())
        path.write_text(text.replace("Needs(mb=", "Needs(mb=1"))
    assert finished.planned("all", "theory") == set()


def test_a_run_after_a_change_runs_those_jobs_and_then_nothing(finished):
    configuration = finished.configuration
    set_key(configuration, "evaluation.episodes", 5)
    finished.configure(configuration)
    state = [*finished.path.glob("results/**/architecture.json"), *finished.path.glob("results/**/model.*")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in state]
    assert len(state) == 3 * len(chains())
    assert finished.jobs("--cores", 2) == jobs_from("evaluate_episodes")
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in state] == before
    episodes = (finished.path / f"results/{CELLS}/random/seed0/rfs/episodes.csv").read_text()
    assert len(episodes.splitlines()) == 1 + 5 * 2  # one header; five episodes of 1 and of 5 shots
    assert finished.planned() == set()


MANIFEST = "results/photos/data/manifest.json"


@pytest.fixture
def photos(tiny_house):
    """A folder of images, prepared by the workflow; the folder."""
    folder = tiny_house.path / "photos"
    for part in ("train", "val", "test"):
        for index in range(5):
            for image in range(3):
                save_image(folder / part / f"{part}{index}" / f"{image}.png", value=10 * index + image)
    configuration = tiny_house.configuration
    configuration["datasets"] = {"photos": {"source": "photos", "image_size": 16}}
    configuration["evaluation"] |= {"shots": [1], "queries": 1}
    tiny_house.configure(configuration)
    assert tiny_house.jobs("--cores", 1, MANIFEST) == {"prepare_dataset photos/data"}
    assert tiny_house.planned(MANIFEST) == set()
    return folder


@pytest.fixture
def many_photos(tiny_house, request):
    """The same, where 10 files are many already."""
    common = tiny_house.path / "workflow" / "rules" / "common.smk"
    text = common.read_text()
    assert "MANY_FILES = 2000" in text
    common.write_text(text.replace("MANY_FILES = 2000", "MANY_FILES = 10"))
    return request.getfixturevalue("photos")


def save_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), value, dtype=np.uint8)).save(path)


def edit(folder):
    save_image(folder / "train" / "train0" / "0.png", value=200)


def add(folder):
    save_image(folder / "train" / "train0" / "new.png", value=200)


def remove(folder):
    (folder / "train" / "train0" / "0.png").unlink()


@pytest.mark.parametrize("change", [edit, add, remove])
def test_a_changed_source_folder_is_prepared_again(photos, tiny_house, change):
    change(photos)
    assert tiny_house.planned(MANIFEST) == {"prepare_dataset photos/data"}


@pytest.mark.parametrize("change", [edit, add, remove])
def test_a_changed_source_folder_of_many_files_is_prepared_again(many_photos, tiny_house, change):
    change(many_photos)
    assert tiny_house.planned(MANIFEST) == {"prepare_dataset photos/data"}


def test_touched_source_images_of_many_rerun_nothing(many_photos, tiny_house):
    for path in many_photos.rglob("*.png"):
        os.utime(path)
    assert tiny_house.planned(MANIFEST) == set()


def test_touched_source_images_rerun_nothing(photos, tiny_house):
    for path in photos.rglob("*.png"):
        os.utime(path)
    assert tiny_house.planned(MANIFEST) == set()
