"""Whose terminal one sits down at, and what may be said over the stream."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import InvalidRequest, NotFound, ShimError, WrongState
from shim.process.reaper import Exit
from shim.process.terminal import Terminal
from shim.sandbox.consoles import container_in
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status
from shim.services.consoles import console
from shim.wire import inspection_pb2 as pb


class Caller:
    """The caller's end: what it says, and what it was told. Said None, it has said its last."""

    def __init__(self, *said: pb.ConsoleRequest | None) -> None:
        self._said: asyncio.Queue[pb.ConsoleRequest | None] = asyncio.Queue()
        for message in said:
            self._said.put_nowait(message)
        self.told: list[pb.ConsoleResponse] = []

    async def receive(self) -> Any | None:
        return await self._said.get()

    async def send(self, message: Any) -> None:
        self.told.append(message)

    async def finish(self) -> None:
        return


def container(id: str, name: str, status: Status = Status.RUNNING, *, tty: bool = True, terminal: Any = None) -> Any:
    async def wait() -> Exit:
        return Exit(4, 1)

    init = SimpleNamespace(status=status, terminal=terminal, wait=wait)
    streams = SimpleNamespace(terminal=tty)
    return SimpleNamespace(id=id, name=name, init=init, record=SimpleNamespace(streams=streams))


def sandbox(*containers: Any, unikernel: Any = None) -> Sandbox:
    held = {each.id: each for each in containers}
    made = SimpleNamespace(id="abc", pod_name=("default", "web"), over=False, containers=held, unikernel=unikernel)
    return cast(Sandbox, made)


def test_which_container_is_meant() -> None:
    old, new = container("a1", "guest", Status.STOPPED), container("a2", "guest")
    side = container("b1", "side")
    pod = sandbox(old, new, side, unikernel=new)
    meant = {wanted: container_in(pod, wanted).id for wanted in ("", "guest", "a1", "side", "b")}
    assert meant == {"": "a2", "guest": "a2", "a1": "a1", "side": "b1", "b": "b1"}
    with pytest.raises(NotFound, match="nobody: the pod has no such container; it has guest, guest, side"):
        container_in(pod, "nobody")
    with pytest.raises(NotFound, match="no unikernel now"):
        container_in(sandbox(side), "")


OPEN = pb.ConsoleRequest(open=pb.ConsoleOpen(pod="web"))


@pytest.mark.parametrize(
    ("held", "refusal", "words"),
    [
        (container("a", "guest", tty=False), WrongState, "has no terminal; set tty: true"),
        (container("a", "guest", Status.STOPPED), WrongState, "has ended"),
        (container("a", "guest"), WrongState, "lost when the service was restarted"),
    ],
)
async def test_terminals_that_cannot_be_had(held: Any, refusal: type[ShimError], words: str) -> None:
    with pytest.raises(refusal, match=words):
        await console([sandbox(held, unikernel=held)], Caller(OPEN))


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pty, and its slave."""
    master, slave = pty.openpty()
    yield master, slave
    os.close(slave)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((None,), "begins with `open`"),
        ((pb.ConsoleRequest(input=b"x"),), "begins with `open`"),
        ((OPEN, OPEN), "not what follows"),
        ((OPEN, pb.ConsoleRequest()), "not what follows"),
        ((OPEN, pb.ConsoleRequest(resize=pb.WindowSize(columns=0, rows=5))), "0x5: not a window's size"),
        ((OPEN, pb.ConsoleRequest(resize=pb.WindowSize(columns=80, rows=65536))), "80x65536"),
    ],
)
async def test_what_makes_no_sense(
    said: tuple[pb.ConsoleRequest | None, ...], words: str, ends: tuple[int, int]
) -> None:
    terminal = Terminal(ends[0], None, None, os.open(os.devnull, os.O_WRONLY))
    held = container("a", "guest", terminal=terminal)
    try:
        with pytest.raises(InvalidRequest, match=words):
            async with asyncio.timeout(5):
                await console([sandbox(held, unikernel=held)], Caller(*said))
    finally:
        terminal.close()


async def test_from_sitting_down_to_the_terminals_end(ends: tuple[int, int]) -> None:
    master, slave = ends
    out, sink = os.pipe()
    terminal = Terminal(master, None, None, sink)
    held = container("a", "guest", terminal=terminal)
    size = pb.ConsoleRequest(resize=pb.WindowSize(columns=97, rows=31))
    caller = Caller(OPEN, size, pb.ConsoleRequest(input=b"hello\n"))
    sitting = asyncio.ensure_future(console([sandbox(held, unikernel=held)], caller))
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(os.read, slave, 100) == b"hello\n"
        assert tuple(os.get_terminal_size(slave)) == (97, 31)
        while not any(message.output for message in caller.told):
            await asyncio.sleep(0.01)
        terminal.close()
        await sitting
    os.close(out)
    kinds = [message.WhichOneof("what") for message in caller.told]
    assert kinds[0] == "opened" and kinds[-1] == "closed" and set(kinds[1:-1]) == {"output"}
    assert caller.told[0].opened.container == "a" and caller.told[-1].closed.exit_status == 4
    assert b"".join(message.output for message in caller.told) == b"hello\r\n"  # the terminal's echo


async def test_who_says_its_last_has_left(ends: tuple[int, int]) -> None:
    terminal = Terminal(ends[0], None, None, os.open(os.devnull, os.O_WRONLY))
    held = container("a", "guest", terminal=terminal)
    caller = Caller(OPEN, None)
    async with asyncio.timeout(5):
        await console([sandbox(held, unikernel=held)], caller)
    assert [message.WhichOneof("what") for message in caller.told] == ["opened"]
    terminal.close()
