"""The workflow before anything runs: its jobs, its resources, its style, and that its schema is up to date."""

import json
import re
import shutil

import jsonschema
import pytest
import yaml

import write_schema
from metantk.options import catalogue
from metantk.options.config import parse_config
from metantk.space.genotype import read_named

STAGES = ("train_network", "evaluate_episodes")


def jobs_of(dataset, chains, seeds):
    """All jobs of a configuration; `chains` are (backbone, search, learner)."""
    searched = {(backbone, search) for backbone, search, _ in chains}
    return {
        f"prepare_dataset {dataset}/data",
        f"inspect_dataset figures/{dataset}",
        "aggregate_tables tables",
        f"draw_results figures/{dataset}",
        *(f"draw_searches figures/{dataset}/{'/'.join(pair)}" for pair in searched if pair[1] != "fixed"),
        *(f"search_architecture {dataset}/{'/'.join(pair)}/seed{seed}" for pair in searched for seed in seeds),
        *(
            f"{stage} {dataset}/{backbone}/{search}/seed{seed}/{learner}"
            for stage in STAGES
            for backbone, search, learner in chains
            for seed in seeds
        ),
    }


def test_the_default_configuration_makes_these_jobs(copy_of_house):
    searches = ("metantk", "te-nas", "linear-regions", "random")
    learners = ("rfs-conv4", "maml-first-order", "metaoptnet", "none")
    chains = [
        *(("3cells-4ch", search, "rfs") for search in searches),
        *(("conv4-16", "fixed", learner) for learner in learners),
    ]
    assert copy_of_house.planned() == jobs_of("glyphs", chains, seeds=(0,))


# What section 6.1 of the paper and the published code say of each: cells, kernel, λτ, ρ, batch, drop-path, epochs,
# learning rate, milestones.
PAPER = {
    "mini-imagenet-5cells": (5, "maml", "infinite", 1e-3, 64, 0.2, 100, 0.02, [60, 80]),
    "mini-imagenet-8cells": (8, "anil", 1.0, 1e-5, 40, 0.2, 100, 0.02, [60, 80]),
    "tiered-imagenet-5cells": (5, "maml", "infinite", 1e-3, 64, 0.1, 60, 0.01, [30, 40, 50]),
    "tiered-imagenet-8cells": (8, "anil", "infinite", 1e-3, 56, 0.1, 60, 0.01, [30, 40, 50]),
}
# Published cells, by configuration, and what tables call the rows of all of them.
CELLS = {
    "mini-imagenet-5cells": "metantk-cells-mini-5",
    "mini-imagenet-8cells": "metantk-cells-mini-8",
    "tiered-imagenet-5cells": "metantk-cells-tiered-5",
    "tiered-imagenet-8cells": "metantk-cells-tiered-8",
    "cifar-fs-5cells": "metantk-cells-mini-5",
}
RESNET12 = ("resnet12", "fixed", "rfs-resnet12")
# The other rows of Table 1, which have networks of their own.
RIVALS = {name: [RESNET12] for name in CELLS} | {
    "mini-imagenet-5cells": [
        ("conv4", "fixed", "maml"),
        ("conv4", "fixed", "nil"),
        ("resnet12-flat", "fixed", "metaoptnet"),
        RESNET12,
        ("5cells-10ch", "autometa", "reptile"),
        ("t-nas-cells", "t-nas", "maml-plus-plus"),
        ("mixed", "fixed", "metanas"),
    ],
    "tiered-imagenet-5cells": [
        ("conv4", "fixed", "maml"),
        ("resnet12-flat", "fixed", "metaoptnet"),
        RESNET12,
    ],
}
TITLES = [
    "MetaNTK-NAS",
    "TE-NAS",
    "Linear Region",
    "Random Cell",
    "MetaNAS (published cells, retrained)",
    "MetaNTK-NAS (published cells)",
]


