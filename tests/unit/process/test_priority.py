"""The daemon's threads come first, and what it starts does not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from shim.process import priority
from shim.process.priority import come_first
from shim.process.spawn import spawn

T = TypeVar("T")

_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may come first")


@pytest.fixture(autouse=True)
def autogroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not that of the session that runs the tests."""
    path = tmp_path / "autogroup"
    path.write_text("/autogroup-1 nice 0")
    monkeypatch.setattr(priority, "_AUTOGROUP", path)
    return path


def in_own_thread(work: Callable[[], T]) -> T:
    """A thread that is nothing else's: niceness is a thread's."""
    outcome: Future[T] = Future()
    thread = threading.Thread(target=lambda: outcome.set_result(work()))
    thread.start()
    thread.join()
    return outcome.result()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def of_a_program(directory: Path) -> int:
    pid = spawn(["/bin/sh", "-c", f"nice > {directory}/nice"], fds={})
    os.waitpid(pid, 0)
    return int((directory / "nice").read_text())


@_ROOT
def test_threads_inherit_it_and_programs_do_not(tmp_path: Path) -> None:
    def work() -> tuple[bool, int, int, int, int]:
        return come_first(), niceness(), of_a_program(tmp_path), niceness(), in_own_thread(niceness)

    assert in_own_thread(work) == (True, -10, 0, -10, -10)
    assert niceness() == 0


@_ROOT
def test_who_comes_earlier_already_stays_there() -> None:
    def work() -> int:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        come_first()
        return niceness()

    assert in_own_thread(work) == -15


@_ROOT
def test_the_session_comes_first_where_there_is_such_a_thing(autogroup: Path) -> None:
    assert in_own_thread(come_first)
    assert autogroup.read_text() == "-10"
    autogroup.unlink()
    assert in_own_thread(come_first)
    assert not autogroup.exists()


def test_who_may_not_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert not in_own_thread(come_first)
