"""The daemon is killed at every step that it writes down: the next one adopts each pod whole or removes it whole.

The steps are counted by a run that lives, then each of them is died at in turn, by the daemon's own fault hook
(shim/faults.py): once before the step is on disk, and so right after what the step before announced was done, and once
after. What comes next is in turn a daemon that somebody starts (systemd), and one that a courier's `delete` starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from shim import faults
from shim.rpc import unix
from shim.wire import types_task_pb2
from tests.integration import layouts, paths, tender_double
from tests.integration.conftest import fresh_node
from tests.integration.daemon import Daemon, environment
from tests.integration.doors import Door
from tests.integration.layouts import Site
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(300)

NAMESPACE = "crash"
SANDBOX, ORDINARY, GUEST = "pod", "sidecar", "guest"
MOUNTS = (("proc", "proc"), ("dev", "tmpfs"))
#: More steps than any life has.
_MANY = 200


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with fresh_node("cr") as made:
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with layouts.ALL["bridge"]() as made:
        yield made


class Life:
    """A pod with a sidecar and a unikernel, from Create to Shutdown, over the daemon's gRPC door."""

    def __init__(self, node: Node, site: Site) -> None:
        self.node, self.site = node, site
        self.base = node.base / "life"
        for name in (ORDINARY, GUEST):
            (self.base / name / "image").mkdir(parents=True)
            (self.base / name / "rootfs").mkdir()
        for link in ("proc", "dev", "bin"):
            (self.base / ORDINARY / "image" / link).mkdir()
        busybox = self.base / ORDINARY / "image" / "bin" / "busybox"
        busybox.write_bytes(Path(paths.program("busybox")).read_bytes())
        busybox.chmod(0o755)
        kernel = tender_double.image().files[tender_double.KERNEL_PATH]
        assert isinstance(kernel, bytes)
        (self.base / GUEST / "image" / "kernel").write_bytes(kernel)
        self._configure(ORDINARY, "/bin/busybox", "sleep", "3600")
        self._configure(GUEST, "/kernel", f"address={site.address}", "term=0")

    def _configure(self, name: str, *argv: str) -> None:
        spec = {
            "ociVersion": "1.0.2",
            "process": {"args": argv, "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": f"/{each[0]}", "type": each[1], "source": each[1]} for each in MOUNTS],
            "annotations": {
                "io.kubernetes.cri.sandbox-id": SANDBOX,
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": name,
            },
            "linux": {
                # As containerd writes them for a pod without a pause container.
                "namespaces": [
                    {"type": "mount"},
                    {"type": "pid"},
                    *({"type": kind, "path": f"/proc/0/ns/{kind}"} for kind in ("network", "ipc", "uts")),
                ],
                "cgroupsPath": f"{self.node.cgroup_parent}/{name}",
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        (self.base / name / "config.json").write_text(json.dumps(spec))

    def live(self, door: Door) -> None:
        """All of it. Raises grpc.RpcError where the daemon dies or refuses."""
        door.controller("Create", sandbox_id=SANDBOX, netns_path=str(self.site.path))
        door.controller("Start", sandbox_id=SANDBOX)
        for name in (ORDINARY, GUEST):
            rootfs = [{"type": "bind", "source": str(self.base / name / "image"), "options": ["rbind", "ro"]}]
            door.task("Create", id=name, bundle=str(self.base / name), rootfs=rootfs)
            door.task("Start", id=name)
        assert self.answers()
        door.task("Kill", id=GUEST, signal=int(signal.SIGTERM))
        door.task("Wait", id=GUEST)
        door.task("Delete", id=GUEST)
        self.end(door)

    def end(self, door: Door) -> None:
        """What containerd does to be rid of the pod, whatever there is of it."""
        for method in ("Stop", "Shutdown"):
            try:
                door.controller(method, sandbox_id=SANDBOX)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

    def answers(self) -> bool:
        """Whether the unikernel is there for the pod's router."""
        return layouts.pings(self.site.node, self.site.address, count=1)

    def whole(self, door: Door) -> None:
        """What the daemon knows is true: each container that it calls alive lives, and the network has one owner."""
        status = {}
        for name in (ORDINARY, GUEST):
            with suppress(grpc.RpcError):
                state = door.task("State", id=name)
                status[name] = state.status
                lives = state.status in (types_task_pb2.CREATED, types_task_pb2.RUNNING)
                assert Path(f"/proc/{state.pid}").exists() is lives, state
        assert self.has_address() is (status.get(GUEST) not in (types_task_pb2.CREATED, types_task_pb2.RUNNING))
        if status.get(GUEST) == types_task_pb2.RUNNING:
            assert self.answers()

    def has_address(self) -> bool:
        """Whether the pod's eth0 has its address."""
        shown = layouts.ip("-o", "address", "show", "eth0", namespace=self.site.pod)
        return f"inet {self.site.address}/" in shown


def started(node: Node, step: int | None) -> Daemon:
    """A daemon that will die at `step`; with 0 it says its steps, with None it knows of none."""
    env = {} if step is None else {faults.VARIABLE: str(step)}
    daemon = Daemon(node, more='\n[engine]\npath = "runc"\n', env=env)
    daemon.start()
    return daemon


def delete_by_courier(node: Node, daemon: Daemon, life: Life, name: str) -> None:
    """What containerd does about a task whose shim it has lost; the courier starts a daemon."""
    done = subprocess.run(
        node.inside(
            str(paths.COURIER), "-namespace", NAMESPACE, "-id", name, "-bundle", f"{life.base / name}", "delete"
        ),
        env={**os.environ, **environment(daemon.config)},
        cwd=life.base / name,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def end(daemon: Daemon) -> None:
    """Stop a daemon, whoever started it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(daemon.ttrpc_socket))
        pid, _ = unix.peer(connection)
    daemon.stop()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the daemon does not end"
        time.sleep(0.01)


def test_killed_at_every_step(node: Node, site: Site) -> None:
    life = Life(node, site)
    untouched = layouts.dump(site.pod)
    daemon = started(node, 0)
    with Door(daemon.socket, NAMESPACE) as door:
        life.live(door)
    steps = [entry for entry in map(json.loads, daemon.log.read_text().splitlines()) if entry.get("event") == "step"]
    daemon.stop()
    assert 30 < len(steps) < _MANY, "a life of a pod has some twenty steps, each counted twice"
    with LeakCheck(node, directories=[life.base]) as clean:
        for number in range(1, len(steps) + 1):
            step = f"step {number}: {steps[number - 1]['action']} {steps[number - 1]['key']}"
            _die_at(number, node, life)
            assert not (lost := layouts.differences(untouched, _settled(site, untouched))), f"{step}: {lost}"
            assert not (left := clean.settled()), f"{step}: {left}"


def _die_at(number: int, node: Node, life: Life) -> None:
    daemon = started(node, number)
    with Door(daemon.socket, NAMESPACE) as door, pytest.raises(grpc.RpcError):
        life.live(door)
    daemon.died()
    # Before and after each step in turn: either kind of successor meets both.
    if number % 4 in (1, 2):
        delete_by_courier(node, daemon, life, GUEST)
    else:
        daemon = started(node, None)
    with Door(daemon.socket, NAMESPACE) as door:
        life.whole(door)
        life.end(door)
    end(daemon)


def _settled(site: Site, wanted: dict[str, Any]) -> dict[str, Any]:
    """The pod's namespace once the kernel has taken our devices down."""
    deadline = time.monotonic() + 5
    while (found := layouts.dump(site.pod)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
