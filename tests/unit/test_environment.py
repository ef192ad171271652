"""The pins: exact, and the same for pip and conda."""

import re
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"


# What PyTorch brings with it, and nothing else may differ on older GPUs.
OF_TORCH = re.compile("(torch|torchvision|triton|setuptools|cuda-.*|nvidia-.*)$")


def pins(name="requirements.txt"):
    lines = (ENVS / name).read_text().splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-volta.txt"])
def test_every_pin_is_exact(name):
    assert len(pins(name)) > 50
    for pin in pins(name):
        assert re.match(r"^[a-z0-9.-]+==[^ ]+( ; .*)?$", pin), pin


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-volta.txt"])
def test_every_package_has_one_version_whatever_the_python(name):
    names = [pin.split("==")[0] for pin in pins(name)]
    assert sorted(set(names)) == sorted(names)


def test_older_gpus_get_the_same_pins_but_for_pytorch():
    usual, volta = (
        {pin for pin in pins(name) if not OF_TORCH.match(pin.split("==")[0])}
        for name in ("requirements.txt", "requirements-volta.txt")
    )
    assert usual == volta
    overrides = (ENVS / "volta.in").read_text().splitlines()
    assert {line for line in overrides if line[0] != "#"} <= set(pins("requirements-volta.txt"))


def test_what_we_ask_for_is_pinned():
    asked = [line for line in (ENVS / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    pinned = {pin.split("==")[0] for pin in pins()}
    assert {re.split("[=<>]", name)[0] for name in asked} <= pinned


def test_conda_installs_the_same_pins():
    environment = yaml.safe_load((ENVS / "metantk.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == pins()
