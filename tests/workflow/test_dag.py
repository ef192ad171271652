"""The workflow before anything runs: its jobs, its resources, its style, and that its schema is up to date."""

import json
import re
import shutil

import jsonschema
import pytest
import yaml
from metantk.config import Config, parse

import write_schema

METHODS = ("metantk", "te-nas", "linear-regions", "random")
SEEDS = (0, 1)


def test_the_default_configuration_makes_these_jobs(copy_of_house):
    configuration = copy_of_house.configuration
    (run,) = configuration["runs"]
    shape = f"glyphs/{run['cells']}cells-{run['channels']}ch"
    parts = [f"{shape}/{method}/seed{seed}" for method in METHODS for seed in SEEDS]
    stages = ("search_architecture", "train_genotype", "evaluate_episodes")
    assert copy_of_house.planned() == {
        "prepare_dataset glyphs/data",
        "inspect_dataset figures/glyphs",
        *(f"{stage} {part}" for stage in stages for part in parts),
        "aggregate_tables tables",
        f"draw_figures figures/{shape}",
    }


# What section 6.1 of the paper and the published code say of each: cells, kernel, λτ, ρ, batch, drop-path, epochs,
# learning rate, milestones.
PAPER = {
    "mini-imagenet-5cells": (5, "maml", "infinite", 1e-3, 64, 0.2, 100, 0.02, [60, 80]),
    "mini-imagenet-8cells": (8, "anil", 1.0, 1e-5, 40, 0.2, 100, 0.02, [60, 80]),
    "tiered-imagenet-5cells": (5, "maml", "infinite", 1e-3, 64, 0.1, 60, 0.01, [30, 40, 50]),
    "tiered-imagenet-8cells": (8, "anil", "infinite", 1e-3, 56, 0.1, 60, 0.01, [30, 40, 50]),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(repository, name):
    config = parse(Config, yaml.safe_load((repository / f"config/paper/{name}.yaml").read_text()), where=name)
    ((run,), search, training) = config.runs, config.search, config.training
    kernel = search.meta_ntk
    assert PAPER[name] == (
        run.cells,
        kernel.kernel,
        kernel.time,
        kernel.ridge,
        training.batch_size,
        training.drop_path,
        training.epochs,
        training.learning_rate,
        training.milestones,
    )
    assert (run.channels, config.seeds, tuple(config.methods)) == (48, [0, 1, 2], METHODS)
    assert (kernel.tasks, kernel.ways, kernel.shots, kernel.queries) == (3, 5, 1, 1)
    assert (search.repeat, search.linear_regions.pictures, search.linear_regions.batches) == (3, 3000, 3)
    assert (training.momentum, training.weight_decay, training.decay) == (0.9, 5e-4, 0.1)
    for augmentation in (training.augmentation, config.evaluation.augmentation):
        assert (augmentation.padding, augmentation.jitter, augmentation.flip) == (8, 0.4, True)
    evaluation = config.evaluation
    assert (evaluation.episodes, evaluation.ways, evaluation.shots, evaluation.queries) == (1000, 5, [1, 5], 15)
    assert (evaluation.copies, evaluation.classifier) == (5, "logistic_regression")


@pytest.mark.parametrize("name", [*(f"paper/{name}" for name in PAPER), "cifar-fs"])
def test_the_papers_configurations_make_these_jobs(copy_of_house, name):
    configuration = yaml.safe_load((copy_of_house.path / f"config/{name}.yaml").read_text())
    ((dataset, options),) = configuration["datasets"].items()
    (run,) = configuration["runs"]
    if dataset != "cifar-fs":
        # A stand-in for the pictures: a dry run asks for their names only.
        (copy_of_house.path / options["source"]).mkdir(parents=True)
        (copy_of_house.path / options["source"] / "train_images.npz").touch()
    shape = f"{dataset}/{run['cells']}cells-48ch"
    parts = [f"{shape}/{method}/seed{seed}" for method in METHODS for seed in (0, 1, 2)]
    stages = ("search_architecture", "train_genotype", "evaluate_episodes")
    assert copy_of_house.planned("--configfile", f"config/{name}.yaml") == {
        f"prepare_dataset {dataset}/data",
        f"inspect_dataset figures/{dataset}",
        *(f"{stage} {part}" for stage in stages for part in parts),
        "aggregate_tables tables",
        f"draw_figures figures/{shape}",
    }
    assert len(parts) == 3 * 4


def planned_resources(house, *arguments):
    """What the jobs of each rule ask for, by rule."""
    # A dry run shows a job's resources only where it has no message of its own.
    for path in house.path.glob("workflow/rules/*.smk"):
        path.write_text(re.sub(r'    message:\n        ".*"\n', "", path.read_text()))
    run = house.snakemake("--dry-run", "--cores", 8, *arguments)
    assert run.returncode == 0, run.stderr
    jobs = r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)$"
    return {rule: asked.split(", ") for rule, asked in re.findall(jobs, run.stdout + run.stderr, re.M)}


