"""Say how long a configuration will take on this machine, before it is run.

Each distinct job of the three long stages (search, training, evaluation) runs here for some seconds by its own
program, in a folder that is thrown away; its progress is carried on to its end. Rows of the same backbone and
learner are trained and evaluated once, whatever found their cells. What a search has had no time to find is stood
for by a random cell, and a trained network by an untrained one. An evaluation that does not end in time is
estimated too high: its first episodes pay for features that later ones share. A data set is taken from the results
folder; where it is not prepared yet, it is prepared first, whole.

Programs run in forks of this one, which loads PyTorch for all of them; the seconds of that are added to each.

Prints seconds, memory and jobs for each kind of job, then the hours of all of them side by side on 1, 2, 4 and 8
GPUs (or cores): the jobs of a chain follow one another. Figures and tables count with the seconds of a start each.
Below stand the hours that kernels of searches, trainings and features of evaluations would take on GPUs that are
not here, by their data sheets.
What is measured right now is said on the way.

Example:
    python scripts/estimate_campaign.py --configfile config/config.yaml

Time: the preparation of the data, and 80 seconds that all jobs share, of which the starts of programs are a part.
Longer where jobs are many, or two steps of one take long. With `--seconds`, that for each.
"""

import heapq
import importlib
import itertools
import logging
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from pydantic import ValidationError

from metantk.data.manifest import Manifest
from metantk.options.base import Options
from metantk.options.config import Chain, Config, check_sources, parse_config, read_yaml
from metantk.options.learners.none import NoneOptions
from metantk.options.meta_learning import phases_of
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import SCRIPTS, InputError, canonical_json, read_json
from metantk.runtime.typed_files import read_record

log = logging.getLogger("metantk")
SIDE_BY_SIDE = (1, 2, 4, 8)
WHOLE_SECONDS = 80  # of all measurements together
LEAST_SECONDS, LONGEST = 1.0, 86_400  # of one
LIBRARIES = ("torch", "pandas")  # that take most of the seconds of a start
# A line of metantk.runtime.command_line.progress: done and all.
PROGRESS = re.compile(r"^\w[\w ]*: ([\d.]+[kMG]?)/([\d.]+[kMG]?) \[")
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


class Cost(NamedTuple):
    """Of one job: seconds, the largest resident memory in MiB, and whether it ran to its end."""

    seconds: float
    memory_mb: float
    whole: bool


class Step(NamedTuple):
    """A single job, and those that wait for it alone."""

    seconds: float
    then: list["Step"]

    @property
    def way(self) -> float:
        """Seconds until the last of all that wait for it could end."""
        return self.seconds + max((step.way for step in self.then), default=0.0)


class Job(NamedTuple):
    """A kind of job: how its row of the table begins, and its cost. `count` of them are run."""

    stage: str
    name: str
    count: int
    cost: Cost


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"), metavar="FILE")
    parser.add_argument("--seconds", type=float, help=f"for each distinct job [a share of {WHOLE_SECONDS}]")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    if seconds is not None and not 0 < seconds <= LONGEST:
        raise InputError(f"--seconds {seconds}: give a number above 0, {LONGEST} at most")
    config = parse_config(read_yaml(arguments.configfile))
    check_sources(config)
    with tempfile.TemporaryDirectory(prefix="estimate-") as folder:
        starts = measure_start(Path(folder))
        pace = Pace(count_measurements(config), load_libraries(), seconds)
        jobs, steps = measure(config, Path(folder), pace)
        print(table(jobs))
        print(summary(jobs, steps, count_small_jobs(config), starts), flush=True)
        for line in compute(config, Path(folder)):
            print(line)


