"""The workflow in a real Apptainer image: what is in it, that results do not depend on it, and that homes stay out.

The image is built where it is not there yet, which takes some four minutes; later runs of the tests find it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import House, copy_house, place_image, program_environment, tiny_configuration

from metantk.runtime.container import FOLDER, image_name

pytestmark = pytest.mark.slow

PROFILE = "workflow/profiles/slurm-apptainer"
# What differs between any two runs, by name: logs, and tables and an image of measured times and memory.
MEASURED = ("benchmarks/", "logs/", "tables/summary.", "tables/table1.", "tables/costs.", "/cost.", "/front.")
MEASURED_KEYS = ("seconds", "costs", "peak_memory_mb", "latency_ms")
ORDINARY_USER = 65534
# Writes a file when a Python starts that sees the packages of the user's home.
TELL_TALE = "from pathlib import Path\nPath({path!r}).touch()\n"


def inside(image: Path, *words: object, before: tuple = (), options: tuple = ()) -> subprocess.CompletedProcess:
    """Run a command in the image."""
    command = [*before, "apptainer", "exec", *options, image, *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def home_with_packages(path: Path, tell_tale: Path) -> Path:
    """A home in which a Python that looks for the user's own packages gives itself away."""
    packages = path / ".local/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / "usercustomize.py").write_text(TELL_TALE.format(path=str(tell_tale)))
    return path


@pytest.fixture(scope="module")
def tell_tale(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("told") / "a_home_was_read"


@pytest.fixture(scope="module")
def home(tmp_path_factory, tell_tale) -> Path:
    return home_with_packages(tmp_path_factory.mktemp("home"), tell_tale)


@pytest.fixture(scope="module")
def contained_run(image, home, tell_tale, tmp_path_factory) -> House:
    """The tiny configuration in the container, with the cluster's profile but on this machine.

    The working folder is a home inside the container, so it has packages of its own as well.
    """
    house = copy_house(tmp_path_factory.mktemp("contained"))
    house.configure(tiny_configuration())
    home_with_packages(house.path, tell_tale)
    place_image(image, house)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--workflow-profile",
        PROFILE,
        "--executor",
        "local",
        "--cores",
        "2",
        "all",
        "theory",
    ]
    environment = program_environment() | {"HOME": str(home)}
    run = subprocess.run(command, cwd=house.path, env=environment, capture_output=True, text=True, check=False)
    logs = "\n".join(path.read_text() for path in sorted(house.path.glob("results/logs/**/*.log")))
    assert run.returncode == 0, f"{run.stderr}\n{logs}"
    return house


def test_the_image_passes_its_own_test(image):
    test = subprocess.run(["apptainer", "test", image], capture_output=True, text=True, check=False)
    assert test.returncode == 0, test.stdout + test.stderr
    assert "the image holds its pins" in test.stdout


def test_the_images_test_notices_another_version(image, repository, tmp_path):
    pins = (repository / "envs/requirements.txt").read_text().replace("tqdm==", "tqdm==0.", 1)
    (tmp_path / "requirements.txt").write_text(pins)
    check = inside(
        image, "python", "/opt/check_image.py", tmp_path / "requirements.txt", options=("--bind", tmp_path)
    )
    assert check.returncode == 1
    assert check.stderr.strip().startswith("tqdm: pinned 0.")


def test_the_image_has_labels(image):
    inspect = subprocess.run(["apptainer", "inspect", "--json", image], capture_output=True, text=True, check=True)
    labels = json.loads(inspect.stdout)["data"]["attributes"]["labels"]
    assert labels["org.opencontainers.image.version"] == image_name().stem.removeprefix("metantk-")
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert "MetaNTK-NAS" in labels["org.opencontainers.image.title"]
    assert labels["org.opencontainers.image.source"]


def test_neither_code_nor_wheels_nor_settings_are_in_the_image(image):
    """Of the repository it has the pins and the check of them; of the machine that built it, nothing."""
    alone = ("--containall", "--no-home")
    ours = inside(image, "find", "/opt", "/mnt", "/srv", "-mindepth", 1, "-maxdepth", 1, options=alone)
    assert sorted(ours.stdout.split()) == ["/opt/check_image.py", "/opt/metantk", "/opt/requirements.txt"]
    names = ("check_image.py", "search_architecture.py", "pip.conf", ".netrc")
    either = [word for name in names for word in ("-o", "-name", name)][1:]
    found = inside(image, "find", "/", "-xdev", *either, options=alone)
    assert found.stdout.split() == ["/opt/check_image.py"]


