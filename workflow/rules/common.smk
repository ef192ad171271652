"""Validation of the configuration, and what the rules of all stages share."""

import functools
import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

# By module: Snakemake's own names, such as `config` and `parse`, share this namespace.
import metantk.data.layouts
import metantk.data.needs
import metantk.options.config
import metantk.options.dataset
import metantk.results.layout
import metantk.results.status
import metantk.runtime.container
import metantk.runtime.failures
import metantk.runtime.files
import metantk.runtime.plugins
import metantk.runtime.provenance
import metantk.runtime.running
from metantk.runtime.files import canonical_json
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

# `make container` makes it. Snakemake checks its name in any case, and allows no space in it.
WITH_IMAGE = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
IMAGE = str(REPOSITORY / metantk.runtime.container.image_name()) if WITH_IMAGE else None


def plan():
    """The checked configuration; data that are here are compared with what it takes of them.

    Others are when they are prepared, before their images are read.
    """
    values = metantk.options.config.retype(dict(config), workflow.config_settings.config)
    planned = metantk.options.config.parse_config(values)
    metantk.options.config.check_sources(planned)
    for name, options in planned.datasets.items() if workflow.is_main_process else ():
        metantk.data.needs.check_data(Path(planned.results, name, "data"), options, planned.needs())
    return planned


try:
    CONFIG = plan()
    if WITH_IMAGE:
        metantk.runtime.container.check_image(IMAGE)
    if workflow.modifier.path_modifier.replace_prefix(f"{CONFIG.results}/", None) != f"{CONFIG.results}/":
        raise metantk.runtime.files.InputError(
            "module: leave out prefix and replace_prefix, name `results` in its config"
        )
except metantk.runtime.files.InputError as error:
    stop(error)

RESULTS = CONFIG.results
BEGAN = time.time()
INTERRUPT = metantk.runtime.failures.AfterInterrupt()
if not IS_MODULE:
    logger.addFilter(INTERRUPT)
# Snakemake looks at each input file by itself: with more of them, names and sizes alone are compared.
MANY_FILES = 2000
CHAINS = CONFIG.chains


