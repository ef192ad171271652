"""Which devices are taken and which are refused. GPUs are made up."""

import pytest
import torch

from metantk import devices
from metantk.storage import InputError

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


def test_without_a_gpu_it_is_the_cpu_on_an_apple_machine_too(monkeypatch):
    monkeypatch.delenv("METANTK_DEVICE", raising=False)
    monkeypatch.setattr(devices, "visible_devices", list)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.pick_device() == torch.device("cpu")


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
    assert "README.md, Older GPUs" in message
    assert "\n" not in message
