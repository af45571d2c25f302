"""A subcommand that is told to end leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from shim.cli.endings import tidied_up


def busy() -> None:
    time.sleep(60)


def on_a_loop() -> None:
    asyncio.run(asyncio.sleep(60))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("work", [busy, on_a_loop])
def test_who_is_told_to_end_tidies_up_first(work: Callable[[], None], signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    threading.Timer(0.05, os.kill, (os.getpid(), signum)).start()
    tidy = False
    with pytest.raises(SystemExit) as ended, tidied_up():
        try:
            work()
        finally:
            tidy = True
    assert ended.value.code == 128 + signum and tidy
    assert signal.getsignal(signum) == before
