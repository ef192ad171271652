"""Signals that ask a program to end in the middle of something."""

import os
import signal
import subprocess
import sys

import pytest

from metantk.runtime.command_line import ENDING, Ended, signals_held
from metantk.runtime.files import SCRIPTS


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


def test_a_program_that_still_imports_ends_without_a_traceback(tmp_path):
    """The signal comes from within the import, so that no clock decides when."""
    (tmp_path / "torch.py").write_text("import signal\n\nsignal.raise_signal(signal.SIGINT)\n")
    run = subprocess.run(
        [sys.executable, SCRIPTS / "train_network.py", "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGINT
    assert "Traceback" not in run.stderr