class Pace:
    """How long each measurement may take, and which one it is.

    Args:
        count: of measurements.
        loading: seconds of the libraries, which a program of its own would load, too.
        seconds: of each, or None: so many that all of them take `WHOLE_SECONDS`.
    """

    def __init__(self, count: int, loading: float, seconds: float | None) -> None:
        self.count, self.loading, self.seconds = count, loading, seconds
        self.begun, self.began = 0, time.monotonic()

    def next(self, name: str) -> float:
        """Say what begins, and its seconds."""
        left, waiting = WHOLE_SECONDS - (time.monotonic() - self.began), self.count - self.begun
        self.begun += 1
        log.info("measuring %d of %d: %s", self.begun, self.count, name)
        # The other half is for starts, and for what stands in for a result.
        return self.seconds or max(LEAST_SECONDS, left / waiting / 2)

    def whole(self, cost: Cost, options: Options) -> Cost:
        """A cost with the loading of libraries, unless the kind computes nothing."""
        return cost._replace(seconds=cost.seconds + self.loading) if options.uses_device else cost


def count_measurements(config: Config) -> int:
    """Distinct searches, and the phases of a training and an evaluation of each distinct backbone and learner."""
    searched = {(chain.backbone, chain.search) for chain in config.chains}
    trained = {(chain.backbone, chain.learner) for chain in config.chains}
    phases = sum(len(phases_of(config.learner(learner))) for _, learner in trained)
    return len(config.datasets) * (len(searched) + phases + len(trained))


def measure(config: Config, folder: Path, pace: Pace) -> tuple[list[Job], list[Step]]:
    """All kinds of jobs; and the single ones, of each data set, then its searches, networks and evaluations."""
    jobs, steps, seeds = [], [], len(config.seeds)
    for dataset, options in config.datasets.items():
        data = find_data(config, dataset, folder)
        prepared = Cost(0.0, 0.0, True)
        if not (data / "manifest.json").is_file():
            log.info("preparing %s", dataset)
            words = ["--name", dataset, "--options", as_json(options), "--output", data]
            prepared = run_for(None, "prepare_dataset", words)
            jobs.append(Job("prepare_dataset", dataset, 1, prepared))
        searches: dict[tuple[str, str], Cost] = {}
        networks: dict[tuple[str, str], list[Step]] = {}  # of one seed, by the search that finds their cells
        learners: dict[tuple[str, str], tuple[Cost, Cost]] = {}
        for index, chain in enumerate(config.chains):
            place = folder / f"{dataset}-{index}"
            searched, learned = (chain.backbone, chain.search), (chain.backbone, chain.learner)
            architecture = folder / f"{dataset}-{chain.backbone}" / "architecture.json"
            if searched not in searches:
                name = f"{dataset} {' '.join(searched)}"
                searches[searched] = measure_search(config, chain, data, place, architecture, pace)
                jobs.append(Job("search_architecture", name, seeds, searches[searched]))
            if learned not in learners:
                learners[learned] = measure_learner(config, chain, data, architecture, place, pace)
            for stage, cost in zip(("train_network", "evaluate_episodes"), learners[learned], strict=True):
                jobs.append(Job(stage, f"{dataset} {' '.join(chain)}", seeds, cost))
            evaluation = learners[learned][-1]
            if others := sum(trained == dataset for trained, _ in config.transfers):
                name = f"{dataset} {' '.join(chain)}, on other data sets"
                jobs.append(Job("evaluate_episodes", name, seeds * others, evaluation))
            tests = [Step(evaluation.seconds, []) for _ in range(1 + others)]
            networks.setdefault(searched, []).append(Step(learners[learned][0].seconds, tests))
        found = [Step(cost.seconds, networks[searched]) for searched, cost in searches.items()]
        steps.append(Step(prepared.seconds, found * seeds))
    return jobs, steps


def measure_search(config: Config, chain: Chain, data: Path, place: Path, architecture: Path, pace: Pace) -> Cost:
    """Leaves an architecture where there is none of the backbone yet: what was found, or that of a random cell."""
    words = ["--data", data, "--backbone", as_json(config.backbone(chain.backbone))]
    seconds = pace.next(f"search_architecture {chain.backbone} {chain.search}")
    found = ["--search", as_json(config.search(chain.search)), "--output", place / "search"]
    cost = run_for(seconds, "search_architecture", [*words, *found])
    cost = pace.whole(cost, config.search(chain.search))
    if architecture.is_file():
        return cost
    architecture.parent.mkdir()
    if not cost.whole:
        run_for(None, "search_architecture", [*words, "--search", "sample", "--output", place / "search"])
    shutil.copy(place / "search" / "architecture.json", architecture)
    return cost


