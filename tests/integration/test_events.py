"""What containerd is told, in which order, also when it was away.

The receiver is a ttrpc server of ours in containerd's place: what is tested is what we send, and when. That real
containerd takes it is shown by every pod test.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from shim.rpc.service import Call, from_descriptor
from shim.rpc.ttrpc_server import TtrpcServer
from shim.wire import events_pb2, services_events_ttrpc_v1_pb2
from tests.integration.conftest import fresh_node, running
from tests.integration.daemon import Daemon
from tests.integration.node import Node
from tests.integration.test_task import NAMESPACE, ours

pytestmark = pytest.mark.timeout(60)


class Receiver:
    """containerd's Events service, which keeps what it is sent."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.exits: list[tuple[str, int]] = []

    async def forward(self, request: Any, call: Call) -> Empty:
        envelope = request.envelope
        assert call.namespace == envelope.namespace == NAMESPACE
        self.topics.append(envelope.topic.removeprefix("/tasks/"))
        if envelope.event.type_url == "containerd.events.TaskExit":
            exit = events_pb2.TaskExit.FromString(envelope.event.value)
            assert exit.exited_at.seconds > 0
            self.exits.append((exit.id if exit.id != exit.container_id else "init", exit.exit_status))
        return Empty()

    async def heard(self, last: str, count: int = 1) -> list[str]:
        """All topics, once `last` has come `count` times."""
        async with asyncio.timeout(15):
            while self.topics.count(last) < count:
                await asyncio.sleep(0.02)
        return self.topics


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = TtrpcServer(
        [from_descriptor(services_events_ttrpc_v1_pb2.DESCRIPTOR.services_by_name["Events"], receiver)]
    )
    await server.start(path)
    try:
        yield receiver
    finally:
        await server.stop(1)


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[Node, Daemon]]:
    """A daemon whose containerd is away."""
    with fresh_node("ev") as node:
        daemon = Daemon(node)
        with running(daemon):
            yield node, daemon


def address(node: Node) -> Path:
    return node.base / "containerd.sock.ttrpc"


async def test_the_order_of_one_life(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    async with listening(address(node)) as receiver, ours(daemon, node, tmp_path, "/bin/sleep", "600") as task:
        await task.create()
        await task.call("Start")
        await task.exec("e", "/bin/sh", "-c", "exit 3")
        await task.call("Start", exec_id="e")
        await task.call("Wait", exec_id="e")
        await task.call("Pause")
        await task.call("Resume")
        await task.call("Kill", signal=int(signal.SIGKILL))
        await task.call("Wait")
        await task.call("Delete")
        assert await receiver.heard("delete") == (
            ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"]
        )
        assert receiver.exits == [("e", 3), ("init", 137)]


async def test_a_process_that_dies_inside_start(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    async with listening(address(node)) as receiver:
        for number in range(5):
            async with ours(daemon, node, tmp_path, "/bin/sh", "-c", f"exit {number}") as task:
                await task.create()
                await task.call("Start")
                assert (await task.call("Wait")).exit_status == number
                await task.call("Delete")
        assert await receiver.heard("delete", 5) == ["create", "start", "exit", "delete"] * 5


async def test_a_container_that_is_never_started(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    async with listening(address(node)) as receiver, ours(daemon, node, tmp_path, "/bin/sleep", "600") as task:
        await task.create()
        await task.call("Delete")
        assert await receiver.heard("delete") == ["create", "exit", "delete"]


async def test_nothing_waits_for_a_containerd_that_is_away(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    async with ours(daemon, node, tmp_path, "/bin/sh", "-c", "exit 1") as task:
        async with asyncio.timeout(10):
            await task.create()
            await task.call("Start")
            await task.call("Wait")
            await task.call("Delete")
    async with listening(address(node)) as receiver:
        assert await receiver.heard("delete") == ["create", "start", "exit", "delete"]


async def test_what_happens_while_containerd_restarts_is_told_afterwards(
    alone: tuple[Node, Daemon], tmp_path: Path
) -> None:
    node, daemon = alone
    async with ours(daemon, node, tmp_path, "/bin/sleep", "600") as task:
        async with listening(address(node)) as before:
            await task.create()
            await task.call("Start")
            assert await before.heard("start") == ["create", "start"]
        await task.exec("e", "/bin/sh", "-c", "exit 3")
        await task.call("Start", exec_id="e")
        await task.call("Wait", exec_id="e")
        async with listening(address(node)) as after:
            await task.call("Kill", signal=int(signal.SIGKILL))
            await task.call("Wait")
            await task.call("Delete")
            assert await after.heard("delete") == ["exec-added", "exec-started", "exit", "exit", "delete"]
            assert after.exits == [("e", 3), ("init", 137)]
