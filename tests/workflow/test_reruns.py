"""Reruns: after a change exactly the jobs that depend on it run again."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metantk.storage import local_modules

METHODS = ("metantk", "linear-regions", "random")
RUN = "glyphs/3cells-2ch"
STAGES = ("search_architecture", "train_genotype", "evaluate_episodes")
THEORY = {"verify_theory"}
ALL_RULES = {"prepare_dataset", "inspect_dataset", *STAGES, "aggregate_tables", "draw_figures", *THEORY}
MODELS = {*STAGES, *THEORY}
READS_DATA = {"prepare_dataset", "inspect_dataset", *STAGES, *THEORY}

# Which rules' scripts import each file of scripts/, directly or not; written by hand, not computed.
IMPORTERS = {
    "aggregate_tables.py": {"aggregate_tables"},
    "build_container.py": set(),
    "classify_images.py": set(),
    "describe_architecture.py": set(),
    "draw_figures.py": {"draw_figures"},
    "evaluate_episodes.py": {"evaluate_episodes"},
    "inspect_dataset.py": {"inspect_dataset"},
    "measure_rank_stability.py": set(),
    "prepare_dataset.py": {"prepare_dataset"},
    "search_architecture.py": {"search_architecture"},
    "show_results.py": set(),
    "train_genotype.py": {"train_genotype"},
    "verify_theory.py": {"verify_theory"},
    "write_schema.py": set(),
    "metantk/__init__.py": ALL_RULES,
    "metantk/command_line.py": ALL_RULES,
    "metantk/config.py": ALL_RULES,
    "metantk/container.py": set(),
    "metantk/contact_sheet.py": {"inspect_dataset"},
    "metantk/costs.py": {"aggregate_tables"},
    "metantk/criteria.py": {"search_architecture"},
    "metantk/datasets/__init__.py": READS_DATA,
    "metantk/datasets/arrays.py": {"prepare_dataset"},
    "metantk/datasets/cifar.py": {"prepare_dataset"},
    "metantk/datasets/folder.py": {"prepare_dataset"},
    "metantk/datasets/glyphs.py": {"prepare_dataset", *THEORY},
    "metantk/datasets/omniglot.py": {"prepare_dataset"},
    "metantk/datasets/published.py": {"prepare_dataset"},
    "metantk/datasets/ren.py": {"prepare_dataset"},
    "metantk/datasets/rfs.py": {"prepare_dataset"},
    "metantk/datasets/sources.py": {"prepare_dataset"},
    "metantk/datasets/split_lists.py": {"prepare_dataset"},
    "metantk/datasets/store.py": READS_DATA,
    "metantk/datasets/unpickle.py": {"prepare_dataset"},
    "metantk/devices.py": MODELS,
    "metantk/episodes.py": {"search_architecture", "evaluate_episodes", *THEORY},
    "metantk/evaluation.py": {"evaluate_episodes"},
    "metantk/figures/__init__.py": {"draw_figures", "verify_theory"},
    "metantk/figures/accuracies.py": {"draw_figures"},
    "metantk/figures/cells.py": {"draw_figures"},
    "metantk/figures/palette.py": {"draw_figures"},
    "metantk/figures/rank_stability.py": set(),
    "metantk/figures/search_trace.py": {"draw_figures"},
    "metantk/figures/style.py": {"draw_figures", "verify_theory"},
    "metantk/figures/training_curves.py": {"draw_figures"},
    "metantk/kernels.py": {"search_architecture", *THEORY},
    "metantk/leases.py": MODELS,
    "metantk/linear_regions.py": {"search_architecture"},
    "metantk/options/__init__.py": ALL_RULES,
    "metantk/options/base.py": ALL_RULES,
    "metantk/options/theory.py": ALL_RULES,
    "metantk/pruning.py": {"search_architecture"},
    "metantk/rank_stability.py": set(),
    "metantk/space/__init__.py": MODELS | {"draw_figures"},
    "metantk/space/genotype.py": MODELS | {"draw_figures"},
    "metantk/space/network.py": {"train_genotype", "evaluate_episodes"},
    "metantk/space/operations.py": {"train_genotype", "evaluate_episodes"},
    "metantk/space/supernet.py": {"search_architecture", *THEORY},
    "metantk/statistics.py": {"evaluate_episodes", "aggregate_tables", "draw_figures", "verify_theory"},
    "metantk/storage.py": ALL_RULES,
    "metantk/tables.py": {"aggregate_tables", "draw_figures"},
    "metantk/theory/__init__.py": THEORY,
    "metantk/theory/figures.py": {"verify_theory"},
    "metantk/theory/judgements.py": {"verify_theory"},
    "metantk/theory/kernel_checks.py": {"verify_theory"},
    "metantk/theory/kernels.py": {"verify_theory"},
    "metantk/theory/learner.py": {"verify_theory"},
    "metantk/theory/maml.py": THEORY,
    "metantk/theory/measurements.py": {"verify_theory"},
    "metantk/theory/networks.py": THEORY,
    "metantk/theory/report.py": {"verify_theory"},
    "metantk/theory/tasks.py": {"verify_theory"},
    "metantk/theory/training_checks.py": {"verify_theory"},
    "metantk/theory/verdicts.py": {"verify_theory"},
    "metantk/training.py": {"train_genotype"},
    "metantk/transforms.py": MODELS - {"verify_theory"},
}


def jobs_of(rule, methods=METHODS, seeds=(0,), run=RUN):
    return {f"{rule} {run}/{method}/seed{seed}" for method in methods for seed in seeds}


def jobs_from(rule, methods=METHODS, seeds=(0,), run=RUN):
    """The jobs of a rule for some methods and seeds, and everything downstream of them."""
    figures = {f"draw_figures figures/{run}"}
    if rule == "draw_figures":
        return figures
    if rule == "aggregate_tables":
        return figures | {"aggregate_tables tables"}
    if rule == "prepare_dataset":
        dataset = run.split("/")[0]
        readers = {f"inspect_dataset figures/{dataset}"} | jobs_from("search_architecture", methods, seeds, run)
        return {f"prepare_dataset {dataset}/data"} | readers
    stages = STAGES[STAGES.index(rule) :]
    jobs = set().union(*(jobs_of(stage, methods, seeds, run) for stage in stages))
    return jobs | jobs_from("aggregate_tables", run=run)


def set_key(configuration, path, value):
    *parents, last = path.split(".")
    for parent in parents:
        configuration = configuration.setdefault(parent, {})
    configuration[last] = value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("datasets.glyphs.images_per_class", 26, jobs_from("prepare_dataset")),
        ("search.repeat", 2, jobs_from("search_architecture", ["metantk", "linear-regions"])),
        ("search.linear_regions.pictures", 61, jobs_from("search_architecture", ["metantk", "linear-regions"])),
        ("search.meta_ntk.ridge", 0.01, jobs_from("search_architecture", ["metantk"])),
        ("search.ntk.pictures", 7, set()),
        ("training.learning_rate", 0.5, jobs_from("train_genotype")),
        ("training.augmentation.flip", False, jobs_from("train_genotype")),
        ("evaluation.episodes", 5, jobs_from("evaluate_episodes")),
        ("evaluation.seed", 1, jobs_from("evaluate_episodes")),
        # More classes per episode than any other stage asks for.
        ("evaluation.ways", 6, jobs_from("evaluate_episodes")),
        ("theory.times", [2], {"verify_theory theory"}),
        ("theory.learner.steps", 3, {"verify_theory theory"}),
        ("seeds", [0, 1], jobs_from("search_architecture", seeds=[1])),
        ("methods", [*METHODS, "te-nas"], jobs_from("search_architecture", ["te-nas"])),
        ("methods", ["metantk", "random"], jobs_from("aggregate_tables")),
        (
            "runs",
            [{"cells": 3, "channels": 2}, {"cells": 2, "channels": 2}],
            # The old run's figures are drawn from the tables, which the new run changes.
            jobs_from("search_architecture", run="glyphs/2cells-2ch") | jobs_from("draw_figures"),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_key_reruns_what_depends_on_it(finished, key, value, expected):
    configuration = finished.configuration
    set_key(configuration, key, value)
    finished.configure(configuration)
    assert finished.planned("all", "theory") == expected


def test_every_file_of_scripts_is_behind_the_rules_that_import_it(repository):
    scripts = repository / "scripts"
    behind = {rule: set(local_modules(scripts / f"{rule}.py")) for rule in ALL_RULES}
    found = {
        path.relative_to(scripts).as_posix(): {rule for rule, modules in behind.items() if path in modules}
        for path in scripts.rglob("*.py")
    }
    assert found == IMPORTERS


@pytest.mark.parametrize(
    ("module", "first_rule"),
    [
        ("metantk/storage.py", "prepare_dataset"),
        ("metantk/datasets/glyphs.py", "prepare_dataset"),
        ("metantk/pruning.py", "search_architecture"),
        ("metantk/kernels.py", "search_architecture"),
        ("metantk/space/network.py", "train_genotype"),
        ("metantk/training.py", "train_genotype"),
        ("metantk/evaluation.py", "evaluate_episodes"),
        ("metantk/statistics.py", "evaluate_episodes"),
        ("metantk/tables.py", "aggregate_tables"),
        ("metantk/figures/cells.py", "draw_figures"),
        ("metantk/figures/style.py", "draw_figures"),
        ("metantk/theory/maml.py", None),
        ("metantk/theory/report.py", None),
    ],
)
def test_edited_code_reruns_the_rules_behind_which_it_stands(finished, module, first_rule):
    with (finished.path / "scripts" / module).open("a") as file:
        file.write("\n# edited\n")
    theory = {"verify_theory theory"} if "verify_theory" in IMPORTERS[module] else set()
    assert finished.planned("all", "theory") == theory | (jobs_from(first_rule) if first_rule else set())


def test_code_that_no_rule_imports_reruns_nothing(finished):
    unused = [name for name, rules in IMPORTERS.items() if not rules]
    for name in unused:
        with (finished.path / "scripts" / name).open("a") as file:
            file.write("\n# edited\n")
    assert unused
    assert finished.planned() == set()


def test_touching_everything_reruns_nothing(finished):
    files = [path for path in finished.path.rglob("*") if path.is_file() and ".snakemake" not in path.parts]
    assert any(path.name == "genotype.json" for path in files)
    for path in files:
        os.utime(path)
    assert finished.planned() == set()


def test_comments_and_the_order_of_keys_rerun_nothing(finished):
    configuration = finished.configuration
    configuration["search"] = dict(reversed(configuration["search"].items()))
    finished.configure(dict(reversed(configuration.items())))
    with (finished.path / "config" / "config.yaml").open("a") as file:
        file.write("# a comment\n")
    assert finished.planned() == set()


def test_a_default_that_is_written_out_reruns_nothing(finished):
    configuration = finished.configuration
    set_key(configuration, "training.momentum", 0.9)
    finished.configure(configuration)
    assert finished.planned() == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cores", 1),
        ("--cores", 8, "--resources", "gpu=4", "mem_mb=1000"),
        ("--set-threads", "train_genotype=2", "search_architecture=2"),
        ("--set-resources", "train_genotype:mem_mb=1", "evaluate_episodes:runtime=1", "search_architecture:gpu=0"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_resources_rerun_nothing(finished, arguments):
    assert finished.planned(*arguments) == set()


def test_a_run_after_a_change_runs_those_jobs_and_then_nothing(finished):
    configuration = finished.configuration
    set_key(configuration, "evaluation.episodes", 5)
    finished.configure(configuration)
    kept = [*finished.path.glob("results/**/genotype.json"), *finished.path.glob("results/**/backbone.safetensors")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
    assert len(kept) == 2 * len(METHODS)
    assert finished.jobs("--cores", 2) == jobs_from("evaluate_episodes")
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept] == before
    episodes = (finished.path / f"results/{RUN}/random/seed0/episodes.csv").read_text()
    assert len(episodes.splitlines()) == 1 + 5 * 2  # one header; five episodes of 1 and of 5 shots
    assert finished.planned() == set()


MANIFEST = "results/photos/data/manifest.json"


@pytest.fixture
def photos(tiny_house):
    """A folder of pictures, prepared by the workflow; the folder."""
    folder = tiny_house.path / "photos"
    for part in ("train", "val", "test"):
        for number in range(5):
            for picture in range(2):
                save_picture(folder / part / f"{part}{number}" / f"{picture}.png", value=10 * number + picture)
    configuration = tiny_house.configuration
    configuration["datasets"] = {"photos": {"source": "photos", "image_size": 12}}
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


def save_picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), value, dtype=np.uint8)).save(path)


def edit(folder):
    save_picture(folder / "train" / "train0" / "0.png", value=200)


def add(folder):
    save_picture(folder / "train" / "train0" / "new.png", value=200)


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


def test_touched_source_pictures_of_many_rerun_nothing(many_photos, tiny_house):
    for path in many_photos.rglob("*.png"):
        os.utime(path)
    assert tiny_house.planned(MANIFEST) == set()


def test_touched_source_pictures_rerun_nothing(photos, tiny_house):
    for path in photos.rglob("*.png"):
        os.utime(path)
    assert tiny_house.planned(MANIFEST) == set()
