"""The lines of failed jobs, from Snakemake's report of a run."""

import logging
import os

from metantk.runtime.failures import AfterInterrupt, read_failures

REPORT = """
Error in rule train_network:
    jobid: 6
    log: {log} (check log file(s) for error details)
    shell:
        python scripts/train_network.py
"""


def test_each_failed_job_says_its_own_line_once(tmp_path):
    logs = {
        "a b.log": "03:00:10 device cpu\ntrain_network.py: error: use a lower one\n\n",
        "killed.log": "03:00:10 device cpu\ntraining: 3/9\n",
        "empty.log": "",
    }
    for name, text in logs.items():
        (tmp_path / name).write_text(text)
    report = tmp_path / "report.log"
    named = [*logs, "a b.log", "missing.log"]
    report.write_text("".join(REPORT.format(log=tmp_path / name) for name in named))
    assert read_failures([str(report)], tmp_path / "logs", 0.0) == [
        f"train_network.py: error: use a lower one (all of it: {tmp_path}/a b.log)",
        f"training: 3/9 (all of it: {tmp_path}/killed.log)",
        f"nothing was said (all of it: {tmp_path}/empty.log)",
        f"nothing was said (all of it: {tmp_path}/missing.log)",
    ]


def test_a_long_line_of_a_log_is_shortened(tmp_path):
    (tmp_path / "log").write_text("x.py: error: " + "y" * 10**6)
    (tmp_path / "report").write_text(REPORT.format(log=tmp_path / "log"))
    (line,) = read_failures(tmp_path / "report", tmp_path / "logs", 0.0)
    assert len(line) < 600 + len(str(tmp_path))


def test_a_quiet_run_says_the_errors_of_its_own_logs(tmp_path):
    for name, text in {"old": "error: of before", "new": "a.py: error: of now", "fine": "03:00:10 done"}.items():
        path = tmp_path / "train_network" / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    os.utime(tmp_path / "train_network" / "old.log", (1, 1))
    report = tmp_path / "report"
    report.touch()
    for reports in (report, None, []):
        assert read_failures(reports, tmp_path, 100.0) == [
            f"a.py: error: of now (all of it: {tmp_path}/train_network/new.log)"
        ]
    assert read_failures("nowhere", tmp_path / "none", 100.0) == []


def test_what_ends_because_of_ctrl_c_is_no_error():
    interrupt = AfterInterrupt()

    def is_shown(level, message):
        return interrupt.filter(logging.LogRecord("snakemake", level, "", 0, message, (), None))

    assert is_shown(logging.ERROR, "Error in rule train_network")
    assert not interrupt.happened
    assert is_shown(logging.INFO, "Terminating processes on user request, this might take some time.")
    assert interrupt.happened
    assert not is_shown(logging.ERROR, None)  # as Snakemake logs a job's error: its text is made of its fields
    assert is_shown(logging.INFO, "Complete log(s): a.log")