def test_results_are_the_same_as_without_a_container(contained_run, finished_run):
    def results(house: House) -> dict[str, bytes]:
        folder = house.path / "results"
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): contents(path) for path in paths}

    expected, found = results(finished_run), results(contained_run)
    assert expected.keys() == found.keys()
    compared = [name for name in expected if not any(word in name for word in MEASURED)]
    # Three searches of cells and a backbone without one.
    assert sum(name.endswith(("architecture.json", ".safetensors", "episodes.csv")) for name in compared) == 3 * 4
    assert [name for name in compared if expected[name] != found[name]] == []


def contents(path: Path) -> bytes:
    """The bytes of a result; in JSON without what is measured and without Python's patch version."""
    if path.suffix != ".json":
        return path.read_bytes()
    values = json.loads(path.read_text())
    values.get("versions", {}).pop("python", None)
    return json.dumps({key: value for key, value in values.items() if key not in MEASURED_KEYS}).encode()


def test_nothing_of_a_home_is_read_or_written(contained_run, image, home, tell_tale):
    assert not tell_tale.exists()
    # Snakemake itself, outside, keeps a cache there, and Apptainer a folder.
    assert {path.name for path in home.iterdir()} <= {".local", ".cache", ".apptainer"}
    assert {path.name for path in home.glob(".cache/*")} <= {"snakemake"}
    assert (contained_run.path / ".snakemake/cache/matplotlib").is_dir()
    # The tell-tale tells where it is let in.
    told = ("--home", home, "--bind", tell_tale.parent)
    inside(image, "env", "-u", "PYTHONNOUSERSITE", "/usr/bin/python3", "-c", "", options=told)
    assert tell_tale.exists()
    tell_tale.unlink()


def test_the_plan_does_not_need_the_container(contained_run):
    """Switched off, the same results stand, if Snakemake is told that another environment does not matter."""
    triggers = ("--rerun-triggers", "code", "input", "mtime", "params")
    assert contained_run.planned(*triggers, "--", "all", "theory") == set()


def test_outputs_belong_to_the_user(image, tmp_path_factory):
    """As an ordinary user, where the tests run as root; root's own files say nothing."""
    root = os.getuid() == 0
    house = copy_house(Path(tmp_path_factory.mktemp("user")))
    place_image(image, house)
    before = ()
    if root:
        before = ("setpriv", f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}", "--clear-groups")
        for path in (house.path, *house.path.parents):
            if not path.stat().st_mode & 0o001:  # pytest's own folders are for their owner alone
                path.chmod(path.stat().st_mode | 0o011)
        os.chown(house.path, ORDINARY_USER, ORDINARY_USER)
    options = json.dumps(tiny_configuration()["datasets"]["glyphs"])
    run = inside(
        house.path / image_name(),
        *("python", "scripts/prepare_dataset.py", "--name", "glyphs", "--options", options, "--output", "data"),
        before=before,
        options=("--cleanenv", "--no-home", "--home", house.path, "--pwd", house.path),
    )
    assert run.returncode == 0, run.stderr
    owners = {path.stat().st_uid for path in (house.path / "data").rglob("*")}
    assert owners == {ORDINARY_USER if root else os.getuid()}


def test_a_missing_image_is_named_before_anything_runs(tiny_house):
    run = tiny_house.snakemake("--cores", 1, "--sdm", "apptainer")
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert f"{FOLDER}/metantk-" in line
    assert "make container" in line
    assert not (tiny_house.path / "results").exists()


def test_the_profile_is_the_one_of_slurm_with_containers(repository):
    """What a cluster needs stands in both, and is changed in both."""
    plain, contained = [
        yaml.safe_load((repository / f"workflow/profiles/{name}/config.yaml").read_text())
        for name in ("slurm", "slurm-apptainer")
    ]
    assert contained.pop("software-deployment-method") == "apptainer"
    assert "--cleanenv --no-home" in contained.pop("apptainer-args")
    assert contained == plain


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, ["--env", "CUDA_VISIBLE_DEVICES=0,1"]),
        # Set and empty hides all GPUs: that is not the same as unset.
        ({"CUDA_VISIBLE_DEVICES": ""}, ["--env", "CUDA_VISIBLE_DEVICES="]),
        ({"METANTK_DEVICE": "cpu"}, ["--env", "METANTK_DEVICE=cpu"]),
    ],
)
def test_the_profile_passes_on_threads_and_devices_and_nothing_else(repository, environment, expected):
    profile = yaml.safe_load((repository / PROFILE / "config.yaml").read_text())
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {profile['apptainer-args']}"],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "SECRET": "x"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    driver = ["--nv"] if Path("/dev/nvidiactl").exists() else []
    assert shown.stdout.split() == ["--cleanenv", "--no-home", "--env", "OMP_NUM_THREADS=1", *expected, *driver]