def share_of_cores():
    """Threads of a long job: all cores for one chain, half of them for each of two, and one where chains are many.

    On a cluster it is one, unless the profile says otherwise (`set-threads`). Threads rerun nothing.
    """
    chains = len(CHAINS) * len(CONFIG.seeds) * len(CONFIG.datasets)
    try:
        return max(1, workflow.cores // chains) if workflow.is_main_process and workflow.local_exec else 1
    except WorkflowError:  # no --cores, as in a dry run
        return 1


THREADS = share_of_cores()
BACKBONES, SEARCHES, LEARNERS = (list(dict.fromkeys(names)) for names in zip(*CHAINS))


wildcard_constraints:
    dataset="|".join(CONFIG.datasets),
    backbone="|".join(BACKBONES),
    search="|".join(SEARCHES),
    learner="|".join(LEARNERS),
    seed=r"\d+",
    on="(?:" + "|".join(["", *map(metantk.results.layout.on_other, CONFIG.evaluation.test_on)]) + ")",


# Dependencies for --sdm conda; `make` installs the same pins into .venv, `make container` into IMAGE.
ENVIRONMENT = "../../envs/metantk.yaml"

DATA = f"{RESULTS}/{metantk.results.layout.DATA}"
SEARCH = f"{RESULTS}/{metantk.results.layout.SEARCH}"
CHAIN = f"{RESULTS}/{metantk.results.layout.CHAIN}"
EVALUATION = f"{RESULTS}/{metantk.results.layout.EVALUATION}"
# Where a job's log and benchmark lie, below the folders of all logs and benchmarks: as its outputs do.
SEARCH_JOB, CHAIN_JOB = metantk.results.layout.SEARCH, metantk.results.layout.CHAIN
EVALUATION_JOB = metantk.results.layout.EVALUATION
STABILITY = f"{RESULTS}/{metantk.results.layout.STABILITY}"
TABLES = f"{RESULTS}/{metantk.results.layout.TABLES}"
PARTIAL_TABLES = f"{RESULTS}/{metantk.results.layout.PARTIAL_TABLES}"
FIGURES = f"{RESULTS}/{metantk.results.layout.FIGURES}"
THEORY = f"{RESULTS}/{metantk.results.layout.THEORY}"
CRITERIA = f"{RESULTS}/{metantk.results.layout.CRITERIA}"
SCORES = f"{RESULTS}/{metantk.results.layout.SCORES}"


class Needs(NamedTuple):
    """What a stage asks a cluster for: on a small data set, and more for each GB of images that it reads.

    Images are mapped from the disk; a cluster that samples memory counts what is mapped in.
    """

    mb: int
    minutes: int
    mb_per_gb: int = 0
    minutes_per_gb: int = 0


# The one place of memory and time. A profile overrides either with `set-resources: RULE:mem_mb=...`.
NEEDS = {
    "download_dataset": Needs(mb=2000, minutes=120),
    "prepare_dataset": Needs(mb=4000, minutes=60, minutes_per_gb=60),
    "inspect_dataset": Needs(mb=2000, minutes=30),
    "search_architecture": Needs(mb=6000, minutes=240),
    "measure_rank_stability": Needs(mb=6000, minutes=480),
    "train_network": Needs(mb=4000, minutes=180, mb_per_gb=1200, minutes_per_gb=120),
    "evaluate_episodes": Needs(mb=4000, minutes=120, mb_per_gb=1200),
    "aggregate_tables": Needs(mb=2000, minutes=30),
    "tabulate_finished": Needs(mb=2000, minutes=30),
    "draw_results": Needs(mb=2000, minutes=30),
    "draw_searches": Needs(mb=2000, minutes=30),
    "score_architecture": Needs(mb=4000, minutes=120, mb_per_gb=1200),
    "compare_criteria": Needs(mb=2000, minutes=60),
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
    """The images among a job's inputs, as far as they are there: when the job is submitted, all are."""
    paths = files.get("arrays") or files.get("images") or []
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path)) / 1e9


@functools.cache
def code_of(*files):
    """A hash of the syntax trees of these files and of all local modules behind them."""
    return metantk.runtime.provenance.record_code(*files)


def code(script, shape_of=None, **families):
    """The function of a rule's `code`: an edit of what a job runs reruns it, one of comments or of other kinds not.

    `families` says which kinds a job runs besides the script, by their families: `search="searches"` for the search
    that its wildcard names. `shape_of` is the wildcard of a backbone of which a job reads the options only.
    """

    def needed(wildcards):
        kinds = tuple((family, wildcards[wildcard]) for wildcard, family in families.items())
        return code_of_kinds(SCRIPTS / script, kinds, wildcards[shape_of] if shape_of else None)

    return needed


# Cached, as what follows: thousands of jobs have the same few kinds.
@functools.cache
def code_of_kinds(script, kinds, shape):
    files = [script]
    for family, name in kinds:
        files += metantk.runtime.plugins.module_files(family, options_of(family, name))
    if shape:
        files.append(metantk.runtime.plugins.options_file("backbones", CONFIG.backbone(shape).kind))
    return code_of(*files)


@functools.cache
def options_of(family, name):
    return {"backbones": CONFIG.backbone, "searches": CONFIG.search, "learners": CONFIG.learner}[family](name)


@functools.cache
def options_as_json(family, name):
    return canonical_json(options_of(family, name).model_dump())


def options(family, wildcard):
    """The function of a rule's options: those of the kind that a wildcard names, as JSON."""

    def needed(wildcards):
        return options_as_json(family, wildcards[wildcard])

    return needed


def backbone_files(wildcards):
    """Weights and graphs that a backbone comes with; none for those that are built from nothing."""
    return options_of("backbones", wildcards.backbone).files


def files_of_search(wildcards):
    """What a backbone comes with, and files of given genotypes."""
    return [*backbone_files(wildcards), *options_of("searches", wildcards.search).files]


