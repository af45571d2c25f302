"""The seam at which the service is measured: phases of a container's life, calls, and what is counted as it happens.

Whoever does the work says that it is a phase, and knows nobody who measures. Whoever measures (`metrics`, `tracing`) is
a Recorder, and knows nobody who works. Where nothing is configured there is no recorder, and a phase costs a look at an
empty tuple.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Protocol, Self


class Phase(enum.StrEnum):
    """What takes time between containerd's Create and the guest, and from the guest's end until nothing is left."""

    CREATE = "create"
    """All of a Create."""
    MOUNT = "mount"
    """The root file system."""
    RECOGNISE = "recognise"
    """Looking at the image: is it a unikernel, and which."""
    STORAGE = "storage"
    """Images of file systems and disks, made or found."""
    PLUMB = "plumb"
    """All of handing over the pod's network."""
    LAYOUT = "layout"
    """Reading it."""
    PLAN = "plan"
    """Deciding."""
    APPLY = "apply"
    """Changing it."""
    CONFIGURE = "configure"
    """The guest's words, the monitor's command line, the bundle."""
    ENGINE_CREATE = "engine_create"
    """The OCI runtime's create."""
    START = "start"
    """All of a Start."""
    ENGINE_START = "engine_start"
    """The OCI runtime's start; at its end the monitor is executed."""
    BOOT = "boot"
    """Telling a monitor its machine, over its control socket."""
    SETTLE = "settle"
    """Waiting whether the monitor dies at once."""
    EXIT = "exit"
    """What follows the end of a container's process, until it is told."""
    DISMANTLE = "dismantle"
    """Removing all that is left of a container."""
    ENGINE_DELETE = "engine_delete"
    """The OCI runtime's delete."""
    UNPLUMB = "unplumb"
    """Giving the pod its network back."""
    UNMOUNT = "unmount"
    """The root file system."""
    DISKS = "disks"
    """The disks that were the container's own."""


class Tally(enum.StrEnum):
    """What is counted, each by its kind."""

    RESTARTED = "restarted"
    """A container came into a pod that had one of its name before; kinds as `Container.kind`."""
    ADOPTED = "adopted"
    """A container that a former daemon made was taken over; kinds as `Container.kind`."""
    LEFTOVER = "leftover"
    """Something was removed that nobody would have asked for; kinds as `Leftover`."""


class Leftover(enum.StrEnum):
    """What daemons and engines that were killed leave behind."""

    CONTAINER = "container"
    TAP = "tap"
    MOUNT = "mount"
    DISK = "disk"
    CGROUP = "cgroup"
    PROCESS = "process"
    DIRECTORY = "directory"
    FIFO = "fifo"
    IMAGE = "image"


class Recording(Protocol):
    """One phase, or one call, that has begun. Neither method blocks or raises."""

    def note(self, notes: Mapping[str, str]) -> None:
        """Take down what is known of it: whom it is for, of what kind that is."""
        ...

    def end(self, seconds: float, error: BaseException | None) -> None:
        """It is over after `seconds`, by `error` where it failed. Called once, by the task that began it."""
        ...


class Recorder(Protocol):
    """Somebody who measures. No method blocks or raises."""

    def phase(self, phase: Phase) -> Recording:
        """A phase begins in the current task; whatever begins before its end in this task, or in one of its making,
        is part of it."""
        ...

    def call(self, method: str, transport: str, metadata: Mapping[str, str]) -> Recording:
        """A call of `method`, SERVICE/METHOD, comes in by gRPC or ttrpc with its caller's `metadata`."""
        ...

    def count(self, what: Tally, kind: str, by: int) -> None:
        """Called in any thread."""
        ...


class Span(Protocol):
    """What is being measured, as whoever does it sees it."""

    def note(self, **notes: str) -> None:
        """Say what is known of it by now."""
        ...


class _Nothing:
    """A span that nobody records."""

    __slots__ = ()

    def note(self, **notes: str) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


NOTHING: Final = _Nothing()


class _Timed:
    """A span that is recorded: a context manager for one use."""

    __slots__ = ("_begin", "_begun", "_notes", "_recordings")

    def __init__(self, begin: Callable[[Recorder], Recording], notes: Mapping[str, str]) -> None:
        self._begin, self._notes = begin, notes
        self._recordings: list[Recording] = []
        self._begun = 0.0

    def note(self, **notes: str) -> None:
        for recording in self._recordings:
            recording.note(notes)

    def __enter__(self) -> Self:
        self._recordings = [self._begin(recorder) for recorder in _recorders]
        if self._notes:
            self.note(**self._notes)
        self._begun = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._begun
        # The last that began ends first: one that made itself the task's current span puts back what was before it.
        for recording in reversed(self._recordings):
            recording.end(seconds, error)


_recorders: tuple[Recorder, ...] = ()


@contextlib.contextmanager
def recorded_by(*recorders: Recorder) -> Iterator[None]:
    """Have `recorders` told of all that begins in this process until the context ends."""
    global _recorders
    former, _recorders = _recorders, (*_recorders, *recorders)
    try:
        yield
    finally:
        _recorders = former


def phase(what: Phase, **notes: str) -> _Timed | _Nothing:
    """A context manager around a phase; its value takes what becomes known meanwhile (`note`).

    `notes` say whom it is for: `container`, `sandbox`, `namespace`, each an id.
    """
    return _Timed(lambda recorder: recorder.phase(what), notes) if _recorders else NOTHING


def call(method: str, transport: str, metadata: Mapping[str, str]) -> _Timed | _Nothing:
    """A context manager around the handling of a call; see `Recorder.call`."""
    return _Timed(lambda recorder: recorder.call(method, transport, metadata), {}) if _recorders else NOTHING


def count(what: Tally, kind: str, by: int = 1) -> None:
    """Something happened, `by` times; in any thread."""
    for recorder in _recorders:
        recorder.count(what, kind, by)
