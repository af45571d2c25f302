"""Work in a thread that is told when nobody wants it any more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shim.storage.interruptible import interruptible


async def test_the_result_is_the_works() -> None:
    def add(one: int, other: int, stop: threading.Event) -> int:
        assert not stop.is_set()
        return one + other

    assert await interruptible(add, 1, 2) == 3


async def test_a_caller_that_is_cancelled_stops_the_work_and_waits_for_its_end() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        begun.set()
        assert stop.wait(5)
        ended.set()

    caller = asyncio.ensure_future(interruptible(work))
    await asyncio.to_thread(begun.wait, 5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