def measure_learner(
    config: Config, chain: Chain, data: Path, architecture: Path, place: Path, pace: Pace
) -> tuple[Cost, Cost]:
    """Of the training, and of the evaluation of the network that it starts with."""
    learner, parts = config.learner(chain.learner), []
    for number, (share, alike) in enumerate(phases_of(learner)):
        seconds = pace.next(f"train_network {chain.backbone} {chain.learner}")
        words = ["--data", data, "--architecture", architecture, "--output", place / f"model{number}"]
        part = run_for(seconds, "train_network", [*words, "--learner", as_json(alike)])
        parts.append(part._replace(seconds=share * part.seconds))
    seconds, memory, whole = zip(*parts, strict=True)
    together = Cost(sum(seconds), max(memory), all(whole))
    training, model = pace.whole(together, learner), place / f"model{number}"
    if not training.whole:
        model = place / "untrained"
        words[-1] = model
        run_for(None, "train_network", [*words, "--learner", as_json(without_training(learner))])
    words = [
        "--data",
        data,
        "--model",
        model,
        "--options",
        as_json(config.evaluation.episodes_alone),
        "--output",
        place / "tested",
    ]
    seconds = pace.next(f"evaluate_episodes {chain.backbone} {chain.learner}")
    return training, pace.whole(run_for(seconds, "evaluate_episodes", words), config.evaluation)


def without_training(learner: Options) -> Options:
    """The learner with no epochs; `none` where it takes one at least."""
    changes = {"epochs": 0, "milestones": None}
    changes = {name: value for name, value in changes.items() if name in type(learner).model_fields}
    try:
        return type(learner).model_validate(learner.model_dump() | changes)
    except ValidationError:
        return NoneOptions()


def compute(config: Config, folder: Path) -> Iterator[str]:
    """Lines on the jobs on GPUs that are not here, for the architectures that were measured."""
    from metantk import gpu_campaign  # it imports PyTorch, and a configuration is refused before

    splits = {}
    for dataset in config.datasets:
        manifest = find_data(config, dataset, folder) / "manifest.json"
        splits[dataset] = read_record(manifest, Manifest, stage="prepare_dataset").splits
    for dataset in config.datasets:
        architectures = {
            backbone: read_json(folder / f"{dataset}-{backbone}" / "architecture.json")
            for backbone in dict.fromkeys(chain.backbone for chain in config.chains)
        }
        yield from gpu_campaign.lines(config, dataset, splits, architectures)


def find_data(config: Config, dataset: str, folder: Path) -> Path:
    """Where a run has prepared the data, or else this program does."""
    data = Path(config.results) / dataset / "data"
    return data if (data / "manifest.json").is_file() else folder / dataset


def as_json(options: Options) -> str:
    return canonical_json(options.model_dump())


