"""What pods cost that do nothing: the daemon's CPU time and wake-ups in a minute with 200 of them, and with none.

Judges nothing but that all were there. The sandboxes are made as containerd's sandbox plugin makes them, in network
namespaces of our own; in some of them a unikernel runs (the tender's double).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import paths, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.node import Node
from tests.performance.conftest import Measured
from tests.performance.processes import Reading

pytestmark = [pytest.mark.timeout(400), pytest.mark.figure("idle")]

_SANDBOXES = 200
_GUESTS = 20
_IDLE = 30.0  # seconds that are measured
_SETTLE = 5.0  # seconds before them, for what a creation leaves to be done
_NAMESPACE = "idle"


def test_two_hundred_idle_sandboxes(measured: Measured) -> None:
    peer, name = "none", f"{_SANDBOXES} sandboxes"
    rows: dict[tuple[str, str, str], Callable[[Reading, Reading], float]] = {
        ("cpu", "CPU time in a minute", "ms"): lambda before, after: (after.cpu - before.cpu) * 60_000 / _IDLE,
        ("wakeups", "wake-ups of all threads in a minute", "wake-ups"): lambda before, after: (
            (after.wakeups - before.wakeups) * 60 / _IDLE
        ),
        ("pss", "PSS", "MiB"): lambda before, after: after.pss,
        ("threads", "threads", "threads"): lambda before, after: after.threads,
        ("descriptors", "open files", "files"): lambda before, after: after.descriptors,
    }
    figures = {key: measured.figure(f"idle.{key}", f"The idle daemon: {title}", unit) for key, title, unit in rows}
    with fresh_node("idle") as node:
        daemon = Daemon(node, production=True)
        with running(daemon):
            none = _idle(daemon.pid)
            with _pods(node, daemon):
                many = _idle(daemon.pid)
                with Door(daemon.socket, _NAMESPACE) as door:
                    listed = door.inspection("List").sandboxes
    assert len(listed) == _SANDBOXES
    assert sum(entry.status == "running" for entry in listed) == _GUESTS
    for (key, _, _), value in rows.items():
        figures[key].add(peer, value(*none))
        figures[key].add(name, value(*many))


def _idle(pid: int) -> tuple[Reading, Reading]:
    """Before and after the time that is measured."""
    time.sleep(_SETTLE)
    before = Reading.of(pid)
    time.sleep(_IDLE)
    return before, Reading.of(pid)


@contextmanager
def _pods(node: Node, daemon: Daemon) -> Iterator[None]:
    """All sandboxes, started, the first ones with their unikernels; removed at the end."""
    names = [f"{node.token}-{number}" for number in range(_SANDBOXES)]
    with Door(daemon.socket, _NAMESPACE) as door, ExitStack() as after:
        for number, name in enumerate(names):
            _ip("netns", "add", name)
            after.callback(_ip, "netns", "delete", name)
            door.controller("Create", sandbox_id=name, netns_path=f"/run/netns/{name}")
            after.callback(door.controller, "Shutdown", sandbox_id=name)
            door.controller("Start", sandbox_id=name)
            if number < _GUESTS:
                _run_guest(node, door, name, number)
        yield


def _run_guest(node: Node, door: Door, name: str, number: int) -> None:
    wire = f"wire{number}"
    _ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", wire, "netns", node.netns)
    _ip("-n", name, "address", "add", "10.9.0.2/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", node.netns, "link", "set", wire, "up")
    bundle = _bundle(node, name)
    rootfs = [{"type": "bind", "source": str(bundle / "image"), "options": ["rbind", "ro"]}]
    door.task("Create", id=f"guest-{name}", bundle=str(bundle), rootfs=rootfs)
    door.task("Start", id=f"guest-{name}")


def _bundle(node: Node, name: str) -> Path:
    directory = node.base / "bundles" / name
    (directory / "image").mkdir(parents=True)
    (directory / "rootfs").mkdir()
    kernel = tender_double.image().files[tender_double.KERNEL_PATH]
    assert isinstance(kernel, bytes)
    (directory / "image" / "kernel").write_bytes(kernel)
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/kernel", "address=10.9.0.2"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "annotations": {
            "io.kubernetes.cri.sandbox-id": name,
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "guest",
        },
        "linux": {
            # As containerd writes them for a pod without a pause container.
            "namespaces": [
                {"type": "mount"},
                {"type": "pid"},
                *({"type": kind, "path": f"/proc/0/ns/{kind}"} for kind in ("network", "ipc", "uts")),
            ],
            "cgroupsPath": f"{node.cgroup_parent}/{name}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
    (directory / "config.json").write_text(json.dumps(spec))
    return directory


def _ip(*arguments: str) -> None:
    subprocess.run([paths.program("ip"), *arguments], check=True)
