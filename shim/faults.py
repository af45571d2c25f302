"""Dying on purpose, at a step that is counted and not slept for: what tests of crash safety turn on.

UNIKERNEL_SHIM_FAULT=N ends the daemon by SIGKILL at the N-th step of its journals, as a crash there would; with 0 it
only says each step in its log (`step`, with its number). Without the variable nothing here is used.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

from shim import log
from shim.errors import InvalidRequest

_log = log.get(__name__)

VARIABLE = "UNIKERNEL_SHIM_FAULT"


class Countdown:
    """Counts the steps of all journals that it is given to; at the chosen one the process is gone."""

    def __init__(self, fatal: int) -> None:
        """`fatal` is the number of the step to die at, from 1; 0 for none."""
        self._fatal = fatal
        self.passed = 0

    def __call__(self, action: Literal["write", "forget"], key: str, *, done: bool) -> None:
        self.passed += 1
        _log.info("step", number=self.passed, action=action, key=key, done=done)
        if self.passed == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def from_environment() -> Countdown | None:
    """What the environment asks for, None for nothing. Raises InvalidRequest for anything but a number."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest("must be the number of a step, or 0", subject=f"{VARIABLE}={text}", remedy="unset it")
    return Countdown(int(text))
