"""A sandbox's life: what each call makes of it, what a failure leaves, and that nothing comes in while it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from shim.errors import AlreadyExists, NodeFault, TimedOut, WrongState
from shim.sandbox.container import Container
from shim.sandbox.record import Pod
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import SandboxCall, SandboxStatus
from tests.unit.sandbox.fakes import FakeContainer, fake_node


@pytest.fixture
def node(tmp_path: Path) -> Any:
    return fake_node(tmp_path)


def made(node: Any, *containers: FakeContainer) -> Sandbox:
    sandbox = Sandbox(node, "k8s.io", "s", Pod())
    sandbox.containers = {held.id: cast(Container, held) for held in containers}
    return sandbox


async def test_a_whole_life_is_journalled(node: Any) -> None:
    sandbox = made(node)
    sandbox.note()
    seen = [node.pods.kept["k8s.io@s"].status]
    sandbox.start()
    seen.append(node.pods.kept["k8s.io@s"].status)
    await sandbox.stop()
    seen.append(node.pods.kept["k8s.io@s"].status)
    assert seen == [SandboxStatus.CREATED, SandboxStatus.READY, SandboxStatus.STOPPED]
    assert sandbox.ended.is_set() and sandbox.exit is not None
    await sandbox.dissolve()
    assert node.pods.kept == {}


async def test_a_second_start_and_a_start_after_the_end_are_refused(node: Any) -> None:
    sandbox = made(node)
    sandbox.start()
    with pytest.raises(AlreadyExists):
        sandbox.start()
    await sandbox.stop()
    with pytest.raises(WrongState, match="stopped"):
        sandbox.start()


async def test_a_start_that_cannot_be_journalled_may_be_repeated(node: Any) -> None:
    sandbox = made(node)
    node.pods.full = True
    with pytest.raises(NodeFault):
        sandbox.start()
    assert sandbox.status is SandboxStatus.CREATED
    node.pods.full = False
    sandbox.start()


async def test_an_end_does_not_wait_for_a_journal(node: Any) -> None:
    sandbox = made(node)
    sandbox.start()
    node.pods.full = True
    await sandbox.stop()
    assert sandbox.ended.is_set()
    await sandbox.dissolve()


async def test_nothing_comes_in_once_it_is_being_stopped(node: Any) -> None:
    slow = FakeContainer("c")
    slow.dies.clear()
    sandbox = made(node, slow)
    sandbox.start()
    stopping = asyncio.ensure_future(sandbox.stop())
    await asyncio.sleep(0)
    assert sandbox.status.value == "stopping"
    with pytest.raises(WrongState, match="stopping"):
        sandbox.require(SandboxCall.CREATE)
    assert not sandbox.ended.is_set()
    slow.dies.set()
    await stopping
    assert sandbox.status is SandboxStatus.STOPPED


async def test_a_creation_under_way_is_cut_off_and_waited_for(node: Any) -> None:
    sandbox = made(node)
    sandbox.start()
    undone = []

    async def creation() -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            undone.append(True)

    work = asyncio.ensure_future(creation())
    sandbox.arriving.add(work)
    work.add_done_callback(sandbox.arriving.discard)
    await asyncio.sleep(0)
    await sandbox.stop()
    assert undone and work.cancelled() and sandbox.status is SandboxStatus.STOPPED


async def test_one_that_does_not_die_keeps_no_other_alive_and_stop_may_be_repeated(node: Any) -> None:
    stuck, other = FakeContainer("a", refuses=lambda: TimedOut("does not die", subject="a")), FakeContainer("b")
    sandbox = made(node, stuck, other)
    sandbox.start()
    with pytest.raises(TimedOut):
        await sandbox.stop()
    assert other.calls == ["stop"] and sandbox.status.value == "stopping" and not sandbox.ended.is_set()
    stuck.refuses = None
    await sandbox.stop()
    assert sandbox.status is SandboxStatus.STOPPED


async def test_shutdown_tries_every_container_and_may_be_repeated(node: Any) -> None:
    stuck, other = FakeContainer("a"), FakeContainer("b")
    sandbox = made(node, stuck, other)
    sandbox.start()
    await sandbox.stop()
    stuck.refuses = lambda: NodeFault("a mount stays", subject="a")
    stuck.dies.set()
    stuck_stop, stuck.stop = stuck.stop, FakeContainer("x").stop  # type: ignore[method-assign]
    with pytest.raises(NodeFault):
        await sandbox.dissolve()
    assert list(sandbox.containers) == ["a"]
    stuck.refuses, stuck.stop = None, stuck_stop  # type: ignore[method-assign]
    await sandbox.dissolve()
    assert not sandbox.containers


async def test_the_pause_container_goes_last(node: Any) -> None:
    order: list[str] = []

    class Recording(FakeContainer):
        async def stop(self, grace: float = 0.0) -> None:
            order.append(self.id)

    sandbox = made(node, Recording("s"), Recording("guest"), Recording("sidecar"))
    await sandbox.stop()
    assert order == ["guest", "sidecar", "s"]


async def test_a_sandbox_comes_back_from_its_record_as_it_was(node: Any) -> None:
    sandbox = made(node)
    sandbox.start()
    again = Sandbox.of(node, node.pods.kept["k8s.io@s"])
    assert again.status is SandboxStatus.READY and not again.ended.is_set()
    await sandbox.stop()
    again = Sandbox.of(node, node.pods.kept["k8s.io@s"])
    assert again.status is SandboxStatus.STOPPED and again.ended.is_set()


def test_an_implied_sandbox_is_ready(node: Any) -> None:
    assert Sandbox(node, "k8s.io", "s").status is SandboxStatus.READY


async def test_events_of_a_pods_containers_go_where_the_pods_own_go(node: Any) -> None:
    """containerd runs no courier for them, so nobody says where theirs go."""
    assert Sandbox(node, "k8s.io", "s", Pod(destination="/other.ttrpc")).destination == "/other.ttrpc"
    implied = Sandbox(node, "k8s.io", "s")
    assert implied.destination == ""
    pause = FakeContainer("s")
    pause.record.destination = "/third.ttrpc"
    implied.containers = {"s": cast(Container, pause), "c": cast(Container, FakeContainer("c"))}
    assert implied.destination == "/third.ttrpc"
