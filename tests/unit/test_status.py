"""How far a workflow is: jobs, the time left, and whether training was worth it."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import run_program
from small_chain import EPISODES, change, write_chain

from metantk.options.backbones.resnet12 import ResNet12Options
from metantk.options.config import parse_config
from metantk.results import layout, status
from metantk.results.baselines import find_weak
from metantk.runtime import running


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# What Snakemake does when it starts; it ends with its standard input.
HOLDER = """
import sys
from pathlib import Path
from metantk.runtime import running
running.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def configuration():
    return {
        "datasets": {"glyphs": {"source": "glyphs"}},
        "rows": [
            {"backbone": "5cells-48ch", "search": ["metantk", "random"], "learner": "rfs"},
            {"backbone": "conv4", "learner": "rfs"},
        ],
        "seeds": [0, 1],
        "evaluation": {"episodes": EPISODES},
    }


@pytest.fixture
def snakemake(tmp_path, repository):
    """Start a process that holds what Snakemake holds while it runs; all of them end with the test."""
    processes = []

    def start() -> subprocess.Popen:
        environment = {"PYTHONPATH": str(repository / "scripts")}
        words = [sys.executable, "-c", HOLDER, layout.running_file(tmp_path / "results")]
        processes.append(subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert processes[-1].stdout.readline() == b"held\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def started(tmp_path, monkeypatch, configuration, snakemake):
    """Data prepared, one seed of one row finished, a second training begun; Snakemake is running."""
    snakemake()
    monkeypatch.chdir(tmp_path)
    config = parse_config(configuration)
    write(tmp_path / "results/glyphs/data/manifest.json")
    write_chain(tmp_path / "results", "metantk", 0)
    for stage, seconds in (("search_architecture", 100), ("train_network", 50), ("evaluate_episodes", 10)):
        jobs = [job for job in status.jobs_of(config) if job.stage == stage and job.is_done]
        assert len(jobs) == 1
        write(jobs[0].benchmark, f"s\th:m:s\n{seconds}.0\t0:00:10\n")
    write(tmp_path / "results/glyphs/5cells-48ch/random/seed0/architecture.json")
    write(
        tmp_path / "results/logs/train_network/glyphs/5cells-48ch/random/seed0/rfs.log",
        "a\ntraining: 0/90 [00:00<?]\ntraining: 30/90 [01:00<02:00]\n",
    )
    return config


@pytest.mark.slow
def test_jobs_are_what_snakemake_plans(tiny_house):
    """Their outputs and logs are those of the rules."""
    config = parse_config(tiny_house.configuration)
    run = tiny_house.snakemake("--dry-run", "--printshellcmds", "--cores", 1)
    assert run.returncode == 0, run.stderr
    for job in status.jobs_of(config):
        for path in (job.output, job.log):
            assert str(path) in run.stdout, path
    planned = [job for job in tiny_house.planned() if job.split()[0] in layout.STAGES]
    assert len(planned) == len(status.jobs_of(config))


def test_evaluations_on_other_data_sets_are_jobs(configuration):
    configuration["datasets"]["other"] = {"source": "glyphs"}
    configuration["evaluation"] = {"test_on": ["other"]}
    config = parse_config(configuration)
    jobs = [job for job in status.jobs_of(config) if job.stage == "evaluate_episodes"]
    assert len(jobs) == 3 * 2 * (2 + 1)
    folder = "glyphs/5cells-48ch/random/seed1/rfs/on-other"
    (job,) = [job for job in jobs if str(job.output) == f"results/{folder}/evaluation.json"]
    assert str(job.log) == f"results/logs/evaluate_episodes/{folder}.log"


def test_what_is_done_running_and_left(started):
    log = Path("results/logs/train_network/glyphs/5cells-48ch/random/seed0/rfs.log")
    seen = status.look(started, now=log.stat().st_mtime + 20)
    assert [job.name for job in seen.running] == ["train_network glyphs 5cells-48ch random seed0 rfs"]
    counts = {stage: sum(job.stage == stage for job in seen.done) for stage in layout.STAGES}
    assert list(counts.values()) == [1, 2, 1, 1]
    assert len(seen.done) + len(seen.running) + len(seen.left) == 1 + 3 * 6
    # The one that runs had 120 s left 20 s ago. Four searches are left (one alike took 100 s), four trainings, of
    # which one is like the one that runs and will take 180 s as well, the others 50 s, and five evaluations.
    assert seen.seconds_left == 100 + 4 * 100 + (180 + 3 * 50) + 5 * 10
    assert seen.unknown == []
    (job,) = seen.running
    line = "training: epoch 34 of 100, 33%, 100 s left"
    assert status.describe_running(job, seen.steps[job.name]) == line


def test_two_jobs_at_once_take_half_the_time(started, tmp_path):
    one = status.look(started)
    write(tmp_path / "results/logs/train_network/glyphs/5cells-48ch/random/seed1/rfs.log", "begins\n")
    both = status.look(started)
    assert len(both.running) == 2
    assert both.seconds_left == pytest.approx(one.seconds_left / 2, abs=1)
    assert ", 2 at once." in status.describe_time_left(both)
    assert status.describe_running(both.running[1], None) == "begins"


def test_logs_of_an_earlier_run_are_not_of_running_jobs(started):
    log = Path("results/logs/train_network/glyphs/5cells-48ch/random/seed0/rfs.log")
    os.utime(log, (0, 0))
    seen = status.look(started)
    assert (seen.running, seen.is_running) == ([], True)


def test_without_snakemake_nothing_is_running(tmp_path, monkeypatch, configuration):
    monkeypatch.chdir(tmp_path)
    config = parse_config(configuration)
    write(tmp_path / "results/logs/train_network/glyphs/5cells-48ch/random/seed0/rfs.log", "killed\n")
    seen = status.look(config)
    assert (seen.running, seen.is_running) == ([], False)
    assert len(seen.left) == 19


def test_a_live_snakemake_is_told_apart_from_those_that_ended(tmp_path, snakemake):
    file = layout.running_file(tmp_path / "results")
    assert running.since(file) is None
    first, second = snakemake(), snakemake()
    began = running.since(file)
    assert began == file.stat().st_mtime
    second.kill()
    second.wait()
    assert running.since(file) == began
    first.kill()
    first.wait()
    assert running.since(file) is None


def test_a_run_says_now_and_then_how_long_it_will_take(started, monkeypatch, capfd):
    class ThreeTimes(threading.Event):
        times = 0

        def wait(self, seconds):
            assert seconds >= status.SECONDS_BETWEEN
            self.times += 1
            return self.times > 3

    status.announce(started, ThreeTimes())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("] 14 jobs to go: about " in line for line in lines)


def test_jobs_like_no_other_are_of_unknown_length(tmp_path, monkeypatch, configuration):
    monkeypatch.chdir(tmp_path)
    seen = status.look(parse_config(configuration))
    assert seen.seconds_left == 0
    assert len(seen.unknown) == len(seen.left) == 19


@pytest.fixture
def show(tmp_path, repository, configuration):
    def run(*arguments):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(configuration))
        return run_program("python", repository / "scripts/show_results.py", *arguments, folder=tmp_path)

    return run


