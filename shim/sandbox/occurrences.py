"""What happens to pods, as the sandbox room says it. Services make containerd's events of what concerns a task, and the
chronicle keeps all of it for operators."""

from __future__ import annotations

from typing import Any

import msgspec

from shim.oci.rootfs import Mount
from shim.process.reaper import Exit
from shim.process.stdio import Streams
from shim.sandbox.record import ContainerRecord


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in `namespace`, to `sandbox` or to a `container` in it ("" for the sandbox itself).

    `pod` has Kubernetes' namespace and the pod's name in it, "" outside Kubernetes; `destination` is the containerd to
    tell ("" for the configured one).
    """

    namespace: str = ""
    sandbox: str = ""
    pod: tuple[str, str] = ("", "")
    container: str = ""
    destination: str = ""


def about(record: ContainerRecord) -> dict[str, Any]:
    """What every occurrence says of the container."""
    return {
        "namespace": record.namespace,
        "sandbox": record.sandbox,
        "pod": record.pod,
        "container": record.container,
        "destination": record.destination,
    }


class Created(Occurrence, frozen=True, kw_only=True):
    """The container exists, its init blocked before the program."""

    pid: int
    bundle: str
    rootfs: tuple[Mount, ...]
    streams: Streams


class Started(Occurrence, frozen=True, kw_only=True):
    """The program runs."""

    pid: int


class ExecAdded(Occurrence, frozen=True, kw_only=True):
    """Another process was described."""

    process: str


class ExecStarted(Occurrence, frozen=True, kw_only=True):
    """That process runs."""

    process: str
    pid: int


class Exited(Occurrence, frozen=True, kw_only=True):
    """A process ended; `process` is the container's id for its init, `words` what a monitor last said on stderr."""

    process: str
    pid: int
    exit: Exit
    words: str = ""


class OutOfMemory(Occurrence, frozen=True, kw_only=True):
    """The kernel killed a process of the container for want of memory."""


class Deleted(Occurrence, frozen=True, kw_only=True):
    """The container is gone."""

    pid: int
    exit: Exit


class Paused(Occurrence, frozen=True, kw_only=True):
    """Every process of the container is frozen."""


class Resumed(Occurrence, frozen=True, kw_only=True):
    """They run again."""


# What follows containerd is not told: it is not a task's, or it was containerd's own call, which has its answer.


class SandboxCreated(Occurrence, frozen=True, kw_only=True):
    """A sandbox of the Sandbox API is known."""


class SandboxStarted(Occurrence, frozen=True, kw_only=True):
    """It takes containers."""


class SandboxStopped(Occurrence, frozen=True, kw_only=True):
    """Nothing of it runs any more."""


class SandboxRemoved(Occurrence, frozen=True, kw_only=True):
    """It is gone."""


class Plumbed(Occurrence, frozen=True, kw_only=True):
    """A guest was given its pod's network: its interfaces with their addresses, in so many seconds."""

    interfaces: tuple[str, ...]
    took: float


class Restored(Occurrence, frozen=True, kw_only=True):
    """The pod's interfaces have their configuration back."""


class Failed(Occurrence, frozen=True, kw_only=True):
    """The container could not be created, or could not be started: `call` says which, `error` why."""

    call: str
    error: str


class Checked(Occurrence, frozen=True, kw_only=True):
    """The guest was checked: of so many findings, what those that failed say."""

    findings: int
    failures: tuple[str, ...]


class Adopted(Occurrence, frozen=True, kw_only=True):
    """A daemon found the container of a former one; `alive` says whether its init lives."""

    pid: int
    alive: bool


class LeftoverRemoved(Occurrence, frozen=True, kw_only=True):
    """Something that a former daemon left was removed; `what` names it."""

    what: str
