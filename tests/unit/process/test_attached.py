"""A terminal that several sit at: all see the same, any may type, and whoever does not look holds up nobody."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
import tty
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from shim.feed import Missed
from shim.process.terminal import Attached, Terminal


@dataclass
class Place:
    """A terminal, the process's end of its pty, and containerd's end of its output."""

    terminal: Terminal
    slave: int
    output: int


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    master, slave = pty.openpty()
    tty.setraw(slave, termios.TCSANOW)
    output, sink = os.pipe()
    terminal = Terminal(master, None, None, sink)
    yield Place(terminal, slave, output)
    terminal.close()
    for descriptor in (slave, output):
        os.close(descriptor)


async def shown(attached: Attached, size: int) -> bytes:
    found = b""
    async with asyncio.timeout(5):
        while len(found) < size:
            data = await attached.output()
            assert isinstance(data, bytes), data
            found += data
    return found


async def test_all_see_the_same_and_any_may_type(place: Place) -> None:
    with place.terminal.attach() as one, place.terminal.attach() as two:
        os.write(place.slave, b"login: ")
        assert await shown(one, 7) == await shown(two, 7) == b"login: "
        await one.type(b"root")
        await two.type(b"\r")
        assert os.read(place.slave, 100) == b"root\r"
    assert await asyncio.to_thread(os.read, place.output, 100) == b"login: "  # and containerd has it all


async def test_who_does_not_look_misses_and_holds_up_nobody(place: Place) -> None:
    total = 1 << 20

    def write() -> None:
        for _ in range(total // 4096):
            os.write(place.slave, b"x" * 4096)

    def read() -> int:
        size = 0
        while size < total:
            size += len(os.read(place.output, 1 << 16))
        return size

    with place.terminal.attach() as slow:
        async with asyncio.timeout(20):
            await asyncio.gather(asyncio.to_thread(write), found := asyncio.to_thread(read))
        del found
        seen = missed = 0
        while seen + missed < total:
            async with asyncio.timeout(5):
                match await slow.output():
                    case bytes() as data:
                        seen += len(data)
                    case Missed(count):
                        missed += count
        assert missed and seen <= 1 << 18


async def test_typing_waits_for_a_process_that_does_not_read(place: Place) -> None:
    with place.terminal.attach() as attached:
        typing = asyncio.ensure_future(attached.type(b"y" * (1 << 16)))
        await asyncio.sleep(0.05)
        assert not typing.done()
        size = 0
        async with asyncio.timeout(10):
            while size < 1 << 16:
                size += len(await asyncio.to_thread(os.read, place.slave, 1 << 16))
            await typing


async def test_it_is_over_when_the_terminal_is(place: Place) -> None:
    with place.terminal.attach() as attached:
        os.write(place.slave, b"bye")
        assert await shown(attached, 3) == b"bye"
        place.terminal.close()
        assert await attached.output() is None
        attached.resize(80, 24)  # harmless: the descriptor is its own
