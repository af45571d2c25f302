"""A start whose monitor is told its machine: what is told to whom when that fails, and what is kept."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shim.config import CloudHypervisor as Settings
from shim.errors import Bug, NodeFault, ShimError, TimedOut, Unreachable
from shim.monitors.base import OpenTap
from shim.monitors.cloud_hypervisor import CloudHypervisor
from shim.process import pidfd
from shim.process.reaper import Exit
from shim.sandbox import booting
from shim.sandbox.container import Container
from shim.sandbox.occurrences import Exited, Failed, Started
from shim.sandbox.record import ContainerRecord
from shim.sandbox.state import Status
from tests.unit.monitors.fake import FakeRun
from tests.unit.sandbox.fakes import fake_node

MACHINE = b"the machine"


class Monitor(CloudHypervisor):
    """Does with what it is told as a test says."""

    def __init__(self, does: Callable[[], Any]) -> None:
        super().__init__(Settings(), FakeRun(lambda argv: pytest.fail("nothing is run")))
        self.does = does
        self.told: list[bytes] = []

    async def boot(self, directory: Path, machine: bytes, open_tap: OpenTap) -> None:
        self.told.append(machine)
        if (outcome := self.does()) is not None:
            raise outcome


class Engine:
    async def start(self, container: str) -> None: ...

    async def kill(self, container: str, signum: int, *, everyone: bool = False) -> None: ...


@asynccontextmanager
async def started(tmp_path: Path, does: Callable[[], Any]) -> AsyncIterator[tuple[Any, Container, Monitor]]:
    """A created container whose monitor is a program that waits for ever, or until `does` ends it."""
    node, monitor = fake_node(tmp_path), Monitor(does)
    node.monitors = {monitor.name: monitor}
    node.engine = SimpleNamespace(within=lambda namespace: Engine())
    node.stdio = SimpleNamespace(end=lambda streams, drain: asyncio.sleep(0))
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        record = ContainerRecord(
            namespace="n",
            container="c",
            sandbox="s",
            bundle=tmp_path,
            own_bundle=tmp_path,
            unikernel=True,
            monitor=monitor.name,
            machine=MACHINE,
            pid=process.pid,
            started=pidfd.start_time(process.pid),
        )
        container = Container(node, record, {"process": {}, "linux": {}}, asyncio.Lock())
        container.init.pid = process.pid

        async def exit() -> Exit:
            status = await asyncio.to_thread(process.wait)
            return Exit(128 - status if status < 0 else status, 1)

        container.supervise(asyncio.ensure_future(exit()))
        try:
            yield node, container, monitor
        finally:
            process.kill()
            await container.init.wait()


async def test_booted_it_is_announced_and_not_told_again(tmp_path: Path) -> None:
    async with started(tmp_path, lambda: None) as (node, container, monitor):
        await container.start("")
        assert monitor.told == [MACHINE]
        assert [type(told) for told in node.told] == [Started]
        assert node.journal.kept[container.record.key].machine == b""


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        (NodeFault("the monitor refuses with 500: x", subject="vm.boot"), NodeFault, "does not boot.*vm.boot.*500: x"),
        (Unreachable("the monitor has hung up"), Unreachable, "hung up"),
        (TimeoutError(), TimedOut, "cloud-hypervisor does not answer on its control socket within 20 s"),
        (OSError(5, "Input/output error"), OSError, "Input/output"),
    ],
)
async def test_not_booted_it_is_ended_and_nobody_hears_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Exception, kind: type[Exception], words: str
) -> None:
    monkeypatch.setattr("shim.sandbox.container._HANGING_UP", 0.01)
    async with started(tmp_path, lambda: outcome) as (node, container, _):
        with pytest.raises(kind, match=words):
            await container.start("")
        assert (await container.init.wait()).status == 128 + signal.SIGKILL
        assert container.init.status is Status.STOPPED
        assert [type(told) for told in node.told] == [Failed, Exited]


async def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booting, "PATIENCE", 0.01)
    async with started(tmp_path, lambda: None) as (_, container, monitor):

        async def silent(directory: Path, machine: bytes, open_tap: OpenTap) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(monitor, "boot", silent)
        with pytest.raises(TimedOut, match="does not answer"):
            await container.start("")
        assert (await container.init.wait()).status == 128 + signal.SIGKILL


async def test_one_that_dies_is_reported_by_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(tmp_path, lambda: None) as (_, container, monitor):

        async def dying(directory: Path, machine: bytes, open_tap: OpenTap) -> None:
            os.kill(container.init.pid, signal.SIGABRT)
            raise Unreachable("the monitor has hung up")

        monkeypatch.setattr(monitor, "boot", dying)
        monkeypatch.setattr(container, "last_words", lambda: "assertion failed")
        with pytest.raises(NodeFault, match="died at once with status 134: assertion failed"):
            await container.start("")


async def test_a_start_that_is_finished_after_a_restart(tmp_path: Path) -> None:
    refusals: list[ShimError | None] = [NodeFault("no")]
    async with started(tmp_path, lambda: refusals.pop()) as (node, container, _):
        container.init.become(Status.RUNNING)
        container.finish_boot()
        assert (await container.init.wait()).status == 128 + signal.SIGKILL
        assert [type(told) for told in node.told] == [Exited]


async def test_a_monitor_that_is_told_no_machine(tmp_path: Path) -> None:
    async with started(tmp_path, lambda: None) as (node, container, _):
        node.monitors["cloud-hypervisor"] = None
        with pytest.raises(Bug, match="is told no machine"):
            await booting.boot(node, container.record)


async def test_a_tap_of_a_pod_that_has_none(tmp_path: Path) -> None:
    record = ContainerRecord(namespace="n", container="c", sandbox="s", bundle=tmp_path)
    with pytest.raises(Bug, match="tap0 was never made"):
        await booting._open_tap(record, "tap0")
