"""The fault hook: off unless asked for, counted, and final."""

from __future__ import annotations

import os
import signal

import pytest

from shim import faults
from shim.errors import InvalidRequest


def test_it_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    assert faults.from_environment() is None


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "\u0661"])
def test_anything_but_a_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.VARIABLE, text)
    with pytest.raises(InvalidRequest, match=faults.VARIABLE):
        faults.from_environment()


@pytest.mark.parametrize(("text", "deaths"), [("0", []), ("2", [2])])
def test_it_dies_at_its_step_and_at_no_other(text: str, deaths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setenv(faults.VARIABLE, text)
    countdown = faults.from_environment()
    assert countdown is not None

    def kill(pid: int, signum: int) -> None:
        assert (pid, signum) == (os.getpid(), signal.SIGKILL)
        killed.append(countdown.passed)

    monkeypatch.setattr(os, "kill", kill)
    for done in (False, True, False):
        countdown("write", "key", done=done)
    assert killed == deaths
