"""How far a workflow has come, from its files alone: what is done, running and left, and how long that may take.

Nothing is asked of Snakemake, so that it can be told at any time, from anywhere. Imports no torch and no pandas.
"""

import csv
import os
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from metantk.options.config import Config
from metantk.results import layout
from metantk.runtime import running

# A line of metantk.runtime.command_line.progress: what, done and all, and the time that is left.
PROGRESS = re.compile(r"^(\w[\w ]*): ([\d.]+)/([\d.]+) \[([\d:]+)<([\d:]+)", re.M)
LAST_BYTES = 1 << 16  # of a log that are looked at
SECONDS_BETWEEN = 30.0  # of the lines that a run prints


class Job(NamedTuple):
    """One job of a stage that takes its time.

    Attributes:
        stage: the rule.
        place: data set, backbone, search, seed, learner, as far as the stage has them; `on-NAME` of a transfer.
        output: the file that is there when the job is done.
        log, benchmark: where they lie, if it has begun, or is done.
        epochs: of a training; 0 of all else.
    """

    stage: str
    place: tuple[str, ...]
    output: Path
    log: Path
    benchmark: Path
    epochs: int = 0

    @property
    def is_done(self) -> bool:
        return self.output.is_file()

    def has_begun(self, since: float) -> bool:
        """Whether its log is of the run that began then: that of an earlier one may lie there."""
        try:
            return not self.is_done and self.log.stat().st_mtime >= since
        except OSError:
            return False

    @property
    def name(self) -> str:
        return " ".join([self.stage, *self.place])

    @property
    def kind(self) -> tuple[str, ...]:
        """The job without its seed: jobs that take about as long."""
        return (self.stage, *(part for part in self.place if not part.startswith("seed")))


class Step(NamedTuple):
    """How far a running job is, by the last line of progress in its log.

    Attributes:
        what: what it does.
        done, total: steps.
        seconds: from its begin to the end that it foresees.
        left: seconds from now on.
    """

    what: str
    done: float
    total: float
    seconds: float
    left: float


class Progress(NamedTuple):
    """How far a workflow is.

    Attributes:
        done, running, left: jobs.
        steps: how far running jobs are, by name; those that say so.
        seconds_left: of all that are running or left, as many at once as are running, as far as jobs say.
        unknown: jobs that nothing like has finished of, or foresees its end.
        is_running: whether Snakemake runs it.
    """

    done: list[Job]
    running: list[Job]
    left: list[Job]
    steps: dict[str, Step]
    seconds_left: float
    unknown: list[Job]
    is_running: bool


def jobs_of(config: Config) -> list[Job]:
    """The jobs of all stages that take their time, in the order in which they can run."""
    wildcards = [
        {"dataset": dataset, **chain._asdict(), "seed": seed, "on": on}
        for dataset in sorted(config.datasets)
        for chain in config.chains
        for seed in config.seeds
        for on in ("", *(layout.on_other(tested) for trained, tested in config.transfers if trained == dataset))
    ]
    results = Path(config.results)
    jobs = []
    for stage, place in layout.STAGES.items():
        named = {place.job.format(**w): (place.output.format(**w), w["learner"]) for w in wildcards}
        for name, (output, learner) in named.items():
            log, benchmark = (find(results, stage, name) for find in (layout.log_file, layout.benchmark_file))
            epochs = getattr(config.learner(learner), "epochs", 0) if stage == "train_network" else 0
            jobs.append(Job(stage, tuple(name.split("/")), results / output, log, benchmark, epochs))
    return jobs


def look(config: Config, now: float | None = None) -> Progress:
    """How far the workflow of a configuration is; called from Snakemake's working folder.

    Args:
        now: seconds since the epoch, if another time is meant.
    """
    jobs = jobs_of(config)
    since = running.since(layout.running_file(Path(config.results)))
    done = [job for job in jobs if job.is_done]
    begun = [job for job in jobs if since is not None and job.has_begun(since)]
    left = [job for job in jobs if not job.is_done and job not in begun]
    read = {job.name: read_step(job.log, time.time() if now is None else now) for job in begun}
    steps = {name: step for name, step in read.items() if step is not None}
    times = _times(done)
    foreseen = _means((job, steps[job.name].seconds) for job in begun if job.name in steps)
    seconds, unknown = 0.0, []
    for job in [*begun, *left]:
        expected = next((by[key] for key in _likenesses(job) for by in (times, foreseen) if key in by), None)
        if job.name in steps:
            seconds += steps[job.name].left
        elif expected is None:
            unknown.append(job)
        else:
            seconds += expected
    return Progress(done, begun, left, steps, seconds / max(1, len(begun)), unknown, since is not None)


