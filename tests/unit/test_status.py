"""How far a workflow is: jobs, the time left, and whether training was worth it."""

import os

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import run_program
from small_chain import write_chain

from metantk.options.config import parse_config
from metantk.results import layout, status
from metantk.results.baselines import find_weak


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def configuration():
    return {
        "datasets": {"glyphs": {"source": "glyphs"}},
        "rows": [
            {"backbone": "5cells-48ch", "search": ["metantk", "random"], "learner": "rfs"},
            {"backbone": "conv4", "learner": "rfs"},
        ],
        "seeds": [0, 1],
    }


@pytest.fixture
def started(tmp_path, monkeypatch, configuration):
    """Data prepared, one seed of one row finished, a second training begun; Snakemake is running."""
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
        "a\ntraining: 3/9 [00:01]\n",
    )
    write(tmp_path / ".snakemake/locks/0.input.lock", "somewhere")
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
    assert len(status.chains_of(config)) == 3 * 2 * 2


def test_what_is_done_running_and_left(started):
    seen = status.look(started)
    assert [job.name for job in seen.running] == ["train_network glyphs 5cells-48ch random seed0 rfs"]
    assert status.last_line(seen.running[0].log) == "training: 3/9 [00:01]"
    counts = {stage: sum(job.stage == stage for job in seen.done) for stage in layout.STAGES}
    assert list(counts.values()) == [1, 2, 1, 1]
    assert len(seen.done) + len(seen.running) + len(seen.left) == 1 + 3 * 6
    # Four searches are left (one alike took 100 s), five trainings with the one that runs (50 s), five evaluations.
    assert seen.seconds_left == 4 * 100 + 5 * 50 + 5 * 10
    assert seen.unknown == []


def test_without_snakemake_nothing_is_running(started, tmp_path):
    (tmp_path / ".snakemake/locks/0.input.lock").unlink()
    seen = status.look(started)
    assert (seen.running, seen.is_running) == ([], False)
    assert len(seen.left) == 14


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
    assert "14 jobs to go: about 11.7 min one after the other." in lines
    assert [line for line in lines if line.startswith("| glyphs") and "MetaNTK-NAS" in line and "51." in line]
    missing = [line for line in lines if line.startswith("missing: ")]
    assert len(missing) == 5
    assert "missing: glyphs 5cells-48ch random seed0 rfs: train_network is to come" in missing
    assert "missing: glyphs conv4 fixed seed1 rfs: search_architecture is to come" in missing
    assert show("--configfile", "mine.yaml", "--folder").stdout == "results\n"


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
