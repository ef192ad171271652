"""What failed jobs said last, from Snakemake's report of a run and the logs that it names; Ctrl-C."""

import logging
import re
from pathlib import Path

from metantk.runtime.files import shorten

# As in `    log: results/logs/search.log (check log file(s) for error details)`.
LOG = re.compile(r"^\s+log: (.+) \(check log file\(s\) for error details\)$", re.M)
LAST_BYTES = 1 << 16  # of a log that are looked at
MOST = 20  # lines
INTERRUPTED = "interrupted: the same command goes on from here"


class AfterInterrupt(logging.Filter):
    """Of Snakemake's log: jobs that end because of Ctrl-C are no errors, and are not shown as such."""

    happened = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown. Snakemake says that it was interrupted before it ends its jobs."""
        if "Terminating processes on user request" in record.getMessage():
            self.happened = True
        return not (self.happened and record.levelno >= logging.ERROR)


def read_failures(report: str | Path | list | None, folder: Path, since: float) -> list[str]:
    """One line for each failed job: its error, or the last that it said, and where all of its log is.

    Args:
        report: Snakemake's own log of the run, or several.
        folder: of all jobs' logs. With `--quiet` the report names none: those of this run that hold an error count.
        since: when the run began, in seconds since the epoch.
    """
    reports = report if isinstance(report, list | tuple) else [report] if report else []
    text = "\n".join(_end_of(Path(one), 1 << 24) for one in reports)
    logs = list(dict.fromkeys(LOG.findall(text))) or _logs_with_errors(folder, since)
    return [f"{_last_words(Path(log))} (all of it: {log})" for log in logs[:MOST]]


def _logs_with_errors(folder: Path, since: float) -> list[str]:
    recent = [path for path in sorted(folder.rglob("*.log")) if path.stat().st_mtime >= since]
    return [str(path) for path in recent if "error: " in _end_of(path, LAST_BYTES)]


def _last_words(log: Path) -> str:
    lines = [line for line in _end_of(log, LAST_BYTES).splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return shorten((errors or lines or ["nothing was said"])[-1])


def _end_of(path: Path, size: int) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")
