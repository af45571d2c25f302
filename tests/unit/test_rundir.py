"""A pod's run directory: who has it, and that it goes with its daemon, or stays for a reason."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim import rundir
from shim.config import Config, Metrics, parse
from shim.errors import NodeFault


@contextmanager
def a_courier(directory: Path) -> Iterator[None]:
    """Somebody who is about to start a daemon."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_a_pods_settings_are_the_nodes_in_a_directory_of_its_own() -> None:
    text = 'run_dir = "/x"\ngrouping = "pod"\n[guest]\nmemory = 7\n[metrics]\nlisten = "127.0.0.1:1"\n'
    node = parse(f'{text}[tracing]\nendpoint = "http://127.0.0.1:1"\n', "test")
    pod = node.within("k8s.io/a")
    assert pod.run_dir.parent == Path("/x/pods")
    assert (pod.guest, pod.metrics, pod.tracing) == (node.guest, Metrics(), node.tracing)
    assert node.within("k8s.io/a") == pod != node.within("k8s.io/b")
    assert Config().grouping == "node"


async def test_it_is_made_signed_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "pods" / "x"
    async with rundir.of_pod(path, "n/c"):
        rundir.make(path)
        assert (path / "pod").read_text() == "n/c\n"
        assert path.stat().st_mode & 0o777 == 0o700
        # What a life leaves: an engine's directories; a daemon that was killed while it made a socket.
        (path / "engine" / "runc" / "n").mkdir(parents=True)
        (path / ".abc").mkdir()
        (path / ".abc" / "s").touch()
        (path / "shim.sock").touch()
        (path / "lock").touch()
    assert not path.exists()
    assert path.parent.exists()


@pytest.mark.parametrize("kept", ["journal/n@c.json", "journal/pods/n@s.json", "containers/n@c", "sandboxes/n@s"])
async def test_what_is_left_of_a_pod_keeps_it(tmp_path: Path, kept: str) -> None:
    path = tmp_path / "x"
    async with rundir.of_pod(path, "n/c"):
        rundir.make(path)
        (path / kept).mkdir()
    assert (path / kept).exists()
    assert (path / "pod").read_text() == "n/c\n"
    # The next one finds it, and takes it along once it is gone.
    async with rundir.of_pod(path, "n/c"):
        rundir.make(path)
        (path / kept).rmdir()
    assert not path.exists()


async def test_what_is_not_known_is_not_taken_along(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with rundir.of_pod(path, "n/c"):
        rundir.make(path)
        (path / "containers" / "n@c" / "rootfs" / "usr").mkdir(parents=True)
        (path / "containers" / "n@c" / "rootfs" / "usr" / "precious").touch()
    assert (path / "containers" / "n@c" / "rootfs" / "usr" / "precious").exists()


async def test_a_courier_that_waits_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with rundir.of_pod(path, "n/c") as directory:
        rundir.make(path)
        with a_courier(path):
            assert not directory.hold()
        assert directory.hold()
        directory.let_go()
        lock = os.open(path / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert os.listdir(path) == ["lock"]
    os.close(lock)


async def test_a_courier_that_comes_meanwhile_keeps_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with rundir.of_pod(path, "n/c") as directory:
        assert directory.hold()
        (path / "lock").unlink()
        (path / "lock.of.the.next").touch()
    assert path.exists()


async def test_a_directory_that_was_taken_away_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "x"
    async with rundir.of_pod(path, "n/c") as directory:
        (path / "pod").unlink()
        path.rmdir()
        assert directory.hold()


async def test_the_node_has_one_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_SUCCESSION", 0.1)
    async with rundir.of_node(tmp_path / "x"):
        with pytest.raises(NodeFault, match="another daemon"):
            async with rundir.of_node(tmp_path / "x"):
                pass
    async with rundir.of_node(tmp_path / "x"):
        assert (tmp_path / "x" / "serving").read_text().strip().isdigit()


async def test_of_two_daemons_one_at_a_time_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    monkeypatch.setattr(rundir, "_SUCCESSION", 0.1)
    async with rundir.of_pod(path, "n/c"):
        with pytest.raises(NodeFault, match="another daemon"):
            async with rundir.of_pod(path, "n/c"):
                pass
        monkeypatch.setattr(rundir, "_SUCCESSION", 5.0)
        entered = asyncio.Event()

        async def succeed() -> None:
            async with rundir.of_pod(path, "n/c"):
                rundir.make(path)
                entered.set()
                assert (path / "pod").read_text() == "n/c\n"

        successor = asyncio.ensure_future(succeed())
        await asyncio.sleep(0.1)
        assert not entered.is_set()
    await asyncio.wait_for(successor, 5)
    assert not path.exists()


async def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeFault, match="cannot be made"):
        async with rundir.of_pod(tmp_path / "file" / "x", "n/c"):
            pass
    with pytest.raises(NodeFault, match="cannot be made"):
        rundir.make(tmp_path / "file")


def test_the_nodes_door_comes_first(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "pods" / name).mkdir(parents=True)
        (tmp_path / "pods" / name / "shim.sock").touch()
    (tmp_path / "pods" / "starting").mkdir()
    found = [str(door.relative_to(tmp_path)) for door in rundir.doors(tmp_path)]
    assert found == ["shim.sock", "pods/a/shim.sock", "pods/b/shim.sock"]
