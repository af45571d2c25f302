"""What a signal does to an init, and to a unikernel that can be asked; the processes and signals are real."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import NodeFault, Unreachable
from shim.process import pidfd
from shim.process.reaper import Exit
from shim.sandbox import stopping
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord
from shim.sandbox.stopping import Stopping, patience


@pytest.mark.parametrize(
    ("usual", "grace", "expected"),
    [
        (20.0, None, 20.0),
        (20.0, 30, 29.0),
        (20.0, 600, 599.0),
        (20.0, 2, 1.0),
        (20.0, 1, 0.5),
        (20.0, 0, 0.0),
        (0.0, None, 0.0),
        (0.0, 30, 0.0),
    ],
)
def test_patience_ends_before_the_pods_grace(usual: float, grace: int | None, expected: float) -> None:
    assert patience(usual, grace) == expected


class Monitor:
    """Its guest does on each request what it is told to."""

    def __init__(self, *heeds: Callable[[], object]) -> None:
        self.heeds = list(heeds)
        self.asked = 0

    async def power_down(self, directory: Path) -> None:
        self.asked += 1
        found = self.heeds.pop(0)() if self.heeds else None
        if isinstance(found, asyncio.Future):
            await found


PROGRAM = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background jobs are born without it
print(flush=True)
time.sleep(600)
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """As QEMU: ends with 0 on SIGTERM and SIGHUP."""
    with subprocess.Popen([sys.executable, "-ISc", PROGRAM], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
        made.kill()


class Subject:
    """A unikernel whose monitor is `process`."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: Monitor, powerdown: float = 600.0) -> None:
        record = ContainerRecord(
            namespace="n",
            container="c",
            sandbox="s",
            bundle=Path("/b"),
            own_bundle=Path("/own"),
            unikernel=True,
            monitor="double",
            powerdown=powerdown,
            pid=process.pid,
        )
        node = cast(Node, SimpleNamespace(monitors={"double": monitor}))
        self.process = process
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.stopping = Stopping(node, record)

    def signal(self, signum: int) -> None:
        self.stopping.signal(signum, self.ended)

    async def end(self) -> int:
        """The exit code, as callers see it, once the process has ended."""
        code = await asyncio.to_thread(self.process.wait, 5)
        self.ended.set_result(Exit(code if code >= 0 else 128 - code, 1))
        return self.stopping.seen_by_callers(self.ended.result()).status


async def test_a_guest_that_powers_down_has_ended_well(process: subprocess.Popen[bytes]) -> None:
    monitor = Monitor(process.terminate)
    subject = Subject(process, monitor)
    begun = time.monotonic()
    subject.signal(signal.SIGTERM)
    assert time.monotonic() - begun < 0.1, "nobody waits for the guest"
    assert await subject.end() == 0
    assert monitor.asked == 1


async def test_a_guest_is_asked_again_until_its_time_is_up(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_AGAIN", 0.05)
    monitor = Monitor()
    subject = Subject(process, monitor, powerdown=0.4)
    begun = time.monotonic()
    subject.signal(signal.SIGINT)
    assert await subject.end() == 128 + signal.SIGTERM
    assert 0.4 <= time.monotonic() - begun < 2
    assert monitor.asked == 4, "at 0, 0.05, 0.15 and 0.35 seconds"


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGQUIT, 131), (signal.SIGKILL, 137)])
async def test_a_second_signal_is_the_monitors(signum: int, status: int, process: subprocess.Popen[bytes]) -> None:
    monitor = Monitor()
    subject = Subject(process, monitor)
    subject.signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert process.poll() is None
    subject.signal(signum)
    assert await subject.end() == status
    assert monitor.asked == 1


@pytest.mark.parametrize("error", [Unreachable("gone"), NodeFault("what?"), OSError("odd")])
async def test_a_monitor_that_cannot_be_talked_to_is_ended(
    error: Exception, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_HANGING_UP", 0.1)

    def fail() -> None:
        raise error

    subject = Subject(process, Monitor(fail))
    subject.signal(signal.SIGTERM)
    assert await subject.end() == 128 + signal.SIGTERM


async def test_a_monitor_that_hangs_up_because_it_ends_has_ended_well(process: subprocess.Popen[bytes]) -> None:
    def hang_up() -> None:
        process.terminate()
        raise Unreachable("gone")

    subject = Subject(process, Monitor(hang_up))
    subject.signal(signal.SIGTERM)
    assert await subject.end() == 0


async def test_a_monitor_that_never_answers_is_ended_when_the_time_is_up(process: subprocess.Popen[bytes]) -> None:
    subject = Subject(process, Monitor(lambda: asyncio.get_running_loop().create_future()), powerdown=0.1)
    subject.signal(signal.SIGTERM)
    assert await subject.end() == 128 + signal.SIGTERM


async def test_nothing_is_said_to_a_monitor_that_has_ended(process: subprocess.Popen[bytes]) -> None:
    said: Any = asyncio.get_running_loop().create_future()
    subject = Subject(process, Monitor(lambda: said))
    subject.signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    process.kill()
    assert await subject.end() == 137
    await asyncio.sleep(0)
    assert said.cancelled()
    with pytest.raises(ProcessLookupError):
        subject.signal(signal.SIGTERM)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR2, 140)])
async def test_who_cannot_be_asked_has_the_signal(signum: int, status: int, process: subprocess.Popen[bytes]) -> None:
    subject = Subject(process, Monitor(), powerdown=0)
    subject.signal(signal.SIGUSR1)  # ignored
    subject.signal(signal.SIGCONT)
    subject.signal(signum)
    assert await subject.end() == status


async def test_no_such_signal(process: subprocess.Popen[bytes]) -> None:
    subject = Subject(process, Monitor())
    with pytest.raises(OSError, match="Invalid"):
        subject.signal(999)


def test_the_dead_who_are_not_reaped_tell_how_they_died() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as process:
        started = pidfd.start_time(process.pid)
        assert pidfd.zombie_status(process.pid, started) is None
        assert process.stdin is not None
        process.stdin.close()
        deadline = time.monotonic() + 5
        while (status := pidfd.zombie_status(process.pid, started)) is None:
            assert time.monotonic() < deadline
        assert status == 7 << 8
        assert pidfd.zombie_status(process.pid, started + 1) is None
    assert pidfd.zombie_status(process.pid, started) is None
