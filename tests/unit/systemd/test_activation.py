"""Sockets that were passed on: which are taken, and what becomes of the others."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.systemd import activation

PID = 4711
#: Far from what the test runner has open.
FIRST = 300


class Passed:
    """Descriptors in a row from FIRST on, as systemd leaves them."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, descriptor: int) -> None:
        number = fcntl.fcntl(descriptor, fcntl.F_DUPFD, FIRST + self.count)
        assert number == FIRST + self.count
        os.set_inheritable(number, True)
        self.count += 1

    def environment(self, **other: str) -> dict[str, str]:
        return {"LISTEN_FDS": str(self.count), "LISTEN_PID": str(PID), "LISTEN_FDNAMES": "x:y", "HOME": "/", **other}


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passed]:
    monkeypatch.setattr(activation, "_FIRST", FIRST)
    made = Passed()
    yield made
    for number in range(FIRST, FIRST + made.count):
        if is_open(number):
            os.close(number)


def is_open(number: int) -> bool:
    return Path(f"/proc/self/fd/{number}").is_symlink()


def bound(path: str | Path, kind: socket.SocketKind = socket.SOCK_STREAM, *, listens: bool = True) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(os.fspath(path))
    if listens:
        made.listen()
    return made


def test_a_socket_at_each_path_is_taken_and_closed_on_exec(tmp_path: Path, passed: Passed) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in reversed(paths):
        with bound(path) as made:
            passed.add(made.fileno())
    environment = passed.environment()
    taken = activation.take(environment, PID, paths)
    assert environment == {"HOME": "/"}
    assert set(taken) == set(paths)
    for path, listening in taken.items():
        assert listening.getsockname() == str(path)
        assert not os.get_inheritable(listening.fileno()) and listening.getblocking() is False
        listening.close()
        assert path.is_socket()


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_what_is_meant_for_somebody_else_is_left_alone(pid: str, tmp_path: Path, passed: Passed) -> None:
    with bound(tmp_path / "a") as made:
        passed.add(made.fileno())
    environment = passed.environment(LISTEN_PID=pid)
    assert activation.take(environment, PID, [tmp_path / "a"]) == {}
    assert is_open(FIRST)
    assert environment == {"HOME": "/"}, "and is not passed on to programs of ours"


@pytest.mark.parametrize("count", ["", "many", "1.5"])
def test_a_count_that_is_no_number(count: str, passed: Passed) -> None:
    assert activation.take(passed.environment(LISTEN_FDS=count), PID, []) == {}


def test_a_count_that_is_too_high(tmp_path: Path, passed: Passed) -> None:
    with bound(tmp_path / "a") as made:
        passed.add(made.fileno())
    taken = activation.take(passed.environment(LISTEN_FDS="3"), PID, [tmp_path / "a"])
    assert set(taken) == {tmp_path / "a"}
    taken[tmp_path / "a"].close()


@pytest.mark.parametrize("what", ["elsewhere", "datagram", "deaf", "abstract", "tcp", "file", "removed", "in the way"])
def test_what_is_no_door_of_ours_is_closed(what: str, tmp_path: Path, passed: Passed) -> None:
    path = tmp_path / "a"
    made: socket.socket | None = None
    match what:
        case "elsewhere":
            made = bound(tmp_path / "b")
        case "datagram":
            made = bound(path, socket.SOCK_DGRAM, listens=False)
        case "deaf":
            made = bound(path, listens=False)
        case "abstract":
            made = bound(f"\0{path}")
        case "tcp":
            made = socket.create_server(("127.0.0.1", 0))
        case "file":
            descriptor = os.open(tmp_path, os.O_RDONLY)
            passed.add(descriptor)
            os.close(descriptor)
        case _:
            made = bound(path)
            path.unlink()
            if what == "in the way":
                path.touch()
    if made is not None:
        passed.add(made.fileno())
        made.close()
    assert activation.take(passed.environment(), PID, [path]) == {}
    assert not is_open(FIRST)


def test_of_two_at_one_path_the_first_is_taken(tmp_path: Path, passed: Passed) -> None:
    with bound(tmp_path / "a") as made:
        passed.add(made.fileno())
        passed.add(made.fileno())
    taken = activation.take(passed.environment(), PID, [tmp_path / "a"])
    assert taken[tmp_path / "a"].fileno() == FIRST and not is_open(FIRST + 1)
    taken[tmp_path / "a"].close()
