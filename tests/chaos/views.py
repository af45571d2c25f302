"""What containerd, the daemon and the kernel say of a site's pods."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import grpc

from shim.wire import types_task_pb2
from tests.chaos.agreement import (
    Containerd,
    Daemon,
    Group,
    Held,
    Kernel,
    Listed,
    Network,
    Sandbox,
    Task,
    differences,
    without_ghosts,
)
from tests.chaos.script import GUEST
from tests.chaos.site import Site
from tests.integration.doors import Door
from tests.integration.node import Node, cgroup_roots, mounts

_TIMEOUT = 5.0
_NAMESPACE = "k8s.io"


class Unanswered(Exception):
    """A view could not be had, or changed while it was looked at."""


def disagreements(site: Site, *, ghosts: bool = False) -> list[str]:
    """What the three do not agree on now, in sentences; `ghosts` is whether the daemon may have some."""
    try:
        first, second = containerd(site), daemon(site)
        return differences(first, without_ghosts(first, second) if ghosts else second, kernel(site))
    except Unanswered as error:
        return [str(error)]


def containerd(site: Site) -> Containerd:
    """CRI's lists, and `ctr task ls`. Raises Unanswered."""
    client = site.client(_TIMEOUT)
    pb = client.messages
    states = {pb.CONTAINER_CREATED: "created", pb.CONTAINER_RUNNING: "running", pb.CONTAINER_EXITED: "exited"}
    try:
        pods = {
            pod.id: Sandbox(pod.state == pb.SANDBOX_READY, "podsandbox" in pod.runtime_handler) for pod in client.pods()
        }
        containers = {
            each.id: Listed(each.pod_sandbox_id, states.get(each.state, "unknown")) for each in client.containers()
        }
        listed = site.containerd.ctr("task", "ls", timeout=_TIMEOUT).splitlines()[1:]
    except (grpc.RpcError, AssertionError, OSError) as error:
        raise Unanswered(f"containerd does not say: {error}") from error
    finally:
        client.close()
    tasks = {line.split()[0]: Task(line.split()[2].lower(), int(line.split()[1])) for line in listed if line.strip()}
    return Containerd(pods, containers, tasks)


def daemon(site: Site) -> Daemon:
    """Inspection of every sandbox, and State of every task. Raises Unanswered."""
    pods: dict[str, str] = {}
    containers: dict[str, Held] = {}
    try:
        with Door(site.daemon.socket, _NAMESPACE) as door:
            for entry in door.inspection("List").sandboxes:
                described = json.loads(door.inspection("Inspect", pod=entry.id).json)
                pods[entry.id] = described["netns"] or ""
                for held in described["containers"]:
                    state = door.task("State", id=held["id"])
                    containers[held["id"]] = Held(
                        entry.id,
                        Task(held["status"], held["pid"]),
                        Task(types_task_pb2.Status.Name(state.status).lower(), state.pid),
                        held["unikernel"],
                    )
    except grpc.RpcError as error:
        raise Unanswered(f"the daemon does not say: {error.code().name}: {error.details()}") from error
    return Daemon(pods, containers)


def kernel(site: Site) -> Kernel:
    """Cgroups, mounts and network namespaces. Raises Unanswered where one goes away meanwhile."""
    state = site.containerd.state
    points = [Path(point) for point in mounts() if Path(point).is_relative_to(state)]
    rootfs = frozenset(
        point.parent.name for point in points if point.name == "rootfs" and point.parent.parent.name == _NAMESPACE
    )
    networks = {str(point): _network(site, point) for point in points if point.parent.name == "netns"}
    return Kernel(_groups(site.node), rootfs, networks)


def _groups(node: Node) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for root in cgroup_roots():
        for directory in _directories(root / node.token):
            with contextlib.suppress(OSError):
                pids = frozenset(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
                former = found.get(directory.name, Group(frozenset(), False))
                found[directory.name] = Group(former.pids | pids, former.frozen or _frozen(directory))
    return found


def _directories(parent: Path) -> Iterable[Path]:
    return [each for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else ()


def _frozen(directory: Path) -> bool:
    """As version 1's freezer or version 2's file says it; another controller's directory has neither."""
    for name, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
        if (directory / name).exists():
            return (directory / name).read_text().strip() == word
    return False


def _network(site: Site, path: Path) -> Network:
    """eth0's global addresses of version 4, and the taps."""
    script = "ip -json -4 address show dev eth0; ip -json -details link show"
    try:
        answer = site.node.run("nsenter", f"--net={path}", "sh", "-c", script)
    except AssertionError as error:
        raise Unanswered(f"{path} cannot be looked into: {error}") from error
    decoder = json.JSONDecoder()
    eth0, end = decoder.raw_decode(answer)
    links, _ = decoder.raw_decode(answer[end:].lstrip())
    addresses = tuple(each["local"] for link in eth0 for each in link.get("addr_info", []))
    kinds = [link.get("linkinfo", {}).get("info_kind") for link in links]
    return Network(addresses, sum(kind in ("tun", "macvtap") for kind in kinds))


def monitors(node: Node) -> list[int]:
    """The doubles that run in the node's pods."""
    found = []
    for pid in node.processes():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(os.path.basename(word) == b"solo5-spt" for word in command[:3]):
                found.append(pid)
    return sorted(found)


def unreached(site: Site, addresses: dict[str, str]) -> list[str]:
    """Of pods whose unikernel should serve, by name with the address: which does not answer."""
    return [f"{name}'s {GUEST} does not answer at {at}" for name, at in addresses.items() if not site.node.ping(at)]
