"""What the tests share: the repository, and copies of the workflow in which a test may edit and run anything."""

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from warm import Warm

from metantk.runtime.container import image_name

REPOSITORY = Path(__file__).parents[1]
PARTS_OF_HOUSE = ("Snakefile", "workflow", "scripts", "config", "containers", "envs")
NOT_COPIED = shutil.ignore_patterns("*.pyc", "*.sif", ".*")  # and what is known of each module's syntax is
NOTHING_TO_DO = "Nothing to be done (all requested files are present and up to date)."

# One job as `--printshellcmds` shows it: its script and where it writes.
COMMAND = re.compile(r'^ *(?:Shell command: )?python \S*?(\w+)\.py .* --output ("\$\(dirname -- )?([^\s)]+)', re.M)
JOB_STATS = re.compile(r"^Job stats:\njob +count\n[- ]+\n(.*?)\ntotal ", re.M | re.S)


def tiny_configuration() -> dict:
    """All stages, three searches of cells and a backbone without one, as small as they come."""
    return {
        "datasets": {"glyphs": {"source": "glyphs", "image_size": 16, "images_per_class": 25}},
        "rows": [
            {"backbone": "3cells-2ch", "search": ["metantk", "linear-regions", "random"], "learner": "rfs"},
            {"backbone": "conv4-2", "learner": "rfs"},
        ],
        "seeds": [0],
        "backbones": {"conv4-2": {"kind": "conv4", "channels": 2}},
        "searches": {"prune": {"repeats": 1, "image_size": 8}},
        "criteria": {
            "meta_ntk": {"ways": 2, "tasks": 2},
            "linear_regions": {"images": 60, "batches": 1},
            "ntk": {"images": 6},
        },
        "learners": {"rfs": {"epochs": 1}},
        "evaluation": {"episodes": 4, "queries": 3, "support_copies": 1},
        "theory": tiny_theory(),
    }


def tiny_theory() -> dict:
    """Statements 1 to 6 in two seconds: nothing can be concluded from them."""
    return {
        "networks": [{"depth": 1, "widths": [2, 4, 8], "trained_widths": [2, 4, 8]}],
        "sources": ["gaussian"],
        "image_size": 3,
        "shots": 1,
        "seeds": 2,
        "meta_steps": 3,
        "times": [1],
        "learner": {"width": 4, "train_tasks": 2, "test_tasks": 3, "meta_steps": 2},
    }


def program_environment() -> dict[str, str]:
    """For subprocesses: `python` is the tests' own, and nothing looks for a GPU, a profile or an outer make."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # `make test` hands on its own CONFIG, CORES, METANTK_IMAGES and METANTK_NAME.
    callers = ("SNAKEMAKE", "MAKE", "MFLAGS", "CONFIG", "CORES", "METANTK_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(callers)}
    return kept | {"PATH": path, "METANTK_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


WARM = Warm()
atexit.register(WARM.stop)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Test processes side by side share one."""
    WARM.start()
    node.workerinput["warm"] = WARM.folder


def pytest_configure(config) -> None:
    WARM.folder = getattr(config, "workerinput", {}).get("warm")


def run_program(*command: object, folder: Path | None = None) -> subprocess.CompletedProcess:
    """Run a command line to its end; `python` is the tests' own, with its libraries loaded already."""
    program, *words = map(str, command)
    folder, environment = folder or Path.cwd(), program_environment()
    if program == "python" and words[0] != "-c":
        return WARM.run(words, folder, environment)
    return subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


