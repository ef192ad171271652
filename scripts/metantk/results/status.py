"""How far a workflow has come, from its files alone: what is done, running and left, and how long that may take.

Nothing is asked of Snakemake, so that it can be told at any time, from anywhere. Imports no torch.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from metantk.options.config import Config
from metantk.results import layout

LOCKS = Path(".snakemake", "locks")  # where Snakemake, while it runs, keeps files; below its working folder


class Job(NamedTuple):
    """One job of a stage that takes its time.

    Attributes:
        stage: the rule.
        place: data set, backbone, search, seed, learner, as far as the stage has them; `on-NAME` of a transfer.
        output: the file that is there when the job is done.
        log, benchmark: where they lie, if it has begun, or is done.
    """

    stage: str
    place: tuple[str, ...]
    output: Path
    log: Path
    benchmark: Path

    @property
    def is_done(self) -> bool:
        return self.output.is_file()

    @property
    def has_begun(self) -> bool:
        return not self.is_done and self.log.is_file()

    @property
    def name(self) -> str:
        return " ".join([self.stage, *self.place])

    @property
    def kind(self) -> tuple[str, ...]:
        """The job without its seed: jobs that take about as long."""
        return (self.stage, *(part for part in self.place if not part.startswith("seed")))


class Progress(NamedTuple):
    """How far a workflow is.

    Attributes:
        done, running, left: jobs.
        seconds_left: of all that are running or left, one after the other, as far as finished jobs say.
        unknown: jobs that nothing like has finished of.
        is_running: whether Snakemake holds its working folder.
    """

    done: list[Job]
    running: list[Job]
    left: list[Job]
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
        for name, output in dict.fromkeys((place.job.format(**w), place.output.format(**w)) for w in wildcards):
            log, benchmark = (find(results, stage, name) for find in (layout.log_file, layout.benchmark_file))
            jobs.append(Job(stage, tuple(name.split("/")), results / output, log, benchmark))
    return jobs


def chains_of(config: Config) -> list[Path]:
    """Folders of all rows and seeds."""
    return [job.output.parent for job in jobs_of(config) if job.stage == "train_network"]


def look(config: Config, locks: Path = LOCKS) -> Progress:
    """How far the workflow of a configuration is; called from Snakemake's working folder."""
    jobs = jobs_of(config)
    is_running = locks.is_dir() and any(locks.iterdir())
    done = [job for job in jobs if job.is_done]
    running = [job for job in jobs if job.has_begun] if is_running else []
    left = [job for job in jobs if not job.is_done and job not in running]
    times = _times(done)
    seconds, unknown = 0.0, []
    for job in [*running, *left]:
        alike = next((key for key in _likenesses(job) if key in times), None)
        if alike is None:
            unknown.append(job)
        else:
            seconds += times[alike]
    return Progress(done, running, left, seconds, unknown, is_running)


def _likenesses(job: Job) -> tuple[tuple[str, ...], ...]:
    """What jobs have in common that take about as long, the closest first."""
    return job.kind, (job.stage, *job.place[1:3]), (job.stage,)


def _times(done: Iterable[Job]) -> dict[tuple[str, ...], float]:
    """Mean seconds of finished jobs: of the same kind, of the same backbone and search, of the same stage."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for job in done:
        if (taken := _seconds_of(job.benchmark)) is not None:
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


def last_line(log: Path) -> str:
    """What a running job has said last."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:100]
