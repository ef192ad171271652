"""Each command line that the guides print is one that works: Make's targets, Snakemake's plans, programs' flags."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, House, copy_house

from metantk.runtime.container import image_name

GUIDES = [
    *("README.md", "config/README.md", "workflow/README.md", "tests/README.md", "tests/benchmarks/README.md"),
    *sorted(f"docs/{guide.name}" for guide in (REPOSITORY / "docs").glob("*.md")),
]
PROGRAMS = ("make", "snakemake", "python")
# What stands for a file or folder of the reader's own.
PLACEHOLDERS = {"FILE": "config/config.yaml", "...": "config/table1.yaml"}


def commands() -> list[str]:
    """Of blocks and within lines, without what follows a #, in the order of their first use."""
    found = []
    for guide in GUIDES:
        text = (REPOSITORY / guide).read_text()
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`([a-z]+ [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        words = [shlex.split(line, comments=True) for line in lines if line.split()[:1] in [[p] for p in PROGRAMS]]
        found += [shlex.join(line) for line in words]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    house = copy_house(tmp_path_factory.mktemp("documented"))
    shutil.copy(REPOSITORY / "Makefile", house.path)
    return house


def of(program: str) -> list[list[str]]:
    """Words after the program's name."""
    return [words[1:] for words in map(shlex.split, commands()) if words[0] == program]


def with_files(words: list[str]) -> list[str]:
    for placeholder, file in PLACEHOLDERS.items():
        words = [re.sub(rf"(^|=){re.escape(placeholder)}$", rf"\g<1>{file}", word) for word in words]
    return words


def test_there_are_such_commands():
    assert all(len(of(program)) >= 3 for program in ("make", "snakemake"))
    assert len(of("python")) >= 2


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_make_knows_its_targets_and_variables(house, words):
    run = house.run("make", "--dry-run", *with_files(words))
    assert run.returncode == 0, run.stderr
    makefile = (REPOSITORY / "Makefile").read_text()
    for variable in (word.split("=")[0] for word in words if "=" in word):
        assert re.search(rf"\$\((value )?{variable}\)", makefile)


@pytest.mark.parametrize("words", of("snakemake"), ids=" ".join)
def test_snakemake_plans(house, words, tmp_path, monkeypatch):
    if "--unlock" in words:
        assert house.snakemake(*words).returncode == 0
        return
    if any(word.endswith("apptainer") for word in words):
        (house.path / image_name()).touch()  # a plan asks for its name only, and for Apptainer's version
        program = tmp_path / "apptainer"
        program.write_text("#!/bin/sh\necho apptainer version 1.4.2\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{tmp_path}")
    run = house.snakemake(*with_files(words), "--dry-run")
    assert run.returncode == 0, run.stderr
    # The theory is the one target that needs no data.
    assert ("verify_theory" if "theory" in words else "prepare_dataset") in run.stdout + run.stderr


@pytest.mark.parametrize("words", of("python"), ids=lambda words: Path(words[0]).name)
def test_programs_have_these_flags(house, words):
    if words[0].startswith("tests/"):
        assert (REPOSITORY / words[0]).is_file()
        return
    run = house.run("python", words[0], "--help")
    assert run.returncode == 0, run.stderr
    known = set(re.findall(r"--[a-z-]+", run.stdout))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known
