"""`pip install .`: the library as a package, its version in one place."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import metantk

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "scripts", "envs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder into which the wheel of this version is unpacked; built without network."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    build = subprocess.run([*command, "--wheel-dir", wheels, source], capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    (wheel,) = wheels.glob("metantk-*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run_python(code: str, path: Path) -> str:
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
def test_an_installed_package_is_imported_with_its_version(installed):
    code = "import metantk.options.config, metantk; print(metantk.__version__, metantk.__file__)"
    version, file = run_python(code, installed).split()
    assert version == metantk.__version__
    assert Path(file).is_relative_to(installed)


def test_the_wheel_holds_every_module_and_asks_for_our_dependencies(installed):
    modules = {path.relative_to(installed).as_posix() for path in installed.glob("metantk/**/*.py")}
    scripts = REPOSITORY / "scripts"
    assert modules == {path.relative_to(scripts).as_posix() for path in scripts.glob("metantk/**/*.py")}
    metadata = next(installed.glob("*.dist-info/METADATA")).read_text()
    assert f"\nVersion: {metantk.__version__}\n" in metadata
    assert "\nRequires-Dist: torch==" in metadata


def test_an_installed_package_has_its_benchmarks(installed):
    code = "from metantk import benchmark; print([len(benchmark.load(n).trainings) for n in benchmark.names()])"
    assert run_python(code, installed) == "[56, 56, 29, 60]"


def test_citation_and_changelog_are_of_this_version():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == metantk.__version__
    releases = re.findall(r"^## (\d\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert releases[0] == metantk.__version__
