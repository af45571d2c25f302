"""What the journals hold of a container and of a sandbox: enough to adopt it, or to remove every trace of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shim.guests.base import Dns
from shim.network.plan import Plan
from shim.process.reaper import Exit
from shim.process.stdio import Streams
from shim.sandbox.state import SandboxStatus


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """What the Sandbox API's caller says of the pod.

    `netns` is "" for the node's own network. Without `dns` names are found as the node finds them. `host_pid` and
    `host_ipc` say that the node's processes and IPC are the pod's.
    """

    netns: str = ""
    hostname: str = ""
    name: str = ""
    namespace: str = ""
    dns: Dns | None = None
    host_pid: bool = False
    host_ipc: bool = False
    sysctls: dict[str, str] = {}
    """As the pod names them, `net.ipv4.x` or `net/ipv4/x`, with their values."""
    cgroup_parent: str = ""
    """The pod's cgroup, as a path or as a systemd slice's name; "" where it has none of its own."""
    bundle: str = ""
    """What containerd made for the sandbox's shim; "" where it runs none."""
    log_directory: str = ""
    """Where the kubelet wants the logs of its containers, "" where nobody said."""
    destination: str = ""
    """Where the events of its containers go; "" for the configured containerd."""


class SandboxRecord(msgspec.Struct, kw_only=True):
    """One sandbox of the Sandbox API; what it pinned is under its directory, whatever the record says."""

    namespace: str
    sandbox: str
    pod: Pod
    created_at: int
    """Nanoseconds since the epoch."""
    status: SandboxStatus = SandboxStatus.CREATED
    exit: Exit | None = None

    @property
    def key(self) -> str:
        """The record's name in the journal."""
        return f"{self.namespace}@{self.sandbox}"


class PodPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Plumbing that was, or is about to be, applied to a pod's namespace."""

    netns: str
    plan: Plan
    took: float = 0.0
    """Seconds from the first look at the namespace until all was plumbed; 0 where that is not known."""
    dns: Dns = Dns()
    """The name servers that its guest is told, as far as its family can be."""


class ContainerRecord(msgspec.Struct, kw_only=True):
    """One container. Each field is set, and the record written, before the step that it speaks of is taken."""

    namespace: str
    container: str
    sandbox: str
    bundle: Path
    pod: tuple[str, str] = ("", "")
    """Kubernetes' namespace and the pod's name in it, "" outside Kubernetes."""
    destination: str = ""
    streams: Streams = Streams()
    rootfs: Path | None = None
    """Where mounts of ours are, None when containerd handed over none."""
    own_bundle: Path | None = None
    disks: Path | None = None
    """The directory of the disks that are the container's own, None where it has none."""
    engine: bool = False
    """Whether the engine may know the container."""
    cgroup: str = ""
    """The cgroup that its configuration asks for."""
    unikernel: bool = False
    monitor: str = ""
    """Which monitor a unikernel's is."""
    guest: str = ""
    """Which family a unikernel is of."""
    powerdown: float = 0.0
    """Seconds its guest is given to power down when asked; 0 where its monitor cannot ask."""
    machine: bytes = b""
    """What its monitor is told once it runs (`Booted.boot`); b"" for nothing, and once it has been told."""
    user: int = 0
    """The user the init runs as."""
    plumbing: PodPlan | None = None
    stderr: Path | None = None
    oom_counter: Path | None = None
    """The file in which the kernel counts the container's processes that it killed for want of memory."""
    oom_kills: int = 0
    """How many of them are known to have been told of."""
    pid: int = 0
    started: int = 0
    """The init's start time (clock ticks since boot), which with the pid names it beyond doubt."""
    running: bool = False
    exit: Exit | None = None
    doomed: str = ""
    """What was to be removed, the container or its sandbox by id, and could not be; "" for nothing."""

    @property
    def key(self) -> str:
        """The record's name in the journal."""
        return f"{self.namespace}@{self.container}"
