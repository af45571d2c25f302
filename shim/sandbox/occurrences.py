"""What happens to containers, as the sandbox room says it; services turn these into containerd's events."""

from __future__ import annotations

import msgspec

from shim.oci.rootfs import Mount
from shim.process.reaper import Exit
from shim.process.stdio import Streams


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to `container` of `namespace`; `destination` is the containerd to tell ("" for the
    configured one)."""

    namespace: str
    container: str
    destination: str = ""


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
    """A process ended; `process` is the container's id for its init."""

    process: str
    pid: int
    exit: Exit


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