class House:
    """A copy of the workflow in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def configuration(self) -> dict:
        return yaml.safe_load((self.path / "config" / "config.yaml").read_text())

    def configure(self, configuration: dict) -> None:
        (self.path / "config" / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))

    def run(self, *command: object) -> subprocess.CompletedProcess:
        """Run a command line in here; `python` is the tests' own."""
        return run_program(*command, folder=self.path)

    def snakemake(self, *arguments: object) -> subprocess.CompletedProcess:
        return self.run("python", "-m", "snakemake", *arguments)

    def jobs(self, *arguments: object) -> set[str]:
        """The jobs of a run, each as `<rule> <folder of its outputs, below results/>`.

        Searches of a backbone are drawn into one folder: their jobs' names end in `/<search>`. Jobs are read from
        the printed commands and compared with the printed counts, so that none is overlooked.
        """
        finished = self.snakemake("--printshellcmds", *arguments)
        printed = finished.stdout + finished.stderr
        assert finished.returncode == 0, printed
        stats = JOB_STATS.search(printed)
        assert (stats is None) == (NOTHING_TO_DO in printed), printed
        jobs = set()
        for script, is_file, output in COMMAND.findall(printed):
            folder = Path(output).parent if is_file else Path(output)
            if script == "draw_searches":
                folder /= re.fullmatch(r"cells_(.+)_seed\d+\.svg", Path(output).name)[1]
            jobs.add(f"{script} {folder.relative_to('results')}")
        counts = dict(line.split() for line in stats[1].splitlines()) if stats else {}
        for target in ("all", "theory"):
            counts.pop(target, None)
        assert Counter(job.split()[0] for job in jobs) == {rule: int(count) for rule, count in counts.items()}
        return jobs

    def planned(self, *arguments: object) -> set[str]:
        """The jobs that a run would run."""
        return self.jobs("--dry-run", *arguments)


def copy_house(target: Path) -> House:
    for name in PARTS_OF_HOUSE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=NOT_COPIED)
        else:
            shutil.copy2(source, target / name)
    return House(target)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


def place_image(image: Path, house: House) -> None:
    """The image where the rules look for it; 3 GB are not copied where that can be helped."""
    target = house.path / image_name()
    try:
        os.link(image, target)
    except OSError:
        shutil.copy(image, target)


@pytest.fixture(scope="session")
def image(repository, tmp_path_factory) -> Path:
    """The container image of this version, built where it is not there yet; so is Apptainer installed.

    Without Apptainer, and without what its installation needs, tests are skipped; where CI is set, they fail.
    """
    path = repository / image_name()
    with one_at_a_time(shared_folder(tmp_path_factory) / "image.lock"):
        if not shutil.which("apptainer"):
            run_or_skip(repository / "tests/sandbox/apptainer-sandbox", "install")
        if not path.exists():
            run_or_skip(sys.executable, repository / "scripts/build_container.py")
    return path


def run_or_skip(*command: object) -> None:
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if run.returncode:
        name = " ".join(Path(part).name for part in command)
        reason = f"{name} failed: {(run.stderr.strip() or 'no message').splitlines()[-1]}"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}\n{run.stdout}\n{run.stderr}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return program_environment()


@pytest.fixture
def copy_of_house(tmp_path) -> House:
    """The workflow with its default configuration; nothing has run."""
    (tmp_path / "house").mkdir()
    return copy_house(tmp_path / "house")


@pytest.fixture(scope="module")
def default_house(tmp_path_factory) -> House:
    """The same for all tests of a module: run once, then only read."""
    return copy_house(tmp_path_factory.mktemp("default"))


@pytest.fixture
def tiny_house(copy_of_house) -> House:
    """The workflow with the tiny configuration; nothing has run."""
    copy_of_house.configure(tiny_configuration())
    return copy_of_house


def shared_folder(tmp_path_factory) -> Path:
    """A folder of this run of the tests, the same for all of its processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> House:
    """The tiny configuration, run to the end. Tests only read it; those that change something take `finished`.

    Test processes side by side share it: the first to come runs it.
    """
    path = shared_folder(tmp_path_factory) / "finished_run"
    done = path.with_suffix(".done")
    with one_at_a_time(path.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            house = copy_house(path)
            house.configure(tiny_configuration())
            run = house.snakemake("--cores", 2, "all", "theory")
            logs = "\n".join(path.read_text() for path in sorted(house.path.glob("results/logs/**/*.log")))
            assert run.returncode == 0, f"{run.stderr}\n{logs}"
            done.touch()
    return House(path)


@pytest.fixture
def finished(finished_run, tmp_path) -> House:
    """A copy of the finished run, times of files and Snakemake's records included."""
    return House(Path(shutil.copytree(finished_run.path, tmp_path / "finished", symlinks=True)))