def test_the_program_shows_the_table_so_far_and_what_is_missing(started, show):
    run = show("--configfile", "mine.yaml", "--status")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "train_network              1        1     4" in lines
    assert [line for line in lines if re.fullmatch(r"14 jobs to go: about \d+ min\.", line)]
    name = "running: train_network glyphs 5cells-48ch random seed0 rfs: training: epoch 34 of 100, 33%, "
    assert [line for line in lines if line.startswith(name)]
    assert [line for line in lines if line.startswith("| glyphs") and "MetaNTK-NAS" in line and "51." in line]
    missing = [line for line in lines if line.startswith("missing: ")]
    assert len(missing) == 5
    assert "missing: glyphs 5cells-48ch random seed0 rfs: train_network is to come" in missing
    assert "missing: glyphs conv4 fixed seed1 rfs: search_architecture is to come" in missing
    assert show("--configfile", "mine.yaml", "--folder").stdout == "results\n"


@pytest.mark.parametrize(
    ("file", "values", "line"),
    [
        ("evaluation.json", {"ways": "five"}, "broken: glyphs 5cells-48ch metantk seed0 rfs: results/"),
        ("model.json", {"learner": {"kind": "rfs", "epochs": 3}}, "stale: glyphs 5cells-48ch metantk seed0 rfs: "
         "learners.rfs: epochs is 3, the configuration says 100; the next run makes it anew"),
        ("model.json", {"data_sha256": "of other images"}, "broken: glyphs 5cells-48ch metantk seed0 rfs: "
         "results/glyphs/5cells-48ch/metantk/seed0/rfs: evaluation.json is not of its data set's test split"),
    ],
)  # fmt: skip
def test_a_row_that_is_broken_or_stale_is_named_beside_the_others(started, show, tmp_path, file, values, line):
    good = write_chain(tmp_path / "results", "metantk", 1)
    change(tmp_path / "results/glyphs/5cells-48ch/metantk/seed0/rfs" / file, **values)
    run = show("--configfile", "mine.yaml", "--status")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [found for found in lines if found.startswith(line)], run.stdout
    assert [found for found in lines if found.startswith("| glyphs") and "MetaNTK-NAS" in found], good


