"""The command lines that README and config/README print, folders with odd names, and what a failed run says."""

import base64
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import program_environment
from PIL import Image

ROW = {"backbone": "2cells-1ch", "search": "random", "learner": "none"}
TINY = {
    "datasets": {"glyphs": {"source": "glyphs", "image_size": 16, "images_per_class": 4}},
    "rows": [ROW],
    "seeds": [0],
    "evaluation": {"episodes": 2, "shots": [1], "queries": 1, "support_copies": 1, "ways": 2},
}
MANIFEST = "results/glyphs/data/manifest.json"


@pytest.fixture
def house(copy_of_house):
    copy_of_house.configure(TINY)
    return copy_of_house


def test_nested_values_of_the_command_line_have_their_types(house):
    overrides = ("seeds=[0,1,2]", "evaluation={episodes: 3, augmentation: {jitter: 0.5, flip: false}}")
    jobs = house.jobs("--dry-run", "--config", *overrides)
    assert sum(job.startswith("evaluate_episodes") for job in jobs) == 3
    shown = house.snakemake("--dry-run", "--printshellcmds", "--config", *overrides)
    assert '"episodes":3' in shown.stdout + shown.stderr
    assert '"flip":false,"jitter":0.5' in shown.stdout + shown.stderr
    assert '"queries":1' in shown.stdout + shown.stderr  # of the file: what is not overridden stays


def test_a_wrong_nested_value_of_the_command_line_is_refused(house):
    run = house.snakemake("--dry-run", "--config", "seeds=[0,one]")
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "error: configuration: 'seeds.1': input should be a valid integer (found 'one')"
    ]


def test_a_results_folder_with_spaces_and_a_shell_in_its_name(house):
    name = "my results $(touch executed); 'x' \"y\""
    house.configure(TINY | {"results": name})
    run = house.snakemake("--cores", 1)
    assert run.returncode == 0, run.stderr
    assert (house.path / name / "tables" / "summary.csv").is_file()
    assert not list(house.path.rglob("executed"))
    assert house.snakemake("--cores", 1).returncode == 0


def test_images_with_odd_names_are_watched(house):
    for index in range(6):
        folder = house.path / "my images" / f"class {{{index}}} ü $(touch executed)"
        folder.mkdir(parents=True)
        for image in range(3):
            pixels = np.random.default_rng(10 * index + image).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"it's {image}.png")
    dataset = {"source": "my images", "image_size": 16, "ways": 2}
    house.configure(TINY | {"datasets": {"glyphs": dataset}})
    (house.path / "my images" / ".DS_Store").touch()
    assert house.snakemake("--cores", 1, MANIFEST).returncode == 0
    (house.path / "my images" / ".DS_Store").write_text("changed")
    (house.path / "my images" / "Thumbs.db").touch()
    assert house.planned(MANIFEST) == set()
    (folder / "it's 2.png").unlink()
    assert house.planned(MANIFEST) == {"prepare_dataset glyphs/data"}
    assert not list(house.path.rglob("executed"))


def test_a_failed_stage_says_its_own_line_last(house):
    learners = {"wild": {"kind": "rfs", "epochs": 1, "lr": 1e30}}
    house.configure(TINY | {"rows": [ROW | {"learner": "wild"}], "learners": learners})
    run = house.snakemake("--cores", 1)
    assert run.returncode == 1
    log = "results/logs/train_network/glyphs/2cells-1ch/random/seed0/wild.log"
    lines = [line for line in run.stderr.splitlines() if line.startswith("train_network.py: error: ")]
    assert len(lines) == 1
    assert "the loss is not finite in epoch 1: lower lr (1e+30; default 0.02)" in lines[0]
    assert lines[0].endswith(f"(all of it: {log})")
    assert len(run.stderr.splitlines()) - run.stderr.splitlines().index(lines[0]) <= 6
    assert not list(house.path.glob("results/glyphs/2cells-1ch/random/seed0/wild/**/*"))


def test_too_little_data_is_said_before_anything_costs(house):
    greedy = TINY | {"evaluation": TINY["evaluation"] | {"queries": 4}}
    message = "test has 4 images in its smallest class 'armenian/capital letter eh', 5 are needed by evaluation"
    house.configure(greedy)
    run = house.snakemake("--cores", 1)
    assert run.returncode == 1
    assert f"prepare_dataset.py: error: glyphs: too little data: {message}" in run.stderr
    assert not list(house.path.glob("results/glyphs/**/*.npy"))
    house.configure(TINY)
    assert house.snakemake("--cores", 1, MANIFEST).returncode == 0
    assert house.snakemake("--dry-run").returncode == 0
    house.configure(greedy)
    for words in (("--dry-run",), ("--cores", 1)):
        again = house.snakemake(*words)
        assert again.returncode == 2
        assert again.stderr.splitlines() == [f"error: results/glyphs/data: too little data: {message}"]


def test_other_images_than_the_manifest_says_stop_the_run(house):
    assert house.snakemake("--cores", 1, MANIFEST).returncode == 0
    train, test = (house.path / "results/glyphs/data" / part / "images.npy" for part in ("train", "test"))
    train.write_bytes(test.read_bytes())
    run = house.snakemake("--cores", 1, "--rerun-triggers", "input")
    assert run.returncode == 1
    assert "train/images.npy: " in run.stderr


def test_a_file_that_a_kill_left_half_done_is_made_again(finished):
    """Snakemake marks the outputs of a job while it runs, and refuses to go on where marks are left."""
    path = "results/tables/table1.csv"
    mark = finished.path / ".snakemake" / "incomplete" / base64.urlsafe_b64encode(path.encode()).decode()
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    assert "aggregate_tables tables" in finished.planned()


def test_after_a_kill_the_same_command_goes_on_once_it_is_unlocked(house):
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    process = subprocess.Popen(
        command,
        cwd=house.path,
        env=program_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not list(house.path.glob(".snakemake/incomplete/*")):  # what Snakemake writes when a job begins
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    locked = house.snakemake("--cores", 1)
    assert locked.returncode == 1
    assert "--unlock" in locked.stderr
    assert house.snakemake("--unlock").returncode == 0
    run = house.snakemake("--cores", 1)
    assert run.returncode == 0, run.stderr
