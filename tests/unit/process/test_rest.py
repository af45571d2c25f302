"""A program that waits for events is told from one that is busy, has not begun, or has ended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shim.process.rest import Look, at_rest, look

_LIMIT = 0.3
_ANOTHER = Look(b"another", False, 0)


@contextmanager
def program(*argv: str) -> Iterator[int]:
    with subprocess.Popen(argv) as process:
        try:
            yield process.pid
        finally:
            process.kill()


async def seconds(pid: int, before: Look | None = _ANOTHER, ended: asyncio.Future[object] | None = None) -> float:
    began = time.monotonic()
    await at_rest(pid, before, ended or asyncio.get_running_loop().create_future(), _LIMIT)
    return time.monotonic() - began


async def test_a_program_that_sleeps_is_at_rest() -> None:
    with program("sleep", "60") as pid:
        assert await seconds(pid) < _LIMIT


async def test_a_program_that_works_is_not() -> None:
    with program(sys.executable, "-ISc", "while True: pass") as pid:
        assert await seconds(pid) >= _LIMIT


async def test_a_program_that_sleeps_between_its_work_is_not() -> None:
    with program(sys.executable, "-ISc", "import time\nwhile True: time.sleep(0.0002)") as pid:
        while (now := look(pid)) is None or not now.asleep:
            await asyncio.sleep(0.001)
        assert await seconds(pid) >= _LIMIT


async def test_a_process_that_is_still_the_program_before_is_not() -> None:
    with program("sleep", "60") as pid:
        while (now := look(pid)) is None or now.name != b"sleep":
            await asyncio.sleep(0.001)
        assert await seconds(pid, before=now) >= _LIMIT


async def test_a_process_that_nothing_is_known_of_is_given_all_the_time() -> None:
    with program("sleep", "60") as pid:
        assert await seconds(pid, before=None) >= _LIMIT


async def test_an_end_is_not_waited_beyond() -> None:
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.02, ended.set_result, None)
    with program(sys.executable, "-ISc", "while True: pass") as pid:
        assert await seconds(pid, ended=ended) < _LIMIT


def test_a_stopped_process_does_not_sleep() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while (now := look(process.pid)) is None or now.asleep:
            assert time.monotonic() < deadline
        process.kill()


@pytest.mark.parametrize("pid", [0, 1 << 22])
def test_of_no_process_nothing_is_known(pid: int) -> None:
    assert look(pid) is None