def gpus(family, wildcard):
    """The function of a rule's `gpu`: a kind that computes nothing asks for none.

    Snakemake drops the resource then, as some executors refuse a 0.
    """

    def needed(wildcards):
        return 1 if options_of(family, wildcards[wildcard]).uses_device else None

    return needed


@functools.cache
def files_of(source):
    """All files that are read of a data set's folder, in order of name; a name of no folder has none."""
    if source in metantk.options.dataset.NAMED_SOURCES:
        return []
    try:
        return metantk.data.layouts.watched_files(Path(source))
    except metantk.runtime.files.InputError as error:
        stop(error)


def are_listed(files):
    """Whether files are watched by their listing: they are many, or Snakemake takes a name for a pattern."""
    return len(files) > MANY_FILES or any("{" in file or "}" in file for file in files)


def begin_half_done_again():
    """As with --rerun-incomplete: what a killed run left half-done is made again; stages go on after checkpoints.

    A workflow that uses this one as a module decides for itself. A default profile would say the same, but Snakemake
    looks for it in profiles/ beside the root Snakefile, not in workflow/. Its settings come after its rules are read and
    before they are asked for inputs, so that an input function calls this.
    """
    if not IS_MODULE:
        workflow.dag_settings.force_incomplete = True


def begin_to_say_how_far_it_is():
    """For `make status`, and for who looks on: a line now and then on the time that is left."""
    try:
        metantk.runtime.running.hold(metantk.results.layout.running_file(Path(RESULTS)))
    except OSError as error:
        logger.warning(f"{RESULTS}: cannot be locked ({error.strerror}): `make status` will say that nothing runs")
    say = functools.partial(metantk.results.status.announce, CONFIG, threading.Event())
    threading.Thread(target=say, daemon=True).start()


def source_files(wildcards):
    """The files of a data set's folder: an edited, added or removed image prepares it again."""
    begin_half_done_again()
    files = files_of(CONFIG.datasets[wildcards.dataset].source)
    return [] if are_listed(files) else files


def downloaded(wildcards):
    """What stands for a source that is fetched; nothing else needs a download."""
    if CONFIG.datasets[wildcards.dataset].source in metantk.options.dataset.FETCHED_SOURCES:
        return f"{RESULTS}/{wildcards.dataset}/download/files.json"
    return []


def source_listing(wildcards):
    """Stands for the files where they are listed: a hash of their names and sizes."""
    files = files_of(CONFIG.datasets[wildcards.dataset].source)
    if not are_listed(files):
        return ""
    listing = [[path, os.path.getsize(path)] for path in files]
    return hashlib.sha256(canonical_json(listing).encode()).hexdigest()


def each_chain(pattern):
    """`pattern` for every row and seed of the configuration; the data set stays a wildcard."""
    return list(
        dict.fromkeys(
            text
            for chain in CHAINS
            for text in expand(pattern, **chain._asdict(), seed=CONFIG.seeds, allow_missing=True)
        )
    )


def each_seed(pattern):
    """`pattern` for every seed; all else stays a wildcard."""
    return expand(pattern, seed=CONFIG.seeds, allow_missing=True)


def by_seed(pattern):
    """Each seed, and `pattern` for it."""
    return list(zip(CONFIG.seeds, each_seed(pattern)))


# What the report calls figures of searches, by their kind.
SEARCH_CATEGORIES = {"cells": "Cells", "search": "Searches"}
# Of each search, the report has the figures of so many seeds: it holds them all in one page. All are drawn.
SEEDS_IN_REPORT = 5


def reported_search(path, seed, kind):
    """A figure of a search, which the report shows if its seed is one of the first."""
    if seed not in CONFIG.seeds[:SEEDS_IN_REPORT]:
        return path
    labels = {"data set": "{dataset}", "backbone": "{backbone}", "search": "{search}", "seed": str(seed)}
    return report(path, category=SEARCH_CATEGORIES[kind], labels=labels, caption=f"../report/{kind}.rst")


def all_chains(pattern):
    """`pattern` for every data set, row and seed."""
    return expand(each_chain(pattern), dataset=sorted(CONFIG.datasets))


