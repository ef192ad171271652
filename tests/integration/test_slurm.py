"""The workflow on a real SLURM of one node with 4 make-believe GPUs (tests/sandbox), faults included."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import House, copy_house, place_image, program_environment, tiny_configuration

SANDBOX = Path(__file__).parents[1] / "sandbox" / "slurm-sandbox"
GPUS = 4
RUN = "results/glyphs/2cells-2ch/linear-regions"
# Below the folder of a seed.
COMPARED = ("architecture.json", "rfs/model.safetensors", "rfs/episodes.csv")
SEEDS = range(6)
TABLES = ("table2.csv", "table2.md", "table2.tex", "seeds.csv")
TARGETS = [f"results/tables/{name}" for name in TABLES]
PROFILES = "workflow/profiles"
# Quick questions, for a test: the profile asks every 40 seconds. What the profile says of memory is overridden, as
# a user would do it, since the node has little.
ARGUMENTS = (
    *("--slurm-init-seconds-before-status-checks", 2),
    *("--latency-wait", 10),
    *("--set-resources", "search_architecture:mem_mb=1500", "train_network:mem_mb=1500"),
    "evaluate_episodes:mem_mb=1500",
    # The log of each job, by which the tests count them.
    "--slurm-keep-successful-logs",
)


def why_not() -> str | None:
    """Why SLURM cannot run here; where CI is set it must, and nothing is skipped."""
    if os.environ.get("CI"):
        return None
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "the SLURM sandbox needs root on Linux"
    if not shutil.which("slurmctld") and not shutil.which("apt-get"):
        return "SLURM is not installed, and there is no apt-get to install it with"
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture(scope="module")
def slurm():
    """A running cluster, stopped afterwards unless it ran before."""
    ran_before = subprocess.run([SANDBOX, "status"], capture_output=True, check=False).returncode == 0
    up = subprocess.run([SANDBOX, "up"], capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stdout + up.stderr
    yield
    if not ran_before:
        subprocess.run([SANDBOX, "down"], capture_output=True, check=True)


@pytest.fixture(scope="module")
def configuration() -> dict:
    """Six short chains of jobs, more than there are GPUs, whose trainings leave checkpoints on the way."""
    configuration = tiny_configuration()
    row = {"backbone": "2cells-2ch", "search": "linear-regions", "learner": "rfs"}
    configuration |= {"rows": [row], "seeds": list(SEEDS), "learners": {"rfs": {"epochs": 4}}}
    return configuration


def make_house(path: Path, configuration: dict) -> House:
    house = copy_house(path)
    house.configure(configuration)
    return house


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, configuration) -> House:
    """The same configuration, run without SLURM."""
    house = make_house(tmp_path_factory.mktemp("undisturbed"), configuration)
    run = house.snakemake("--cores", 2, "--max-threads", 1, *TARGETS)
    assert run.returncode == 0, run.stderr
    return house


def start(house: House, targets: list[str] = TARGETS, *, profile: str = "slurm") -> subprocess.Popen:
    """Start the workflow in a session of its own; what it prints goes to a file."""
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", f"{PROFILES}/{profile}", *ARGUMENTS]
    command += ["--", *targets]
    with (house.path / "printed.txt").open("a") as printed:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=house.path,
            env=program_environment(),
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ask(*command: object) -> list[str]:
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return finished.stdout.splitlines()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 240) -> object:
    """Wait for a true value; the value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)
    return value


