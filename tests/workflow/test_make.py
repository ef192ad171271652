"""make hands over what was typed: names with quotes, dollars and commands, and files that are no configuration."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, copy_house, program_environment

from metantk.options.base import NAME_RULE

NAMES = [
    "it's",
    'a"b',
    "a$b",
    "a\\b",
    "2024_05",
    "007",
    "no",
    "two words",
    "x;$(touch CANARY)",
    "$(shell touch CANARY)",
]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = copy_house(tmp_path_factory.mktemp("make"))
    shutil.copy(REPOSITORY / "Makefile", house.path)
    return house


def make(house, *words, **environment):
    """make with the environment taken for made, and `own` stopping before Snakemake where CORES is 0."""
    command = ["make", "--no-print-directory", "--assume-old", ".venv/ready", *words]
    run = subprocess.run(
        command,
        cwd=house.path,
        env=program_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not list(house.path.rglob("CANARY"))
    return run, [line for line in run.stderr.splitlines() if not line.startswith("make: ")]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_handed_over_as_it_is(house, name):
    run, lines = make(house, "own", f"IMAGES={name}")
    assert run.returncode == 2
    assert lines == [f"check_config.py: error: IMAGES={name}: no such folder"]
    (house.path / name).mkdir()
    run, lines = make(house, "own", f"IMAGES={name}", "CORES=0")
    assert lines == ["check_config.py: error: CORES=0: give a number above 0, or `all`"]


def test_own_images_have_to_be_named(house):
    run, _ = make(house, "own")
    assert "make own IMAGES=some/folder" in run.stderr


@pytest.mark.parametrize(("name", "folder"), [(None, "own-images"), ("birds", "own-images-birds")])
def test_a_second_folder_never_takes_the_first_ones_results(house, name, folder):
    for images in ("first", "second"):
        (house.path / images).mkdir(exist_ok=True)
    data = house.path / "results" / folder / "images" / "data"
    write_manifest(data, "first")
    words = [f"NAME={name}"] if name else []
    run, lines = make(house, "own", "IMAGES=second", *words)
    assert run.returncode == 2
    assert len(lines) == 1
    assert f"IMAGES=second: results/{folder} holds a model of first, which would be overwritten" in lines[0]
    # The first one's own, and another name's, go on.
    for allowed in (["IMAGES=./first", *words], ["IMAGES=second", "NAME=other"]):
        assert check_config(house, *allowed).returncode == 0


def write_manifest(folder, source):
    entry = {
        "images": 2,
        "shape": [8, 8, 3],
        "smallest_class": 1,
        "sha256": dict.fromkeys(("images.npy", "labels.npy"), 64 * "0"),
    }
    manifest = {
        "name": "images",
        "source": source,
        "licence": "",
        "warnings": [],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "splits": {part: {**entry, "classes": [part, f"{part}2"]} for part in ("train", "val", "test")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def check_config(house, *words):
    """The check that make calls first, by itself."""
    own = {f"METANTK_{key}": value for key, value in (word.split("=") for word in words)}
    command = ["python", "scripts/check_config.py", "--configfile", "config/own-images.yaml"]
    return subprocess.run(
        command, cwd=house.path, env=program_environment() | own, capture_output=True, check=False
    )


@pytest.mark.parametrize("name", ["../x", "$(touch CANARY)"])
def test_what_is_no_name_is_refused(house, name):
    (house.path / "first").mkdir(exist_ok=True)
    _, lines = make(house, "own", "IMAGES=first", f"NAME={name}")
    assert lines == [f"check_config.py: error: NAME={name}: {NAME_RULE}"]


def test_a_variable_of_the_systems_is_no_name(house):
    (house.path / "first").mkdir(exist_ok=True)
    _, lines = make(house, "own", "IMAGES=first", "CORES=0", NAME="DESKTOP-1")
    assert lines == ["check_config.py: error: CORES=0: give a number above 0, or `all`"]


@pytest.mark.parametrize(
    ("words", "configuration"),
    [
        ([], "config/config.yaml"),
        (["IMAGES=first"], "config/own-images.yaml"),
        (["NAME=birds"], "config/own-images.yaml"),
        (["IMAGES=first", "CONFIG=mine.yaml"], "mine.yaml"),
    ],
)
def test_who_names_images_means_their_configuration(house, words, configuration):
    run, _ = make(house, "--eval=print: ; @printenv CONFIG", "print", *words)
    assert run.stdout == f"{configuration}\n"


FILES = {
    "broken.yaml": (b"a: [1\nb: 2", "is no YAML (line 2: "),
    "latin.yaml": (b"a: \xe9\n", "byte 3 is no UTF-8"),
    "cyclic.yaml": (b"a: &x [*x]\n", "Circular reference"),
    "code.yaml": (b"__use_yte__: true\n__definitions__:\n- import os\n- open('CANARY', 'w')\n", "run code"),
    "two words.yaml": (None, "No such file"),
}


TARGETS = ("run", "report", "theory", "study", "tables", "status", "estimate", "why")


@pytest.mark.parametrize(
    ("target", "name"), [*((target, "broken.yaml") for target in TARGETS), *(("tables", name) for name in FILES)]
)
def test_a_file_that_is_no_configuration_is_one_line(house, target, name):
    content, fault = FILES[name]
    if content is not None:
        (house.path / name).write_bytes(content)
    run, lines = make(house, target, f"CONFIG={name}")
    assert run.returncode == 2
    assert len(lines) == 1, run.stderr
    assert f"error: {name}: " in lines[0]
    assert fault in lines[0]


def test_the_default_configuration_runs_no_code_either(house):
    content, fault = FILES["code.yaml"]
    own = Path(house.path, "own")
    (own / "config").mkdir(parents=True)
    (own / "config" / "config.yaml").write_bytes(content)
    run = house.snakemake("--directory", own, "--dry-run")
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("error: config/config.yaml: ")
    assert fault in run.stderr
    assert not list(house.path.rglob("CANARY"))


def test_snakemake_finds_its_own_python_without_activation(house):
    folder = Path(os.path.realpath(house.path, strict=True))
    code = "import sys; from snakemake.cli import main; main(sys.argv[1:])"
    python = shutil.which("python", path=program_environment()["PATH"])
    words = ["--cores", "1", "--", "results/glyphs/data/manifest.json"]
    run = subprocess.run(
        [python, "-c", code, *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
