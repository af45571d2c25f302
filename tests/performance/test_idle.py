"""What pods cost that do nothing: the daemon's CPU time and wake-ups in a minute with 200 of them, and with none.

Prints; judges nothing but that all were there. The sandboxes are made as containerd's sandbox plugin makes them, in
network namespaces of our own; in some of them a unikernel runs (the tender's double). `make bench` shows the output.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import paths, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(400)

_SANDBOXES = 200
_GUESTS = 20
_IDLE = 60.0  # seconds that are measured
_SETTLE = 5.0  # seconds before them, for what a creation leaves to be done
_NAMESPACE = "idle"


@dataclass(frozen=True)
class Reading:
    """A process at one moment; `cpu` in seconds, `pss` in MiB."""

    cpu: float
    wakeups: int
    pss: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Reading:
        process = Path(f"/proc/{pid}")
        # utime and stime, fields 14 and 15 of proc(5)'s stat; the name before them may contain blanks.
        stat = (process / "stat").read_text().rpartition(")")[2].split()
        threads = list((process / "task").iterdir())
        return cls(
            cpu=(int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
            wakeups=sum(_number(thread / "status", "voluntary_ctxt_switches:") for thread in threads),
            pss=_number(process / "smaps_rollup", "Pss:") / 1024,
            threads=len(threads),
            descriptors=len(list((process / "fd").iterdir())),
        )


def _number(path: Path, label: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(label))


def test_two_hundred_idle_sandboxes() -> None:
    with fresh_node("idle") as node:
        daemon = Daemon(node)
        with running(daemon):
            none = _idle(daemon.pid)
            began = time.perf_counter()
            with _pods(node, daemon):
                print(
                    f"\n{_SANDBOXES} sandboxes, {_GUESTS} of them with a unikernel: {time.perf_counter() - began:.1f} s"
                )
                many = _idle(daemon.pid)
                with Door(daemon.socket, _NAMESPACE) as door:
                    listed = door.inspection("List").sandboxes
    assert len(listed) == _SANDBOXES
    assert sum(entry.status == "running" for entry in listed) == _GUESTS
    _show(none, many)


def _idle(pid: int) -> tuple[Reading, Reading]:
    """Before and after the time that is measured."""
    time.sleep(_SETTLE)
    before = Reading.of(pid)
    time.sleep(_IDLE)
    return before, Reading.of(pid)


def _show(none: tuple[Reading, Reading], many: tuple[Reading, Reading]) -> None:
    print(f"the daemon, idle for {_IDLE:g} s        none   {_SANDBOXES} sandboxes")
    rows: dict[str, Callable[[Reading, Reading], float]] = {
        "CPU time, ms": lambda before, after: (after.cpu - before.cpu) * 1000,
        "wake-ups of all threads": lambda before, after: after.wakeups - before.wakeups,
        "PSS, MiB": lambda before, after: after.pss,
        "threads": lambda before, after: after.threads,
        "descriptors": lambda before, after: after.descriptors,
    }
    for label, value in rows.items():
        print(f"  {label:<28} {value(*none):10.1f} {value(*many):10.1f}")
    first, second = none[1], many[1]
    print(
        f"  for each sandbox: {(second.pss - first.pss) * 1024 / _SANDBOXES:.1f} KiB, "
        f"{(second.threads - first.threads) / _SANDBOXES:.2f} threads, "
        f"{(second.descriptors - first.descriptors) / _SANDBOXES:.2f} descriptors"
    )


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