def test_search_training_and_evaluation_take_a_gpu_each(tiny_house):
    resources = planned_resources(tiny_house, "all", "theory", "--resources", "gpu=4")
    takers = {rule for rule, asked in resources.items() if "gpu=1" in asked}
    assert takers == {"search_architecture", "train_genotype", "evaluate_episodes"}
    assert resources.keys() - takers >= {"prepare_dataset", "aggregate_tables", "draw_figures", "verify_theory"}


def test_memory_and_time_grow_with_the_data_set_and_yield_to_the_command_line(tiny_house):
    pictures = tiny_house.path / "results" / "glyphs" / "data" / "train" / "images.npy"
    pictures.parent.mkdir(parents=True)
    with pictures.open("wb") as file:
        file.truncate(2 * 10**9)  # a hole of 2 GB: only its size is looked at
    resources = planned_resources(tiny_house, "--set-resources", "search_architecture:mem_mb=123")
    assert {"mem_mb=6400", "runtime=420"} <= set(resources["train_genotype"])
    assert {"mem_mb=4000", "runtime=120"} <= set(resources["evaluate_episodes"])  # reads the test split
    assert {"mem_mb=123", "runtime=240"} <= set(resources["search_architecture"])


def test_the_theory_is_a_target_of_its_own_that_needs_no_pictures(copy_of_house):
    configuration = copy_of_house.configuration
    configuration["datasets"] = {"mine": {"source": "no/such/folder"}}
    copy_of_house.configure(configuration)
    assert copy_of_house.planned("theory") == {"verify_theory theory"}
    assert copy_of_house.planned("theory", "--configfile", "config/theory.yaml") == {"verify_theory theory"}


def test_a_configuration_named_on_the_command_line_stands_alone(copy_of_house):
    configuration = copy_of_house.configuration
    configuration["datasets"] = {"letters": {"source": "glyphs"}}
    configuration["methods"] = ["random"]
    configuration["seeds"] = [3]
    (copy_of_house.path / "mine.yaml").write_text(yaml.safe_dump(configuration))
    jobs = copy_of_house.planned("--configfile", "mine.yaml")
    assert "prepare_dataset letters/data" in jobs
    assert not [job for job in jobs if "glyphs" in job or "metantk" in job or "seed0" in job]


def test_the_schema_and_the_table_of_keys_are_up_to_date(repository):
    outputs = write_schema.outputs()
    assert {path.relative_to(repository).as_posix() for path in outputs} == {
        "workflow/schemas/config.schema.json",
        "config/README.md",
    }
    for path, text in outputs.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: run `make schema`"


def test_every_configuration_in_the_repository_is_valid(repository):
    schema = json.loads((repository / "workflow" / "schemas" / "config.schema.json").read_text())
    files = sorted((repository / "config").rglob("*.yaml"))
    assert repository / "config" / "config.yaml" in files
    for path in files:
        values = yaml.safe_load(path.read_text())
        parse(Config, values, where=str(path))
        jsonschema.validate(values, schema)


def test_the_schema_refuses_what_the_workflow_refuses(repository, copy_of_house):
    schema = json.loads((repository / "workflow" / "schemas" / "config.schema.json").read_text())
    for key, value in (("tuna", 1), ("seeds", ["0"]), ("datasets", {})):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(copy_of_house.configuration | {key: value}, schema)


def test_snakemake_finds_nothing_to_improve(copy_of_house):
    lint = copy_of_house.snakemake("--lint")
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert "Congratulations, your workflow is in a good condition!" in lint.stdout + lint.stderr


def test_snakefmt_finds_nothing_to_change(repository, copy_of_house):
    shutil.copy2(repository / "pyproject.toml", copy_of_house.path)
    check = copy_of_house.run("snakefmt", "--check", "Snakefile", "workflow")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "would be left unchanged" in check.stdout + check.stderr