def processes(house: House, *words: str) -> list[int]:
    """Processes of a stage in the house whose command line holds these words, one after another."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, place = (folder / "cmdline").read_bytes().decode().split("\0"), (folder / "cwd").resolve()
        except OSError:
            continue  # it has just ended, or is not ours to look at
        if place == house.path and command[0] == "python" and " ".join(words) in " ".join(command):
            found.append(int(folder.name))
    return found


def log_of(house: House, rule: str, seed: int) -> str:
    job = f"seed{seed}" if rule == "search_architecture" else f"seed{seed}/rfs"
    path = house.path / f"results/logs/{rule}/glyphs/2cells-2ch/linear-regions/{job}.log"
    return path.read_text() if path.exists() else ""


def stop_training(house: House, seed: int) -> tuple[str, int] | None:
    """Halt a training that has a checkpoint, so that it cannot end by itself; its SLURM job and its process."""
    checkpoints = (house.path / RUN / f"seed{seed}" / "rfs").glob(".checkpoints/training-*")
    running = processes(house, f"--architecture {RUN}/seed{seed}/architecture.json")
    if not list(checkpoints) or not running:
        return None
    (process,) = running
    os.kill(process, signal.SIGSTOP)
    return re.search(r"SLURM_JOB_ID=(\d+)", log_of(house, "train_network", seed))[1], process


def jobs_of(house: House) -> dict[str, list[str]]:
    """The SLURM jobs that Snakemake submitted for each rule and its wildcards, from the logs that it keeps."""
    jobs: dict[str, list[str]] = {}
    for path in sorted((house.path / ".snakemake/slurm_logs").rglob("*.log")):
        jobs.setdefault(path.parent.relative_to(house.path / ".snakemake/slurm_logs").as_posix(), []).append(
            path.stem
        )
    return jobs


def states(jobs: list[str]) -> dict[str, str]:
    lines = ask("sacct", "-X", "-n", "-P", "-j", ",".join(jobs), "-o", "JobID,State")
    return {job: state.split()[0] for job, state in (line.split("|") for line in lines)}


def tables(house: House) -> list[bytes]:
    return [(house.path / target).read_bytes() for target in TARGETS]


@pytest.fixture(scope="module")
def disturbed(slurm, tmp_path_factory, configuration) -> tuple[House, dict[str, str]]:
    """A run in which a job is cancelled, one is killed and one runs out of time; those jobs, by their end.

    And the controller is lost for some seconds while searches run.
    """
    house = make_house(tmp_path_factory.mktemp("disturbed"), configuration)
    workflow = start(house)
    # The state in which each job ends, and the seed of its training.
    faults = {"CANCELLED": 0, "FAILED": 1, "TIMEOUT": 2}
    struck: dict[str, str] = {}

    def strike() -> bool:
        for state in faults.keys() - struck.keys():
            if halted := stop_training(house, faults[state]):
                struck[state], process = halted
                if state == "CANCELLED":
                    ask("scancel", struck[state])
                elif state == "FAILED":
                    os.kill(process, signal.SIGKILL)
                else:
                    ask("scontrol", "update", f"JobId={struck[state]}", "TimeLimit=1")
        assert workflow.poll() is None, (house.path / "printed.txt").read_text()
        return faults.keys() == struck.keys()

    try:
        wait_until(lambda: any(log_of(house, "search_architecture", seed) for seed in SEEDS), "a search")
        ask(SANDBOX, "outage")
        wait_until(strike, "a checkpoint of each of three trainings")
        assert workflow.wait(timeout=400) == 0, (house.path / "printed.txt").read_text()
    finally:
        end(workflow)
    return house, struck


def end(workflow: subprocess.Popen) -> None:
    """End Snakemake and all that it started, however far it is."""
    if workflow.poll() is None:
        os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()


def test_jobs_that_are_cancelled_killed_or_out_of_time_are_retried(disturbed):
    house, struck = disturbed
    assert states(list(struck.values())) == {job: state for state, job in struck.items()}
    for seed in range(len(struck)):
        assert "going on after epoch" in log_of(house, "train_network", seed)
    for name, jobs in jobs_of(house).items():
        assert len(jobs) == 1 + len(set(jobs) & set(struck.values())), name


def test_the_tables_are_those_of_an_undisturbed_run(disturbed, undisturbed):
    assert tables(disturbed[0]) == tables(undisturbed)


def test_each_job_has_a_gpu_of_its_own_and_the_memory_and_time_of_its_rule(disturbed):
    house, _ = disturbed
    given = {}
    for rule in ("search_architecture", "train_network", "evaluate_episodes"):
        for seed in SEEDS:
            found = re.search(r"SLURM_JOB_ID=(\d+) CUDA_VISIBLE_DEVICES=(\d+)$", log_of(house, rule, seed), re.M)
            given[found[1]] = found[2]
    fields = "JobID,Start,End,Timelimit,ReqMem,ReqTRES"
    spans = []
    for line in ask("sacct", "-X", "-n", "-P", "-j", ",".join(given), "-o", fields):
        job, began, ended, limit, memory, asked = line.split("|")
        assert "gres/gpu=1" in asked.split(",")
        assert memory in ("1500M", "3000M"), line
        assert limit in ("04:00:00", "03:00:00", "06:00:00", "02:00:00"), line
        spans.append((datetime.fromisoformat(began), datetime.fromisoformat(ended), given[job]))
    assert len(spans) == 3 * len(SEEDS)
    assert {device for _, _, device in spans} <= {str(index) for index in range(GPUS)}
    for began, _, device in spans:
        # SLURM counts in whole seconds: a job may begin in the second in which another ends.
        others = [other for other in spans if other[0] <= began < other[1]]
        devices = [other[2] for other in others]
        assert devices.count(device) <= 1
        assert len(devices) <= GPUS


def test_a_killed_workflow_goes_on_without_running_a_job_twice(slurm, undisturbed, configuration, tmp_path):
    house = make_house(tmp_path, configuration | {"seeds": [0, 1]})
    workflow = start(house)
    try:
        wait_until(lambda: log_of(house, "train_network", 0) or log_of(house, "train_network", 1), "a training")
    finally:
        end(workflow)
    submitted = [job for jobs in jobs_of(house).values() for job in jobs]
    wait_until(lambda: not set(submitted) & set(ask("squeue", "-h", "-o", "%A")), "the end of its jobs")
    unlocked = house.snakemake("--unlock")
    assert unlocked.returncode == 0, unlocked.stderr
    workflow = start(house)
    try:
        assert workflow.wait(timeout=400) == 0, (house.path / "printed.txt").read_text()
    finally:
        end(workflow)
    jobs = jobs_of(house)
    assert len(jobs) == 1 + 3 * 2  # the data set; search, training and evaluation of two seeds
    assert {name: len(attempts) for name, attempts in jobs.items()} == dict.fromkeys(jobs, 1)
    for name in COMPARED:
        for seed in (0, 1):
            path = f"{RUN}/seed{seed}/{name}"
            assert (house.path / path).read_bytes() == (undisturbed.path / path).read_bytes()


def test_jobs_in_containers_have_the_same_results(slurm, image, undisturbed, configuration, tmp_path):
    house = make_house(tmp_path, configuration)
    place_image(image, house)
    part = f"{RUN}/seed0"
    workflow = start(house, [f"{part}/rfs/evaluation.json"], profile="slurm-apptainer")
    try:
        assert workflow.wait(timeout=400) == 0, (house.path / "printed.txt").read_text()
    finally:
        end(workflow)
    assert len(jobs_of(house)) == 4  # the data set, the search, the training and the evaluation
    printed = "".join(path.read_text() for path in (house.path / ".snakemake/slurm_logs").rglob("*.log"))
    assert len(re.findall(rf"^Activating \w+ image .*{image.name}$", printed, re.M)) == 4
    for rule in ("search_architecture", "train_network", "evaluate_episodes"):
        assert re.search(r"CUDA_VISIBLE_DEVICES=\d+$", log_of(house, rule, 0), re.M)
    for name in COMPARED:
        assert (house.path / part / name).read_bytes() == (undisturbed.path / part / name).read_bytes(), name
