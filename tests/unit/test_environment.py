"""The pins: exact, and the same for pip and conda."""

import re
from pathlib import Path

import yaml

ENVS = Path(__file__).parents[2] / "envs"


def pins():
    lines = (ENVS / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def test_every_pin_is_exact():
    assert len(pins()) > 50
    for pin in pins():
        assert re.match(r"^[a-z0-9.-]+==[^ ]+( ; .*)?$", pin), pin


def test_what_we_ask_for_is_pinned():
    asked = [line for line in (ENVS / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    pinned = {pin.split("==")[0] for pin in pins()}
    assert {re.split("[=<>]", name)[0] for name in asked} <= pinned


def test_conda_installs_the_same_pins():
    environment = yaml.safe_load((ENVS / "metantk.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == pins()
