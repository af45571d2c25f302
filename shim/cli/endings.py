"""How a subcommand that has something to tidy up is ended from outside."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ASKING: Final = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def tidied_up() -> Iterator[None]:
    """A request to end unwinds the body, as Ctrl-C does; the exit code is what a shell would say of the signal
    (bash(1), EXIT STATUS)."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in _ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