def measure_start(folder: Path) -> float:
    """Seconds of a program that has nothing to do: most of those that draw and tabulate."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, SCRIPTS / "draw_results.py", "--help"], cwd=folder, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - began


def load_libraries() -> float:
    """Load what the forks share, once; its seconds."""
    began = time.perf_counter()
    for library in LIBRARIES:
        importlib.import_module(library)
    return time.perf_counter() - began


def count_small_jobs(config: Config) -> int:
    """Jobs that are hardly more than their start: images of searches, of data sets and of results, tables."""
    searches = {(c.backbone, c.search) for c in config.chains if config.backbone(c.backbone).searchable}
    return len(config.datasets) * (len(searches) + 2) + 1


def run_for(seconds: float | None, script: str, words: list[object]) -> Cost:
    """Run a stage's program in a fork, and carry its progress on to its end.

    Args:
        seconds: from its first step on, until it is ended, though not before its second step; None: to its end.

    Raises:
        InputError: it failed, or has made no progress.
    """
    path = SCRIPTS / f"{script}.py"
    began = time.perf_counter()
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        become(path, words, writing)
    os.close(writing)
    marks: list[tuple[float, float, float]] = []  # when, done, all
    # The time counts from the first step on: a program's start is not what is carried on.
    due = threading.Event()

    def end_if_due() -> None:
        if due.is_set() and len({done for _, done, _ in marks if done > 0}) > 1:
            os.kill(process, signal.SIGTERM)

    timer = threading.Timer(seconds or 0, lambda: (due.set(), end_if_due()))
    last = ""
    with os.fdopen(reading) as lines:
        for line in lines:
            last = line.strip() or last
            if found := PROGRESS.match(line):
                marks.append((time.perf_counter() - began, *map(_number, found.groups())))
                if seconds and not timer.is_alive() and not due.is_set() and marks[-1][1] > 0:
                    timer.start()
                end_if_due()
    timer.cancel()
    _, status, usage = os.wait4(process, 0)
    code = os.waitstatus_to_exitcode(status)
    spent, memory = time.perf_counter() - began, usage.ru_maxrss / 2**10
    if code == 0:
        return Cost(spent, memory, True)
    # Python itself, at its very end, is ended by the signal.
    if code not in (128 + signal.SIGTERM, -signal.SIGTERM):
        raise InputError(f"{path.name}: {last}")
    return Cost(carry_on(marks, path.name), memory, False)


def become(program: Path, words: list[object], errors: int) -> NoReturn:
    """Run a program in this process, which is a fork, as Python would; what it logs goes to a file descriptor."""
    code = 1
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.SIG_DFL)  # ours are this program's, not its
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ["METANTK_PROGRESS_SECONDS"] = "0.5"
        sys.argv[:] = map(str, [program, *words])
        runpy.run_path(str(program), run_name="__main__")
        code = 0
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def carry_on(marks: list[tuple[float, float, float]], name: str) -> float:
    """Seconds until the end of a run, from its progress so far: (seconds, done, all) at some moments.

    Raises:
        InputError: nothing was done between two of them.
    """
    marks = [mark for mark in marks if mark[1] > 0]
    if marks and marks[-1][1] >= marks[-1][2] > 0:
        return marks[-1][0]
    if len(marks) < 2 or marks[-1][1] == marks[0][1]:
        raise InputError(f"{name}: no second step was seen in time; give it more with --seconds")
    (began, first, _), (now, done, total) = marks[0], marks[-1]
    return now + (total - done) * (now - began) / (done - first)


def _number(text: str) -> float:
    return float(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else float(text)


def schedule(steps: list[Step], workers: int) -> float:
    """Seconds until the last job ends, where a free worker takes the one with the longest way before it."""
    order = itertools.count()  # of equals, the first
    ready = [(-step.way, next(order), step) for step in steps]
    heapq.heapify(ready)
    running: list[tuple[float, int, Step]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            *_, step = heapq.heappop(ready)
            heapq.heappush(running, (now + step.seconds, next(order), step))
        now, _, ended = heapq.heappop(running)
        for step in ended.then:
            heapq.heappush(ready, (-step.way, next(order), step))
    return now


def table(jobs: list[Job]) -> str:
    rows = [("stage", "job", "jobs", "seconds each", "MiB")]
    rows += [
        (job.stage, job.name, str(job.count), f"{job.cost.seconds:.0f}", f"{job.cost.memory_mb:.0f}")
        for job in jobs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    names, indices = (
        "  ".join(f"{{:<{width}}}" for width in widths[:2]),
        "".join(f"  {{:>{w}}}" for w in widths[2:]),
    )
    return "\n".join((names + indices).format(*row) for row in rows)


def summary(jobs: list[Job], steps: list[Step], small: int, start: float) -> str:
    """What all of it takes, for numbers of workers."""
    largest = max(job.cost.memory_mb for job in jobs)
    lines = [f"\n{sum(job.count for job in jobs) + small} jobs; the largest takes {largest:.0f} MiB"]
    for workers in SIDE_BY_SIDE:
        seconds = schedule(steps, workers) + small * start / workers
        lines.append(f"{workers} at once: {seconds / 3600:.2f} h ({seconds:.0f} s)")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
