"""The lease of a GPU, with processes as many as a busy machine has and GPUs that are only names."""

import signal
import subprocess
import sys

import pytest

from metantk.runtime import devices, leases
from metantk.runtime.files import InputError

# Takes a lease, says which, and keeps it until its standard input closes.
HOLDER = """
import logging, sys
from metantk.runtime import leases
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
print("leased", leases.take(sys.argv[1:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path, repository):
    """Start a process that takes a lease of one of some GPUs; all of them end with the test."""
    processes = []

    def start(*uuids: str) -> subprocess.Popen:
        environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(repository / "scripts")}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-u", "-c", HOLDER, *uuids],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def leased(process: subprocess.Popen) -> int:
    """Wait for the process to have a device; its number."""
    word, index = process.stdout.readline().split()
    assert word == "leased"
    return int(index)


def test_never_two_on_one_device(hold):
    processes = [hold(*"abcdefgh") for _ in range(8)]
    assert sorted(map(leased, processes)) == list(range(8))


def test_more_jobs_than_devices_take_turns(hold):
    """Each holder that ends lets exactly one other in."""
    first = [hold("a", "b", "c") for _ in range(3)]
    free = {leased(process): process for process in first}
    assert sorted(free) == [0, 1, 2]
    others = [hold("a", "b", "c") for _ in range(3)]
    assert all(other.stdout.readline().startswith("all 3 devices are in use") for other in others)
    for holder in free.values():
        holder.stdin.close()
    assert all(other.stdout.readline().startswith("waited ") for other in others)
    assert sorted(map(leased, others)) == [0, 1, 2]


def test_one_that_waits_says_so_and_goes_on_when_a_holder_is_killed(hold):
    holder = hold("a")
    assert leased(holder) == 0
    waiter = hold("a")
    assert waiter.stdout.readline().startswith("all 1 devices are in use: waiting for one (leases in ")
    holder.send_signal(signal.SIGKILL)
    assert waiter.stdout.readline().startswith("waited ")
    assert leased(waiter) == 0


def test_a_device_keeps_its_lease_whatever_number_it_has(hold):
    """CUDA_VISIBLE_DEVICES gives the same GPU other numbers in other processes."""
    assert leased(hold("a", "b")) == 0
    assert leased(hold("b", "a")) == 0
    assert hold("a", "b").stdout.readline().startswith("all 2 devices")


@pytest.mark.parametrize(
    ("job", "count", "needed"),
    [(None, 0, False), (None, 1, True), (None, 4, True), ("17", 0, False), ("17", 1, False), ("17", 4, True)],
)
def test_the_only_device_of_a_slurm_job_is_its_own(monkeypatch, job, count, needed):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    assert leases.is_needed(count) == needed


def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(leases.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(leases.os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match="metantk-leases-12345: belongs to another user"):
        leases.take(["a"])


def test_without_a_gpu_the_processor_is_used(monkeypatch):
    monkeypatch.delenv("METANTK_DEVICE", raising=False)
    monkeypatch.setattr(devices, "visible_devices", lambda: [])
    monkeypatch.setattr(devices.torch.backends.mps, "is_available", lambda: True)  # it has no float64
    assert devices.pick_device().type == "cpu"


def test_a_device_that_is_named_is_taken_without_a_lease(monkeypatch):
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    monkeypatch.setattr(leases, "take", lambda uuids: pytest.fail("a lease was taken"))
    monkeypatch.setattr(devices, "visible_devices", lambda: ["a", "b"])
    assert devices.pick_device().type == "cpu"