def test_episodes_that_the_configuration_does_not_ask_for_any_more_are_stale(started, show, configuration):
    configuration["evaluation"]["episodes"] = 50
    run = show("--configfile", "mine.yaml", "--status")
    assert run.returncode == 0, run.stderr
    assert "evaluation: episodes is 40, the configuration says 50" in run.stdout


def test_rows_of_images_that_have_been_prepared_anew_are_stale(started, show, tmp_path):
    splits = {
        name: {
            "images": 9,
            "shape": [8, 8, 3],
            "classes": [f"{name} {index}" for index in range(3)],
            "smallest_class": 3,
            "sha256": dict.fromkeys(("images.npy", "labels.npy"), "0" * 64),
        }
        for name in ("train", "val", "test")
    }
    about = {"name": "glyphs", "source": "glyphs", "licence": "", "warnings": []}
    manifest = about | {"mean": [0.5] * 3, "std": [0.5] * 3, "splits": splits}
    write(tmp_path / "results/glyphs/data/manifest.json", json.dumps(manifest))
    run = show("--configfile", "mine.yaml", "--status")
    assert "stale: glyphs 5cells-48ch metantk seed0 rfs: datasets.glyphs: its images are others now" in run.stdout


def test_a_finished_transfer_is_not_broken(started, show, configuration, tmp_path):
    configuration["datasets"]["others"] = configuration["datasets"]["glyphs"]
    configuration["evaluation"]["test_on"] = ["others"]
    folder = tmp_path / "results/glyphs/5cells-48ch/metantk/seed0/rfs"
    transfer = folder / "on-others"
    transfer.mkdir()
    found = json.loads((folder / "evaluation.json").read_text())
    of = {"trained_on": "glyphs", "tested_on": "others", "image_size": 32, "resized_to": None, "shared_classes": []}
    write(transfer / "evaluation.json", json.dumps(found | {"transfer": of}))
    write(transfer / "episodes.csv", (folder / "episodes.csv").read_text())
    run = show("--configfile", "mine.yaml", "--status")
    assert run.returncode == 0, run.stderr
    assert "broken" not in run.stdout
    write(transfer / "episodes.csv", "nothing")
    assert (
        "broken: glyphs 5cells-48ch metantk seed0 rfs on-others"
        in show("--configfile", "mine.yaml", "--status").stdout
    )


def test_a_row_of_another_backbone_is_stale(started, show, configuration, tmp_path):
    configuration["rows"].append({"backbone": "mine", "search": "metantk", "learner": "rfs"})
    configuration["backbones"] = {"mine": {"kind": "cells", "cells": 5, "channels": 16}}
    write_chain(tmp_path / "results", "metantk", 0, backbone="mine")
    run = show("--configfile", "mine.yaml", "--status")
    assert "backbones.mine: channels is 48, the configuration says 16" in run.stdout, run.stderr


def test_options_that_a_backbone_fills_in_by_the_size_of_images_are_not_stale(
    started, show, configuration, tmp_path
):
    """ResNet-12's block size, where the configuration leaves it open."""
    configuration["rows"].append({"backbone": "resnet12", "learner": "rfs"})
    folder = write_chain(tmp_path / "results", "fixed", 0, backbone="resnet12")
    of_origin = json.loads((folder.parent / "architecture.json").read_text())
    built = ResNet12Options().architecture(32)
    assert built["block_size"] == 2
    architecture = of_origin | built
    write(folder.parent / "architecture.json", json.dumps(architecture))
    change(folder / "model.json", architecture=architecture)
    run = show("--configfile", "mine.yaml", "--status")
    assert "resnet12" not in "".join(
        line for line in run.stdout.splitlines() if line.startswith(("stale", "broken"))
    )
    change(folder / "model.json", architecture=architecture | {"block_size": 5})
    write(folder.parent / "architecture.json", json.dumps(architecture | {"block_size": 5}))
    run = show("--configfile", "mine.yaml", "--status")
    assert "backbones.resnet12: block_size is 5, the configuration says 2" in run.stdout


