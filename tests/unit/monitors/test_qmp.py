"""QMP against peers that behave, hang, hang up, or say what no QEMU says; and the socket it goes over."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shim.errors import NodeFault, ShimError, Unreachable
from shim.monitors import control, qmp

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": ["oob"]}}
EVENT = {"event": "POWERDOWN", "timestamp": {"seconds": 1, "microseconds": 2}}

#: What a peer sends for each command; the greeting comes before. Bytes are sent as they are.
Answer = Callable[[dict[str, object]], list[object]]


def well(request: dict[str, object]) -> list[object]:
    return [EVENT, {"return": {"asked": request["execute"]}, "id": request["id"]}]


def line(message: object) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n"


@asynccontextmanager
async def peer(directory: Path, answer: Answer, greeting: object = GREETING) -> AsyncIterator[list[str]]:
    """A monitor on the control socket of `directory`; gives the commands that it was sent."""
    asked: list[str] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            writer.write(line(greeting))
            while request := await reader.readline():
                decoded = json.loads(request)
                asked.append(decoded["execute"])
                for message in answer(decoded):
                    writer.write(line(message))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = socket.socket(fileno=control.listen(directory))
    server = await asyncio.start_unix_server(serve, sock=listening)
    try:
        yield asked
    finally:
        server.close()
        if serving:
            await asyncio.wait(serving, timeout=2)


async def execute(directory: Path, command: str) -> object:
    async with asyncio.timeout(5), qmp.session(control.connect(directory)) as session:
        return await session.execute(command)


async def test_a_command_is_answered_behind_events(tmp_path: Path) -> None:
    async with peer(tmp_path, well) as asked:
        assert await execute(tmp_path, "system_powerdown") == {"asked": "system_powerdown"}
        assert asked == ["qmp_capabilities", "system_powerdown"]


async def test_a_refusal_is_told_in_qemus_words(tmp_path: Path) -> None:
    def answer(request: dict[str, object]) -> list[object]:
        refusal = {"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}
        return well(request) if request["execute"] == "qmp_capabilities" else [refusal | {"id": request["id"]}]

    async with peer(tmp_path, answer):
        with pytest.raises(NodeFault, match="has not been found"):
            await execute(tmp_path, "x")


NONSENSE: dict[str, object] = {
    "no JSON": b"hello\n",
    "no object": [1, 2],
    "no greeting": {"return": {}},
    "empty": b"\n",
    "a long line": b'{"QMP": "' + b"x" * (1 << 17) + b'"}\n',
    "nesting without end": b'{"QMP": ' + b"[" * 60000 + b"\n",
    "not UTF-8": b'{"QMP": "\xff\xfe"}\n',
    "a number of no measure": b'{"QMP": ' + b"9" * 60000 + b"}\n",
    "another type": {"event": 7},
}


@pytest.mark.parametrize("greeting", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_refused(greeting: object, tmp_path: Path) -> None:
    async with peer(tmp_path, well, greeting):
        with pytest.raises(NodeFault):
            await execute(tmp_path, "x")


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: [{"return": {}, "id": "another"}],
        lambda request: [{"return": {}}],
        lambda request: [{"id": request["id"]}],
        lambda request: [EVENT] * 1000,
        lambda request: [b"x" * (1 << 20)],
    ],
    ids=["another id", "no id", "no answer", "events without end", "a line without end"],
)
async def test_an_answer_that_is_none_is_refused(answer: Answer, tmp_path: Path) -> None:
    async with peer(tmp_path, answer):
        with pytest.raises(NodeFault):
            await execute(tmp_path, "x")


async def test_a_peer_that_hangs_up(tmp_path: Path) -> None:
    async with peer(tmp_path, well, b""):
        pass
    with pytest.raises(Unreachable, match="refused"):
        await execute(tmp_path, "x")

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": ')
        writer.close()

    server = await asyncio.start_unix_server(half, sock=socket.socket(fileno=control.listen(tmp_path)))
    with pytest.raises(Unreachable, match="hung up"):
        await execute(tmp_path, "x")
    server.close()


async def test_a_peer_that_is_stopped_costs_its_callers_time_and_nothing_else(tmp_path: Path) -> None:
    descriptor = control.listen(tmp_path)  # nobody accepts
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), qmp.session(control.connect(tmp_path)):
                pytest.fail("nobody greets")
    await asyncio.sleep(0)  # the transports close with the loop's next turn
    assert os.listdir("/proc/self/fd") == before
    # Nor does connecting wait once the kernel queues no more.
    held: list[socket.socket] = []
    with pytest.raises(Unreachable, match="unavailable"):
        held.extend(control.connect(tmp_path) for _ in range(100))
    for connection in held:
        connection.close()
    os.close(descriptor)


def test_the_socket_may_be_deep_down(tmp_path: Path) -> None:
    deep = tmp_path / ("k8s.io@" + "0" * 64) / ("x" * 64)
    os.close(control.listen(deep))
    descriptor = control.listen(deep)  # in the place of one that is left over
    control.connect(deep).close()
    assert (deep.stat().st_mode & 0o777, os.get_inheritable(descriptor)) == (0o700, False)
    os.close(descriptor)
    with pytest.raises(ShimError):
        control.connect(deep)
    with pytest.raises(Unreachable, match="No such file"):
        control.connect(tmp_path / "nowhere")
