"""A process's end is told to everybody, whenever they ask."""

from __future__ import annotations

import asyncio

import pytest

from shim.errors import Bug, Unexpected
from shim.process.reaper import Exit
from shim.process.stdio import Streams
from shim.sandbox.process import Process
from shim.sandbox.state import Call, Status


async def test_wait_before_and_after_the_end() -> None:
    process = Process("p", Streams())
    early = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    process.become(Status.RUNNING)
    process.end(Exit(3, 7))
    assert await early == Exit(3, 7)
    assert await process.wait() == Exit(3, 7)


async def test_a_cancelled_waiter_does_not_disturb_another() -> None:
    process = Process("p", Streams())
    first, second = asyncio.ensure_future(process.wait()), asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    first.cancel()
    process.end(Exit(0, 1))
    assert await second == Exit(0, 1)


async def test_an_illegal_step_is_a_bug_of_ours() -> None:
    process = Process("p", Streams())
    process.end(Exit(0, 1))
    with pytest.raises(Bug, match="cannot become running"):
        process.become(Status.RUNNING)
    with pytest.raises(Unexpected, match="resize a stopped"):
        process.require(Call.RESIZE)
    process.resize(80, 24)


async def test_a_start_that_fails_wakes_its_waiters_and_may_be_repeated() -> None:
    process = Process("p", Streams())
    early = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    process.failed_to_start()
    assert (await early).status == 255
    process.become(Status.RUNNING)
    late = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    assert not late.done()
    process.end(Exit(3, 7))
    assert await late == Exit(3, 7)