def all_transfers(pattern):
    """`pattern` for every row and seed of a data set, with each other data set that they are evaluated on."""
    return [
        text
        for trained, tested in sorted(CONFIG.transfers)
        for text in expand(each_chain(pattern), dataset=trained, on=metantk.results.layout.on_other(tested))
    ]


def tested_data(*files):
    """The function of prepared files of the data set on whose test classes a model is evaluated."""

    def needed(wildcards):
        tested = metantk.results.layout.tested_dataset(wildcards.on, wildcards.dataset)
        return expand([f"{DATA}/{file}" for file in files], dataset=tested)

    return needed


def searched(pattern):
    """`pattern` for every data set and every search of a backbone that takes one; the seed stays a wildcard."""
    chains = [chain for chain in CHAINS if CONFIG.backbone(chain.backbone).searchable]
    return [
        text
        for backbone, search in dict.fromkeys((chain.backbone, chain.search) for chain in chains)
        for text in expand(
            pattern, dataset=sorted(CONFIG.datasets), backbone=backbone, search=search, allow_missing=True
        )
    ]


# Of the tables, by name; those that would be empty are left out of the report.
TABLE_LABELS = {
    "summary": "all rows",
    "table1": "Table 1",
    "table2": "Table 2",
    "differences": "differences",
    "costs": "costs",
    "published": "published results",
    "transfer": "transfer",
}
EMPTY_TABLES = {
    "table2": not any(CONFIG.backbone(chain.backbone).searchable for chain in CHAINS),
    "differences": len(CHAINS) < 2,
    "published": not CONFIG.datasets.keys() & metantk.options.dataset.BENCHMARKS,
    "transfer": not CONFIG.transfers,
}


def reported_table(name, label):
    """The page of a table, which opens in the report."""
    page = f"{TABLES}/{name}.html"
    if EMPTY_TABLES.get(name):
        return page
    return report(page, category="Tables", labels={"table": label}, caption=f"../report/{name}.rst")


def results_folder(wildcards):
    return RESULTS


def dataset_options(wildcards):
    return canonical_json(CONFIG.datasets[wildcards.dataset].model_dump())


def needs_of_rows(wildcards):
    """What all rows take of a data set: what the preparation refuses to go below."""
    return metantk.data.needs.needs_to_json(CONFIG.needs())


def evaluation_options(wildcards):
    return canonical_json(CONFIG.evaluation.episodes_alone.model_dump())


def theory_options(wildcards):
    return canonical_json(CONFIG.theory.model_dump())


def study_options(wildcards):
    return canonical_json(CONFIG.whole_study.model_dump())


def code_of_scores(wildcards):
    kinds = CONFIG.whole_study.kinds.values()
    files = [metantk.runtime.plugins.module_file("criteria", kind) for kind in kinds]
    return code_of(SCRIPTS / "score_architecture.py", *files)


def studied_scores(wildcards):
    """Scores of all architectures of the study; what its last job would refuse is refused before the first."""
    try:
        metantk.options.config.check_study(CONFIG)
    except metantk.runtime.files.InputError as error:
        stop(error)
    return trained_architectures(SCORES)


def trained_architectures(pattern):
    """`pattern` for every data set, seed and row whose backbone has cells that criteria can score."""
    chains = [chain for chain in CHAINS if CONFIG.backbone(chain.backbone).kind == "cells"]
    return [
        text
        for chain in chains
        for text in expand(pattern, **chain._asdict(), dataset=sorted(CONFIG.datasets), seed=CONFIG.seeds)
    ]


def title_of_search(wildcards):
    """What a figure calls the one search that it shows: a new row redraws no other."""
    return canonical_json({"searches": {wildcards.search: CONFIG.title("searches", wildcards.search)}})


def titles(wildcards):
    """What tables call searches and learners."""
    named = {"searches": SEARCHES, "learners": LEARNERS}
    return canonical_json({family: {n: CONFIG.title(family, n) for n in names} for family, names in named.items()})
