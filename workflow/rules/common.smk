"""Validation of the configuration, and what the rules of all stages share."""

import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

# Relative to where Snakemake runs, so that commands read the same on every machine and in a container.
REPOSITORY = Path(os.path.relpath(workflow.basedir))
SCRIPTS = REPOSITORY / "scripts"
sys.path.insert(0, str(SCRIPTS.resolve()))

# By module: Snakemake's own names, such as `config` and `parse`, share this namespace.
import metantk.config
import metantk.container
import metantk.storage
from metantk.storage import canonical_json
from snakemake.settings.types import DeploymentMethod

# For --sdm apptainer; `make container` makes it.
IMAGE = str(REPOSITORY / metantk.container.image_name())

try:
    CONFIG = metantk.config.parse(metantk.config.Config, dict(config), where="configuration")
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        metantk.container.check_image(IMAGE)
except metantk.storage.InputError as error:
    # One line and exit code 2, as every script does it, instead of a traceback.
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

RESULTS = CONFIG.results
# Snakemake looks at each input file by itself: with more of them, names and sizes alone are compared.
MANY_FILES = 2000
RUNS = {run.name: run for run in CONFIG.runs}


# Seconds of work: on a cluster they run where Snakemake runs.
localrules:
    all,
    theory,
    aggregate_tables,
    draw_figures,
    inspect_dataset,


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    run="|".join(RUNS),
    method="|".join(CONFIG.methods),
    seed=r"\d+",


# Dependencies for --sdm conda; `make` installs the same pins into .venv, `make container` into IMAGE.
ENVIRONMENT = "../../envs/metantk.yaml"

DATA = f"{RESULTS}/{{dataset}}/data"
PART = f"{RESULTS}/{{dataset}}/{{run}}/{{method}}/seed{{seed}}"
STABILITY = f"{RESULTS}/{{dataset}}/{{run}}/{{method}}/rank_stability"
TABLES = f"{RESULTS}/tables"
FIGURES = f"{RESULTS}/figures/{{dataset}}/{{run}}"
THEORY = f"{RESULTS}/theory"


class Needs(NamedTuple):
    """What a stage asks a cluster for: on a small data set, and more for each GB of pictures that it reads.

    Pictures are mapped from the disk; a cluster that samples memory counts what is mapped in.
    """

    mb: int
    minutes: int
    mb_per_gb: int = 0
    minutes_per_gb: int = 0


# The one place of memory and time. A profile overrides either with `set-resources: RULE:mem_mb=...`.
NEEDS = {
    "prepare_dataset": Needs(mb=4000, minutes=60, minutes_per_gb=60),
    "inspect_dataset": Needs(mb=2000, minutes=30),
    "search_architecture": Needs(mb=6000, minutes=240),
    "measure_rank_stability": Needs(mb=6000, minutes=480),
    "train_genotype": Needs(mb=4000, minutes=180, mb_per_gb=1200, minutes_per_gb=120),
    "evaluate_episodes": Needs(mb=4000, minutes=120, mb_per_gb=1200),
    "aggregate_tables": Needs(mb=2000, minutes=30),
    "draw_figures": Needs(mb=2000, minutes=30),
    "verify_theory": Needs(mb=4000, minutes=240),
}


def memory(rule):
    """The function of a rule's `mem_mb`: more with each attempt."""
    needs = NEEDS[rule]

    def needed(wildcards, input, attempt):
        return attempt * round(needs.mb + needs.mb_per_gb * gigabytes(input))

    return needed


def minutes(rule):
    """The function of a rule's `runtime`: more with each attempt."""
    needs = NEEDS[rule]

    def needed(wildcards, input, attempt):
        return attempt * round(needs.minutes + needs.minutes_per_gb * gigabytes(input))

    return needed


def gigabytes(files):
    """The pictures among a job's inputs, as far as they are there: when the job is submitted, all are."""
    paths = files.get("arrays") or files.get("pictures") or []
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path)) / 1e9


@functools.cache
def code(script):
    """The script, then every local module behind it: an edit of one of them reruns the rule."""
    path = (SCRIPTS / script).resolve()
    modules = [module for module in metantk.storage.local_modules(path) if module != path]
    return [str(SCRIPTS / module.relative_to(SCRIPTS.resolve())) for module in [path, *modules]]


@functools.cache
def files_of(source):
    """All files of a data set's folder, in order of name."""
    if source in metantk.config.NAMED_SOURCES:
        return []
    return sorted(str(path) for path in Path(source).rglob("*") if path.is_file())


def source_files(wildcards):
    """The files of a data set's folder: an edited, added or removed picture prepares it again."""
    files = files_of(CONFIG.datasets[wildcards.dataset].source)
    return files if len(files) <= MANY_FILES else []


def source_listing(wildcards):
    """Stands for the files where they are many: a hash of their names and sizes."""
    files = files_of(CONFIG.datasets[wildcards.dataset].source)
    if len(files) <= MANY_FILES:
        return ""
    listing = [[path, os.path.getsize(path)] for path in files]
    return hashlib.sha256(canonical_json(listing).encode()).hexdigest()


def each(pattern):
    """`pattern` for every data set, run, method and seed of the configuration."""
    return expand(
        pattern,
        dataset=sorted(CONFIG.datasets),
        run=RUNS,
        method=CONFIG.methods,
        seed=CONFIG.seeds,
        allow_missing=True,
    )


def each_part(pattern):
    """`pattern` for every method and seed; the data set and the run stay wildcards."""
    return expand(pattern, method=CONFIG.methods, seed=CONFIG.seeds, allow_missing=True)


def dataset_options(wildcards):
    return canonical_json(CONFIG.datasets[wildcards.dataset].model_dump())


def search_options(wildcards):
    return canonical_json(CONFIG.search_options(wildcards.method).model_dump())


def training_options(wildcards):
    return canonical_json(CONFIG.training.model_dump())


def evaluation_options(wildcards):
    return canonical_json(CONFIG.evaluation.model_dump())


def theory_options(wildcards):
    return canonical_json(CONFIG.theory.model_dump())


def run_shape(wildcards):
    """The depth and width that the name of a run stands for, as flags."""
    run = RUNS[wildcards.run]
    return f"--cells {run.cells} --channels {run.channels}"