def test_nothing_yet_is_said_so(show, tmp_path):
    run = show("--configfile", "mine.yaml", "--status")
    assert run.returncode == 0, run.stderr
    assert "19 jobs to go: time unknown yet, and no Snakemake runs here." in run.stdout
    refused = show("--configfile", "mine.yaml")
    assert refused.returncode == 2
    assert "is missing; run the workflow first (`make status` says how far it is)" in refused.stderr


def test_a_table_without_rows_is_not_shown(show, tmp_path):
    tables = tmp_path / "results" / "tables"
    write(tables / "table1.md", "| Model |\n|---|\n| RFS |\n")
    write(tables / "table2.md", "| Model |\n|---|\n")
    write(tables / "published.md", "| row |\n|---|\n")
    write(tables / "transfer.md", "| Trained on |\n|---|\n")
    run = show("--configfile", "mine.yaml")
    assert run.returncode == 0, run.stderr
    assert "| RFS |" in run.stdout
    assert "table2.md" not in run.stdout


def test_rows_below_a_baseline_are_named(tmp_path):
    rows = [
        ("a", "theirs", "fixed", "none", 1, 20.0),
        ("a", "theirs", "fixed", "none", 5, 30.0),
        ("a", "pixels", "fixed", "none", 1, 30.0),
        ("a", "pixels", "fixed", "none", 5, 40.0),
        ("a", "conv4", "fixed", "none", 1, 31.0),
        ("a", "conv4", "fixed", "none", 5, 41.0),
        ("a", "conv4", "fixed", "rfs", 1, 35.5),
        ("a", "conv4", "fixed", "rfs", 5, 35.5),
        ("a", "resnet12", "fixed", "rfs", 1, 29.0),
        ("a", "resnet12", "fixed", "rfs", 5, 39.0),
        ("a", "5cells-8ch", "metantk", "rfs", 1, 50.0),
        ("b", "resnet12", "fixed", "rfs", 1, 10.0),
    ]
    columns = ["dataset", "backbone", "search", "learner", "shots", "accuracy_mean"]
    table = pd.DataFrame(rows, columns=columns)
    table["pretrained"] = np.where(table["backbone"] == "theirs", "yes", "no")
    table.to_csv(tmp_path / "summary.csv", index=False)
    theirs, conv4, resnet = find_weak(tmp_path / "summary.csv")
    told = "a, theirs, fixed, none: 25.0 % are no more than the 35.0 % of raw pixels; check its file, mean and std"
    assert theirs == told
    told = "a, conv4, fixed, rfs: 35.5 % are no more than the 36.0 % of the same network untrained; train longer"
    assert conv4.startswith(told)
    assert resnet.startswith("a, resnet12, fixed, rfs: 34.0 % are no more than the 35.0 % of raw pixels; ")
    assert list(find_weak(tmp_path / "nowhere.csv")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: " + "[" * 3000, "cannot be read"),
        ("[]", "is no configuration"),
        ("", "is no configuration"),
        (None, "it is no file"),
    ],
)
def test_what_is_no_configuration_is_one_line(tmp_path, repository, content, message):
    path = tmp_path / "mine.yaml"
    os.mkfifo(path) if content is None else path.write_text(content)
    for script, flags in (("show_results", []), ("estimate_campaign", ["--seconds", 1])):
        run = run_program("python", repository / f"scripts/{script}.py", "--configfile", path, *flags)
        assert run.returncode == 2, run.stderr
        (line,) = run.stderr.splitlines()
        assert message in line


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_no_time_to_measure_in(repository, seconds):
    run = run_program("python", repository / "scripts/estimate_campaign.py", "--seconds", seconds)
    assert run.returncode == 2
    assert "give a number above 0" in run.stderr
