"""A person's terminal, as far as it can be had without a guest."""

from __future__ import annotations

import asyncio
import errno
import os
import pty
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shim.cli.console import _own_output, _write


# No fixture: pytest puts its own file at descriptor 1 between the phases of a test.
@contextmanager
def on_terminal() -> Iterator[int]:
    """What shows a terminal that is this process's stdout."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    before = os.dup(1)
    os.dup2(slave, 1)
    try:
        yield master
    finally:
        os.dup2(before, 1)
        for descriptor in (master, slave, before):
            os.close(descriptor)


async def test_a_terminal_without_a_name_here_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(descriptor: int) -> str:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # as ttyname(3) in another mount namespace

    monkeypatch.setattr(os, "ttyname", nameless)
    with on_terminal() as screen, _own_output() as out:
        await _write(out, b"from the guest")
        assert not os.get_blocking(out) and os.get_blocking(1)
        assert os.read(screen, 100) == b"from the guest"


async def test_more_than_a_terminal_takes_at_once() -> None:
    data = os.urandom(1 << 16)

    async def seen(screen: int) -> bytes:
        found = b""
        while len(found) < len(data):
            found += await asyncio.to_thread(os.read, screen, 1 << 16)
        return found

    with on_terminal() as screen, _own_output() as out:
        _, shown = await asyncio.gather(_write(out, data), seen(screen))
    assert shown == data
