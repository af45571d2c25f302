"""What systemd is told: by whom, where, and how often."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.systemd.notification import Notifier, from_environment, told

PID = 4711


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """systemd's end, and the address as it says it."""
    path = tmp_path / "notify"
    address = f"@{path}" if request.param == "abstract" else str(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(address.replace("@", "\0"))
        yield address, made


def heard(manager: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(manager.recv(4096).decode())
        except BlockingIOError:
            return words


async def test_ready_alive_stopping(manager: tuple[str, socket.socket]) -> None:
    address, there = manager
    pods = iter(range(100))
    async with told(Notifier(address, 0.1), lambda: f"{next(pods)} pods"):
        assert heard(there) == ["READY=1\nSTATUS=0 pods"]
        await asyncio.sleep(0.12)
        beats = heard(there)
        assert beats[:2] == ["WATCHDOG=1\nSTATUS=1 pods", "WATCHDOG=1\nSTATUS=2 pods"]
        time.sleep(0.2)
        assert heard(there) == []
    assert heard(there) == ["STOPPING=1\nSTATUS=stopping"]


async def test_without_a_watchdog_there_is_no_beat(manager: tuple[str, socket.socket]) -> None:
    address, there = manager
    async with told(Notifier(address, None), lambda: "1 pods"):
        await asyncio.sleep(0.05)
    assert heard(there) == ["READY=1\nSTATUS=1 pods", "STOPPING=1\nSTATUS=stopping"]


async def test_a_body_that_fails_says_that_it_stops(manager: tuple[str, socket.socket]) -> None:
    address, there = manager
    with pytest.raises(RuntimeError):
        async with told(Notifier(address, 10), lambda: ""):
            raise RuntimeError
    assert heard(there)[-1].startswith("STOPPING=1")


async def test_nobody_to_tell() -> None:
    async with told(None, lambda: "1 pods"):
        pass


async def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    async with told(Notifier(str(tmp_path / "nobody"), 0.01), lambda: ""):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("environment", "watchdog"),
    [
        ({"SYSTEMD_EXEC_PID": "4711"}, None),
        ({"SYSTEMD_EXEC_PID": "4711", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "4711"}, 60.0),
        ({"WATCHDOG_PID": "4711", "WATCHDOG_USEC": "500000"}, 0.5),  # systemd before 248
        ({"SYSTEMD_EXEC_PID": "4711", "WATCHDOG_USEC": "500000"}, 0.5),
        ({"SYSTEMD_EXEC_PID": "4711", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"LISTEN_PID": "4711", "WATCHDOG_USEC": "0"}, None),
        ({"LISTEN_PID": "4711", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_process_that_systemd_started_speaks(environment: dict[str, str], watchdog: float | None) -> None:
    found = from_environment({"NOTIFY_SOCKET": "/run/systemd/notify", **environment}, PID)
    assert found is not None and found.watchdog == watchdog


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SYSTEMD_EXEC_PID": "4711"},
        {"NOTIFY_SOCKET": "/run/systemd/notify"},
        {"NOTIFY_SOCKET": "/run/systemd/notify", "SYSTEMD_EXEC_PID": "1", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "5"},
        {"NOTIFY_SOCKET": "vsock:2:1", "SYSTEMD_EXEC_PID": "4711"},
        {"NOTIFY_SOCKET": "", "SYSTEMD_EXEC_PID": "4711"},
    ],
)
def test_nobody_else_does_and_no_program_of_ours_will(environment: dict[str, str]) -> None:
    assert from_environment(environment, PID) is None
    assert environment.keys() <= {"SYSTEMD_EXEC_PID"}