def rows_of(name):
    """Rows of a configuration of the paper."""
    cells = "5cells-48ch" if name == "cifar-fs-5cells" else f"{PAPER[name][0]}cells-48ch"
    searches = ("metantk", "te-nas", "linear-regions", "random", "metanas-cells", CELLS[name])
    return [*((cells, search, "rfs") for search in searches), *RIVALS[name]]


def read_configuration(repository, name):
    return yaml.safe_load((repository / "config" / "paper" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(repository, name):
    config = parse_config(read_configuration(repository, name))
    assert config.chains == rows_of(name)
    backbone, search, learner = (
        config.backbone(config.chains[0].backbone),
        config.search("metantk"),
        config.learner("rfs"),
    )
    kernel = config.criteria.meta_ntk
    assert PAPER[name] == (
        backbone.cells,
        kernel.kernel,
        kernel.time,
        kernel.ridge,
        learner.batch_size,
        learner.drop_rate,
        learner.epochs,
        learner.lr,
        learner.milestones,
    )
    assert (backbone.channels, config.seeds) == (48, [0, 1, 2])
    assert (kernel.tasks, kernel.ways, kernel.shots, kernel.queries) == (3, 5, 1, 1)
    assert config.criteria.ntk.images == 30
    regions = config.criteria.linear_regions
    assert (regions.images, regions.batches, regions.crop_size) == (3000, 3, 3)
    for pruned in ("metantk", "te-nas", "linear-regions"):
        search = config.search(pruned)
        assert (search.space, search.repeats, search.random_numbers) == ("few-shot", 3, "common")
        assert (search.initialisation, search.image_size) == ("kaiming_normal", 32)
    assert (learner.momentum, learner.weight_decay, learner.lr_decay) == (0.9, 5e-4, 0.1)
    resnet = config.learner("rfs-resnet12")
    assert (resnet.lr, resnet.batch_size, resnet.drop_rate) == (0.05, 64, 0.1)
    assert (resnet.epochs, resnet.milestones) == (learner.epochs, learner.milestones)
    for augmentation in (learner.augmentation, resnet.augmentation, config.evaluation.augmentation):
        assert (augmentation.padding, augmentation.jitter, augmentation.flip) == (8, 0.4, True)
    evaluation = config.evaluation
    assert (evaluation.episodes, evaluation.ways, evaluation.shots, evaluation.queries) == (1000, 5, [1, 5], 15)
    assert (evaluation.support_copies, evaluation.classifier) == (5, "logistic_regression")


def test_rfs_has_its_own_schedule_on_cifar_fs(repository):
    config = parse_config(read_configuration(repository, "cifar-fs-5cells"))
    resnet = config.learner("rfs-resnet12")
    assert (resnet.epochs, resnet.milestones, resnet.lr) == (90, [45, 60, 75], 0.05)
    assert (resnet.augmentation.padding, config.learner("rfs").epochs) == (4, 100)


@pytest.mark.parametrize("name", CELLS)
def test_each_seed_has_published_cells_of_its_own(repository, name):
    config = parse_config(read_configuration(repository, name))
    genotypes = config.search(CELLS[name]).genotypes
    assert len(genotypes) == len(set(genotypes)) == len(config.seeds)
    found = [json.dumps(read_named(genotype)) for genotype in genotypes]
    assert len(set(found)) == len(found)
    assert [config.title("searches", chain.search) for chain in config.chains[: len(TITLES)]] == TITLES
    assert (config.title("searches", "fixed"), config.title("learners", RESNET12[2])) == ("", "RFS")


@pytest.mark.parametrize("name", CELLS)
def test_a_configuration_says_what_it_follows(repository, name):
    path = next((repository / "config").rglob(f"{name}.yaml"))
    head = path.read_text().split("datasets:")[0]
    for word in ("initialisation", "random_numbers", "published" if name in PAPER else "authors"):
        assert word in head


@pytest.mark.parametrize("name", CELLS)
def test_the_papers_configurations_make_these_jobs(copy_of_house, name):
    configuration = read_configuration(copy_of_house.path, name)
    ((dataset, options),) = configuration["datasets"].items()
    if dataset != "cifar-fs":
        # A stand-in for the images: a dry run asks for their names only.
        (copy_of_house.path / options["source"]).mkdir(parents=True)
        (copy_of_house.path / options["source"] / "train_images.npz").touch()
    path = next((copy_of_house.path / "config").rglob(f"{name}.yaml"))
    jobs = copy_of_house.planned("--configfile", path.relative_to(copy_of_house.path))
    fetched = {"download_dataset cifar-fs/download"} if dataset == "cifar-fs" else set()
    wanted = fetched | jobs_of(dataset, rows_of(name), seeds=(0, 1, 2))
    assert jobs == {job.replace(" ", f" paper/{name}/") for job in wanted}, "each in a folder of its own"


def drop_messages(house):
    """A dry run shows a job's resources and threads only where it has no message of its own."""
    for path in (house.path / "workflow" / "Snakefile", *house.path.glob("workflow/rules/*.smk")):
        path.write_text(re.sub(r'    message:\n        ".*"\n', "", path.read_text()))


def planned_resources(house, *arguments):
    """What the jobs of each rule ask for, by rule."""
    drop_messages(house)
    run = house.snakemake("--dry-run", "--cores", 8, *arguments)
    assert run.returncode == 0, run.stderr
    jobs = r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)$"
    resources: dict[str, list[str]] = {}  # of all jobs of a rule
    for rule, asked in re.findall(jobs, run.stdout + run.stderr, re.M):
        resources.setdefault(rule, []).extend(asked.split(", "))
    return resources


def test_search_training_and_evaluation_take_a_gpu_each(tiny_house):
    resources = planned_resources(tiny_house, "all", "theory", "--resources", "gpu=4")
    takers = {rule for rule, asked in resources.items() if "gpu=1" in asked}
    assert takers == {"search_architecture", "train_network", "evaluate_episodes"}
    assert resources.keys() - takers == {
        "prepare_dataset",
        "inspect_dataset",
        "aggregate_tables",
        "draw_searches",
        "draw_results",
        "verify_theory",
        "all",
        "theory",
    }


@pytest.mark.parametrize(("seeds", "cores", "threads"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (1, 1, 1), (9, 8, 1)])
def test_cores_are_shared_among_chains(tiny_house, seeds, cores, threads):
    """One chain takes all; where chains are many, each job takes one core."""
    rows = [{"backbone": "conv4-2", "learner": "rfs"}]
    tiny_house.configure(tiny_house.configuration | {"rows": rows, "seeds": list(range(seeds))})
    drop_messages(tiny_house)
    run = tiny_house.snakemake("--dry-run", "--cores", cores)
    printed = run.stdout + run.stderr
    assert run.returncode == 0, printed
    for rule in ("search_architecture", "train_network", "evaluate_episodes"):
        own = re.findall(rf"^rule {rule}:\n((?:    .*\n)*)", printed, re.M)
        found = [re.search(r"    threads: (\d+)", text) for text in own]
        assert [int(each[1]) if each else 1 for each in found] == [threads] * seeds
    quiet = tiny_house.snakemake("--dry-run", "--quiet", "rules")  # without --cores
    assert quiet.returncode == 0, quiet.stderr


@pytest.mark.parametrize(("search", "gpus"), [("random", []), ("metanas-cells", []), ("linear-regions", ["gpu=1"])])
def test_a_search_that_computes_nothing_takes_no_gpu(tiny_house, search, gpus):
    configuration = tiny_house.configuration
    learner = "none" if search == "random" else "rfs"  # which has nothing to compute, either
    configuration["rows"] = [{"backbone": "3cells-2ch", "search": search, "learner": learner}]
    tiny_house.configure(configuration)
    asked = planned_resources(tiny_house)
    found = {rule: [each for each in asked[rule] if each.startswith("gpu")] for rule in asked}
    assert found["search_architecture"] == gpus
    assert found["train_network"] == ([] if search == "random" else ["gpu=1"])
    assert found["evaluate_episodes"] == ["gpu=1"]


def test_memory_and_time_grow_with_the_data_set_and_yield_to_the_command_line(tiny_house):
    images = tiny_house.path / "results" / "glyphs" / "data" / "train" / "images.npy"
    images.parent.mkdir(parents=True)
    with images.open("wb") as file:
        file.truncate(2 * 10**9)  # a hole of 2 GB: only its size is looked at
    resources = planned_resources(tiny_house, "--set-resources", "search_architecture:mem_mb=123")
    assert {"mem_mb=6400", "runtime=420"} <= set(resources["train_network"])
    assert {"mem_mb=4000", "runtime=120"} <= set(resources["evaluate_episodes"])  # reads the test split
    assert {"mem_mb=123", "runtime=240"} <= set(resources["search_architecture"])


def test_the_theory_is_a_target_of_its_own_that_needs_no_images(copy_of_house):
    configuration = copy_of_house.configuration
    configuration["datasets"] = {"mine": {"source": "no/such/folder"}}
    copy_of_house.configure(configuration)
    assert copy_of_house.planned("theory") == {"verify_theory theory"}
    in_depth = copy_of_house.planned("theory", "--configfile", "config/theory.yaml")
    assert in_depth == {"verify_theory theory-in-depth/theory"}  # in a folder of its own


def test_a_configuration_named_on_the_command_line_stands_alone(copy_of_house):
    configuration = copy_of_house.configuration
    configuration["datasets"] = {"letters": {"source": "glyphs"}}
    configuration["rows"] = [{"backbone": "2cells-2ch", "search": "random"}]
    configuration["seeds"] = [3]
    (copy_of_house.path / "mine.yaml").write_text(yaml.safe_dump(configuration))
    jobs = copy_of_house.planned("--configfile", "mine.yaml")
    assert "prepare_dataset letters/data" in jobs
    assert not [job for job in jobs if "glyphs" in job or "metantk" in job or "seed0" in job]


def test_the_schema_and_the_table_of_keys_are_up_to_date(repository):
    outputs = write_schema.outputs()
    assert {path.relative_to(repository).as_posix() for path in outputs} == {
        "workflow/schemas/config.schema.json",
        "workflow/schemas/config.schema.yaml",
        "config/README.md",
    }
    for path, text in outputs.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: run `make schema`"


def test_every_configuration_in_the_repository_is_valid(repository):
    schemas = repository / "workflow" / "schemas"
    text = (schemas / "config.schema.yaml").read_text()
    assert "$ref" not in text
    assert "$defs" not in text
    both = json.loads((schemas / "config.schema.json").read_text()), yaml.safe_load(text)
    files = sorted((repository / "config").rglob("*.yaml"))
    assert repository / "config" / "config.yaml" in files
    for path in files:
        values = yaml.safe_load(path.read_text())
        parse_config(values)
        for schema in both:
            jsonschema.validate(values, schema)


def test_the_tables_of_built_in_names_list_every_name(repository):
    text = (repository / "config" / "README.md").read_text()
    for table, names in {**catalogue.NAMED, "criteria": catalogue.CRITERIA}.items():
        block = text.partition(f"<!-- {table}: ")[2].partition(f"<!-- end of {table} -->")[0]
        for name in names:
            assert f"\n| `{name}` | " in block


def test_the_table_of_keys_lists_the_options_of_every_kind(repository):
    table = (repository / "config" / "README.md").read_text()
    for family, kinds in catalogue.KINDS.items():
        for kind, options in kinds.items():
            assert f"| `{family}.NAME.kind: {kind}` |" in table
            for name, field in options.model_fields.items():
                if name not in ("kind", "criteria_options") and not hasattr(field.annotation, "model_fields"):
                    assert f"| `{family}.NAME.{name}` ({kind}) | " in table
    assert "| `learners.NAME.augmentation.padding` (rfs) | `8` | " in table
    assert "criteria_options" not in table.partition("<!-- keys")[2]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_schema_refuses_what_the_workflow_refuses(repository, copy_of_house, form):
    # YAML reads JSON too.
    schema = yaml.safe_load((repository / "workflow" / "schemas" / f"config.schema.{form}").read_text())
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
