"""Three views of the same pods, and what they do not agree on. Pure: `views` asks for them.

States are in containerd's words for tasks: created, running, paused, stopped. CRI's own are created, running, exited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

LIVING = ("created", "running", "paused")


@dataclass(frozen=True)
class Sandbox:
    """A pod as CRI lists it."""

    ready: bool
    #: Whether it has a pause container, whose id is the pod's.
    pause: bool


@dataclass(frozen=True)
class Listed:
    """A container as CRI lists it."""

    pod: str
    state: str


@dataclass(frozen=True)
class Task:
    """A process of whom containerd's task list, or the daemon, says this."""

    status: str
    pid: int


@dataclass(frozen=True)
class Containerd:
    """Each by id."""

    pods: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Listed] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """A container as the daemon has it. `asked` is what Task.State says of it, `task` what Inspection says."""

    pod: str
    task: Task
    asked: Task
    unikernel: bool


@dataclass(frozen=True)
class Daemon:
    """`pods` are network namespaces by the sandbox's id: a path, or "" where it knows none."""

    pods: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Held] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A container's cgroup."""

    pids: frozenset[int]
    frozen: bool


@dataclass(frozen=True)
class Network:
    """A pod's network namespace: eth0's addresses, and how many taps there are in it."""

    addresses: tuple[str, ...]
    taps: int


@dataclass(frozen=True)
class Kernel:
    """Cgroups and mounted root file systems by container, network namespaces by path."""

    groups: dict[str, Group] = field(default_factory=dict)
    rootfs: frozenset[str] = frozenset()
    networks: dict[str, Network] = field(default_factory=dict)


def differences(containerd: Containerd, daemon: Daemon, kernel: Kernel) -> list[str]:
    """Sentences, none where all three agree."""
    return [
        *_pods(containerd, daemon),
        *_containers(containerd, daemon),
        *_tasks(containerd, daemon),
        *_processes(daemon, kernel),
        *_networks(containerd, daemon, kernel),
    ]


def without_ghosts(containerd: Containerd, daemon: Daemon) -> Daemon:
    """The daemon's view without containers that have ended and containerd has forgotten, and pods of such alone."""
    containers = {
        identifier: held
        for identifier, held in daemon.containers.items()
        if held.task.status != "stopped" or identifier in containerd.containers or identifier in containerd.pods
    }
    homes = {held.pod for held in containers.values()}
    return Daemon(
        {pod: path for pod, path in daemon.pods.items() if pod in homes or pod in containerd.pods}, containers
    )


def _pods(containerd: Containerd, daemon: Daemon) -> Iterator[str]:
    for pod, sandbox in containerd.pods.items():
        if sandbox.ready and pod not in daemon.pods:
            yield f"pod {pod} is ready, and the daemon has none of it"
    for pod in daemon.pods:
        known = containerd.pods.get(pod)
        if known is None:
            yield f"the daemon has pod {pod}, which CRI has not"
        elif known.pause and not known.ready:
            yield f"the daemon has pod {pod}, whose pause container has ended"


def _containers(containerd: Containerd, daemon: Daemon) -> Iterator[str]:
    for identifier, listed in containerd.containers.items():
        held = daemon.containers.get(identifier)
        # CRI's created container has no task yet; an exited one's has been deleted.
        if listed.state == "running" and (held is None or held.task.status not in ("running", "paused")):
            yield f"container {identifier} runs, and the daemon has it {held.task.status if held else 'not at all'}"
        if listed.state != "running" and held is not None:
            yield f"container {identifier} is {listed.state}, and the daemon has it {held.task.status}"
        if held is not None and held.pod != listed.pod:
            yield f"container {identifier} is of pod {listed.pod}, and the daemon has it in {held.pod}"
    for identifier, held in daemon.containers.items():
        pause = containerd.pods.get(identifier)
        if identifier not in containerd.containers and not (pause is not None and pause.pause):
            yield f"the daemon has container {identifier} ({held.task.status}), which CRI has not"
        if held.task.status != held.asked.status or held.task.pid != held.asked.pid:
            yield f"container {identifier}: Inspect says {held.task}, State says {held.asked}"


def _tasks(containerd: Containerd, daemon: Daemon) -> Iterator[str]:
    for identifier, task in containerd.tasks.items():
        held = daemon.containers.get(identifier)
        if held is None:
            # containerd keeps a task whose shim it has lost until its container is removed, and calls it unknown.
            if task.status in LIVING:
                yield f"task {identifier} is {task.status}, and the daemon has none of it"
        elif (held.task.status, held.task.pid) != (task.status, task.pid):
            yield f"task {identifier} is {task}, and the daemon has {held.task}"
    for identifier, held in daemon.containers.items():
        if identifier not in containerd.tasks:
            yield f"the daemon has container {identifier} ({held.task.status}), of which containerd has no task"


def _processes(daemon: Daemon, kernel: Kernel) -> Iterator[str]:
    for identifier, held in daemon.containers.items():
        group = kernel.groups.get(identifier)
        alive = group is not None and held.task.pid in group.pids
        if held.task.status in LIVING and not alive:
            yield f"container {identifier} is {held.task.status}, and its process {held.task.pid} is not in its cgroup"
        if held.task.status == "stopped" and group is not None and group.pids:
            yield f"container {identifier} is stopped, and {sorted(group.pids)} run in its cgroup"
        if group is not None and group.pids and group.frozen != (held.task.status == "paused"):
            yield f"container {identifier} is {held.task.status}, its cgroup {'frozen' if group.frozen else 'thawed'}"
        if identifier not in kernel.rootfs:
            yield f"container {identifier} has no root file system mounted"
    for identifier, group in kernel.groups.items():
        if identifier not in daemon.containers:
            yield f"the cgroup of {identifier} is there with {sorted(group.pids)}, and the daemon has no such container"
    for identifier in sorted(kernel.rootfs - daemon.containers.keys()):
        yield f"the root file system of {identifier} is mounted, and the daemon has no such container"


def _networks(containerd: Containerd, daemon: Daemon, kernel: Kernel) -> Iterator[str]:
    known = set()
    for pod, path in daemon.pods.items():
        if pod not in containerd.pods or not containerd.pods[pod].ready:
            continue
        known.add(path)
        network = kernel.networks.get(path)
        if network is None:
            yield f"pod {pod} is ready, and its network namespace {path!r} is not there"
            continue
        guests = [
            held for held in daemon.containers.values() if held.pod == pod and held.unikernel and _lives(held.task)
        ]
        if len(guests) > 1:
            yield f"pod {pod} has {len(guests)} unikernels"
        if bool(network.addresses) == bool(guests):
            has = ", ".join(network.addresses) or "no address"
            yield f"pod {pod}'s eth0 has {has}, and {'a' if guests else 'no'} unikernel runs in it"
        if network.taps != len(guests):
            yield f"pod {pod} has {network.taps} taps and {len(guests)} unikernels"
    for path in sorted(kernel.networks.keys() - known):
        yield f"the network namespace {path} is there, and is no ready pod's"


def _lives(task: Task) -> bool:
    return task.status in LIVING
