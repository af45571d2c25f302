"""A cancelled caller of a thread goes on only once the thread is done."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shim.threads import in_thread


async def test_the_thread_is_waited_for_however_often_one_is_cancelled() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(5)
        done.set()

    caller = asyncio.ensure_future(in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_its_result_and_its_failure_come_through() -> None:
    assert await in_thread(int, "7") == 7
    with pytest.raises(ValueError):
        await in_thread(int, "seven")
