"""What a node can do to the daemon: an engine that hangs, a run directory that is full or read-only. Without
containerd: its faults and the daemon's own are in test_restart.py and tests/chaos."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration import layouts, paths
from tests.integration.conftest import fresh_node, running
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.layouts import Site
from tests.integration.leaks import LeakCheck
from tests.integration.life import GUEST, NAMESPACE, ORDINARY, Life
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(90)

#: An engine that hangs where a file says so (it opens a FIFO that nobody writes to): before it does anything, or once
#: all is done.
_ENGINE = """#!/bin/sh
case " $* " in
*" $(cat {flag} 2>/dev/null || echo nothing) "*)
    [ -e {flag}.after ] && {runc} "$@"
    read -r nothing < {flag}.fifo;;
esac
exec {runc} "$@"
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with layouts.ALL["bridge"]() as made:
        yield made


@pytest.fixture
def node() -> Iterator[Node]:
    with fresh_node("fa") as made:
        yield made


@pytest.fixture
def life(node: Node, site: Site) -> Life:
    return Life(node, site)


@contextmanager
def served(node: Node, more: str = "") -> Iterator[tuple[Daemon, Door]]:
    """A daemon that offers no events: nobody is there to take them. Ended by SIGKILL for the same reason."""
    daemon = Daemon(node, more=more)
    with running(daemon):
        try:
            with Door(daemon.socket, NAMESPACE) as door:
                yield daemon, door
        finally:
            daemon.kill()


def engine(node: Node) -> tuple[Path, str]:
    """The file that makes the engine hang, and the daemon's settings for it."""
    flag, program = node.base / "hang", node.base / "engine" / "runc"
    program.parent.mkdir()
    os.mkfifo(flag.with_suffix(".fifo"))
    program.write_text(_ENGINE.format(flag=flag, runc=paths.program("runc")))
    program.chmod(0o755)
    return flag, f'\n[engine]\npath = "{program}"\ntimeout = 1.0\n'


def refused(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_engine_that_hangs_holds_up_its_own_pod_for_its_time_and_leaves_nothing(
    after: bool, node: Node, site: Site, life: Life
) -> None:
    flag, settings = engine(node)
    with served(node, settings) as (_, door), LeakCheck(node, directories=[life.base]):
        life.begin(door)
        door.controller("Create", sandbox_id="other")
        if after:
            flag.with_suffix(".after").touch()
        flag.write_text(f"create --bundle {node.base}/run/containers/{NAMESPACE}@{GUEST}")
        failures: list[grpc.RpcError] = []
        creating = threading.Thread(target=lambda: failures.append(refused(lambda: life.create(door, GUEST))))
        creating.start()
        time.sleep(0.2)
        began = time.monotonic()
        door.controller("Start", sandbox_id="other")
        assert time.monotonic() - began < 0.5, "another pod waits"
        creating.join()
        assert failures[0].code() is grpc.StatusCode.DEADLINE_EXCEEDED and "did not end within 1 s" in str(failures[0])
        assert life.has_address()
        flag.unlink()
        life.create(door, GUEST)
        door.task("Start", id=GUEST)
        assert life.answers()
        life.end(door)
        door.controller("Shutdown", sandbox_id="other")
        flag.with_suffix(".after").unlink(missing_ok=True)


def test_stop_cuts_off_a_create_that_hangs(node: Node, life: Life) -> None:
    flag, settings = engine(node)
    with served(node, settings.replace("1.0", "60.0")) as (_, door), LeakCheck(node, directories=[life.base]):
        life.begin(door)
        flag.write_text("create")
        failures: list[grpc.RpcError] = []
        creating = threading.Thread(target=lambda: failures.append(refused(lambda: life.create(door, ORDINARY))))
        creating.start()
        time.sleep(0.3)
        began = time.monotonic()
        life.end(door)
        assert time.monotonic() - began < 5
        creating.join()
        assert failures[0].code() is grpc.StatusCode.FAILED_PRECONDITION
        flag.unlink()


def test_an_engine_that_outlives_the_daemon_is_ended_before_its_work_is_undone(node: Node, life: Life) -> None:
    flag, settings = engine(node)
    flag.with_suffix(".after").touch()
    with served(node, settings):
        _sockets_gone(node)  # and what a daemon makes for itself is there
    with LeakCheck(node, directories=[life.base]):
        with served(node, settings.replace("1.0", "60.0")) as (_, door):
            life.begin(door)
            flag.write_text("create")
            threading.Thread(target=lambda: refused(lambda: life.create(door, ORDINARY))).start()
            deadline = time.monotonic() + 10
            while not any(node.run("sh", "-c", f"ls -d /sys/fs/cgroup/*{node.cgroup_parent}/{ORDINARY}", check=False)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with served(node, settings) as (_, door):
            assert refused(lambda: door.task("State", id=ORDINARY)).code() is grpc.StatusCode.NOT_FOUND
            life.end(door)
        flag.unlink()
        flag.with_suffix(".after").unlink()
        _sockets_gone(node)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_run_directory_that_cannot_be_written_stops_beginnings_and_no_end(
    fault: str, node: Node, site: Site, life: Life
) -> None:
    run_dir = node.base / "run"
    run_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=200,mode=0700", "tmpfs", str(run_dir)], check=True)
    untouched = layouts.dump(site.pod)
    try:
        with served(node, '\n[engine]\npath = "runc"\n') as (_, door):
            life.begin(door)
            for name in (ORDINARY, GUEST):
                life.create(door, name)
                door.task("Start", id=name)
            assert life.answers()
            late = node.base / "late"
            late.mkdir()
            (late / "config.json").write_text('{"process": {"args": ["/none"]}}')
            _break(fault, run_dir)
            for call in (
                lambda: door.controller("Create", sandbox_id="late"),
                lambda: door.task("Create", id="late", bundle=str(late)),
            ):
                error = refused(call)
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
                assert "the journal cannot be written" in str(error)
            life.end(door)
            assert not life.answers() or life.has_address()
            assert life.has_address()
            _mend(fault, run_dir)
            life.begin(door)
            life.create(door, GUEST)
            life.end(door)
        # What could not be forgotten is found by the next daemon, which finds nothing of it.
        with served(node, '\n[engine]\npath = "runc"\n') as (_, door):
            life.end(door)
            assert not list((run_dir / "journal").glob("*.json")) + list((run_dir / "journal" / "pods").glob("*.json"))
        _until(lambda: layouts.dump(site.pod) == untouched)
    finally:
        subprocess.run(["umount", "--lazy", str(run_dir)], check=True)


def _break(fault: str, run_dir: Path) -> None:
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(run_dir)], check=True)
        return
    # Of inodes: of pages a tmpfs keeps count by processor, and only roughly when few are left.
    (run_dir / "ballast").mkdir()
    with pytest.raises(OSError, match="No space left"):
        for number in itertools.count():
            (run_dir / "ballast" / str(number)).touch()


def _mend(fault: str, run_dir: Path) -> None:
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(run_dir)], check=True)
    else:
        shutil.rmtree(run_dir / "ballast")


def _until(condition: Callable[[], bool], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _sockets_gone(node: Node) -> None:
    """A daemon that is killed leaves its sockets, which the next one replaces."""
    for name in ("shim.sock", "shim.ttrpc", "metrics.sock"):
        (node.base / "run" / name).unlink(missing_ok=True)