def _likenesses(job: Job) -> tuple[tuple[str, ...], ...]:
    """What jobs have in common that take about as long, the closest first."""
    return job.kind, (job.stage, *job.place[1:3]), (job.stage,)


def _times(done: Iterable[Job]) -> dict[tuple[str, ...], float]:
    """Mean seconds of finished jobs: of the same kind, of the same backbone and search, of the same stage."""
    measured = ((job, _seconds_of(job.benchmark)) for job in done)
    return _means((job, seconds) for job, seconds in measured if seconds is not None)


def _means(measured: Iterable[tuple[Job, float]]) -> dict[tuple[str, ...], float]:
    seconds: dict[tuple[str, ...], list[float]] = {}
    for job, taken in measured:
        for key in dict.fromkeys(_likenesses(job)):
            seconds.setdefault(key, []).append(taken)
    return {key: sum(values) / len(values) for key, values in seconds.items()}


def _seconds_of(benchmark: Path) -> float | None:
    """What Snakemake measured; none where it is not there, or not to be read."""
    try:
        with benchmark.open(newline="") as file:
            return float(next(csv.DictReader(file, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, ValueError, TypeError):
        return None


def read_step(log: Path, now: float) -> Step | None:
    """The last progress of a running job; none where it has not said any yet."""
    found = PROGRESS.findall(_end_of(log))
    if not found:
        return None
    what, done, total, elapsed, left = found[-1]
    spent, to_come = _seconds(elapsed), _seconds(left)
    return Step(what, float(done), float(total), spent + to_come, max(0.0, to_come - (now - log.stat().st_mtime)))


def _seconds(text: str) -> float:
    """From `01:30` or `1:00:00`."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            return file.read().decode(errors="replace").replace("\r", "\n")
    except OSError:
        return ""


def describe_running(job: Job, step: Step | None) -> str:
    """How far a running job is, in a line: `training: epoch 4 of 10, 35 %, 2 min left`."""
    if step is None or not step.total:
        return _last_line(job.log)
    share = step.done / step.total
    where = f"{step.done:g} of {step.total:g}"
    if job.epochs and step.what == "training":
        where = f"epoch {min(job.epochs, 1 + int(share * job.epochs))} of {job.epochs}"
    return f"{step.what}: {where}, {share:.0%}, {format_duration(step.left)} left"


def _last_line(log: Path) -> str:
    """What a running job has said last."""
    return next((line.strip() for line in reversed(_end_of(log).split("\n")) if line.strip()), "")[:100]


def describe_time_left(seen: Progress) -> str:
    """Jobs to go and the time they take, in a sentence."""
    todo = len(seen.running) + len(seen.left)
    if not todo:
        return "All of these are done; tables and figures come last."
    known = todo - len(seen.unknown)
    clauses = [f"about {format_duration(seen.seconds_left)}" if known else "time unknown yet"]
    if len(seen.running) > 1:
        clauses.append(f"{len(seen.running)} at once")
    if known and seen.unknown:
        clauses.append(f"without {len(seen.unknown)} of which nothing alike has run")
    if not seen.is_running:
        clauses.append("and no Snakemake runs here")
    return f"{todo} jobs to go: {', '.join(clauses)}."


def format_duration(seconds: float) -> str:
    """To the minute; to the second below two minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def announce(config: Config, stopped: threading.Event) -> None:
    """Print the time left now and then, until the event. More seldom where looking takes long."""
    wait = SECONDS_BETWEEN
    while not stopped.wait(wait):
        began = time.monotonic()
        seen = look(config)
        if seen.running:
            # Not print(): a thread that holds a stream of Python's is in the way of its end.
            os.write(2, f"{time.strftime('[%H:%M:%S]')} {describe_time_left(seen)}\n".encode())
        wait = max(SECONDS_BETWEEN, 100 * (time.monotonic() - began))
