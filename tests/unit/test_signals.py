"""Signals that ask a program to end in the middle of something."""

import signal
import subprocess
import sys

import pytest

from metantk.runtime.command_line import ENDING, Ended, progress, signals_held
from metantk.runtime.files import SCRIPTS, InputError


@pytest.fixture(autouse=True)
def handlers():
    before = {index: signal.getsignal(index) for index in ENDING}
    yield
    for index, handler in before.items():
        signal.signal(index, handler)


def hold(index, reached, *, let_through_after):
    with signals_held() as let_through:
        let_through()
        signal.raise_signal(index)
        reached.append("after the signal")
        if let_through_after:
            let_through()
            reached.append("never")


@pytest.mark.parametrize("let_through_after", [True, False])
@pytest.mark.parametrize("index", ENDING)
def test_a_signal_waits_until_it_is_let_through_or_for_the_end(index, let_through_after):
    reached = []
    with pytest.raises(Ended) as ended:
        hold(index, reached, let_through_after=let_through_after)
    assert ended.value.signal == index
    assert reached == ["after the signal"]
    assert {signal.getsignal(index) for index in ENDING} == {signal.SIG_IGN}  # nothing disturbs the cleaning up


def test_handlers_are_as_before_where_no_signal_came():
    before = [signal.getsignal(index) for index in ENDING]
    with signals_held():
        pass
    with pytest.raises(ValueError, match="made up"), signals_held():
        raise ValueError("made up")
    assert [signal.getsignal(index) for index in ENDING] == before


def test_a_program_that_still_imports_ends_without_a_traceback():
    command = [sys.executable, "-X", "importtime", SCRIPTS / "train_network.py", "--help"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if "torch." in line)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("seconds", ["abc", "nan", "inf", "-1"])
def test_an_interval_of_progress_that_is_none_is_refused(monkeypatch, seconds):
    monkeypatch.setenv("METANTK_PROGRESS_SECONDS", seconds)
    with pytest.raises(InputError, match=f"METANTK_PROGRESS_SECONDS={seconds}: expected a number of seconds"):
        progress(None, total=1, what="test")
