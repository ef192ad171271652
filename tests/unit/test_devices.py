"""Which devices are taken and which are refused. GPUs are made up."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metantk.runtime import devices
from metantk.runtime.files import InputError

PINNED = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of the pinned PyTorch's wheel


@pytest.mark.parametrize("name", ["mps", "mps:0", "meta", "xpu"])
def test_other_kinds_of_devices_are_refused_in_one_line(monkeypatch, name):
    """Also where PyTorch has them: kernels and fits need float64."""
    monkeypatch.setenv("METANTK_DEVICE", name)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # a machine that has them all
    with pytest.raises(InputError) as caught:
        devices.pick_device()
    assert str(caught.value) == f"METANTK_DEVICE={name}: only cpu and cuda are supported"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:-3"])
def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch, name):
    monkeypatch.setenv("METANTK_DEVICE", name)
    with pytest.raises(InputError, match=rf"^METANTK_DEVICE={name}: no such device here \(.+\)$"):
        devices.pick_device()


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 0), PINNED, False),  # V100
        ((7, 5), PINNED, True),  # T4
        ((8, 9), PINNED, True),  # L4: binaries of 8.6 run on it
        ((9, 0), PINNED, True),
        ((11, 0), PINNED, False),
        ((13, 0), PINNED, False),
        ((13, 0), [*PINNED, "compute_120"], True),
        ((7, 0), ["sm_70", *PINNED], True),
        ((7, 0), ["compute_75"], False),
        ((9, 0), [], True),  # a build that does not tell
    ],
)
def test_a_gpu_without_kernels_is_refused_before_the_work(monkeypatch, capability, built, runs):
    monkeypatch.delenv("METANTK_DEVICE", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # one GPU of its own: no lease
    monkeypatch.setattr(devices, "visible_devices", lambda: ["a"])
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        assert devices.pick_device() == torch.device("cuda", 0)
        return
    with pytest.raises(InputError) as caught:
        devices.pick_device()
    message = str(caught.value)
    assert message.startswith(f"Tesla is sm_{capability[0]}{capability[1]}, for which PyTorch {torch.__version__} ")
    assert "docs/cluster.md, Older GPUs" in message
    assert "\n" not in message


# --- Threads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("openmp", "slurm", "threads"),
    [(None, None, 7), (None, "4", 4), ("2", "4", 2), ("3,1", None, 3), ("none", "0", 7)],
)
def test_threads_are_what_was_given_else_what_is_there(monkeypatch, openmp, slurm, threads):
    for name, value in (("OMP_NUM_THREADS", openmp), ("SLURM_CPUS_PER_TASK", slurm)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("joblib.cpu_count", lambda: 7)
    assert devices.count_threads() == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_processors_that_this_process_may_not_use_are_not_counted(monkeypatch):
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert devices.count_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)


SETTINGS = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["PASSIVE", "0", None]),
        ({"OMP_NUM_THREADS": "2"}, ["PASSIVE", "0", "5000"]),
        ({"SLURM_CPUS_PER_TASK": "2"}, ["PASSIVE", "0", "5000"]),
        ({"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "7"}, ["PASSIVE", "0", "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "5"}, ["ACTIVE", "5", None]),
    ],
)
def test_threads_wait_asleep_and_spin_for_a_moment_on_cores_of_their_own(given, expected):
    code = f"import metantk, json, os; print(json.dumps([os.environ.get(name) for name in {SETTINGS}]))"
    left_out = {*SETTINGS, "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"PYTHONPATH": str(SCRIPTS)} | given
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert json.loads(run.stdout) == expected


SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_no_program_imports_pytorch_before_it_is_told_how_to_wait(script):
    """Nor what brings an OpenMP of its own. How to wait is read when the library is loaded."""
    names = []
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module.split(".")[0])
    for name in ("torch", "torchvision", "sklearn", "opacus"):
        assert name not in names or names.index("metantk") < names.index(name)


STEPS = """
import sys
sys.path.insert(0, {scripts!r})
import metantk, torch
from metantk.runtime import devices

KINDS = torch.optim.Adam, torch.optim.SGD

def weights(kind):
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3)
    optimiser = kind(network.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        optimiser.load_state_dict(optimiser.state_dict())
        optimiser.zero_grad()
        network(torch.ones(2, 5)).square().sum().backward()
        optimiser.step()
    return network.weight.tolist()

plain = [kind.step for kind in KINDS]
devices.leave_compiler_out()
without = [weights(kind) for kind in KINDS]
assert "torch._dynamo" not in sys.modules
for kind, step in zip(KINDS, plain):
    kind.step = step
assert [weights(kind) for kind in KINDS] == without
assert "torch._dynamo" in sys.modules
"""


def test_optimisers_step_as_ever_without_loading_the_compiler():
    """In a process of its own: that of the tests, and the one that they fork, may have loaded it."""
    code = STEPS.format(scripts=str(SCRIPTS))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
