"""What a containerd must hear again that has missed events: not what happened, but what has become of it.

An exit is the one event that containerd cannot do without: without it a pod seems to run for ever. A deletion that was
missed was containerd's own call, whose answer it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shim.sandbox.container import Container
from shim.sandbox.occurrences import ExecStarted, Exited, Occurrence, Paused, Started, about
from shim.sandbox.process import Process
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

_BEGUN = (Status.RUNNING, Status.PAUSED, Status.STOPPED)


def present(sandboxes: Iterable[Sandbox], destination: str, default: str) -> Iterator[Occurrence]:
    """The state of every container whose events go to `destination`, as occurrences in the order that clients rely on;
    `default` is where those of a container go that names nobody."""
    for sandbox in sandboxes:
        for container in sandbox.containers.values():
            if (container.record.destination or default) == destination:
                yield from _present(container)


def _present(container: Container) -> Iterator[Occurrence]:
    common, init = about(container.record), container.init
    if init.status in _BEGUN:
        yield Started(**common, pid=init.pid)
    if init.status is Status.PAUSED:
        yield Paused(**common)
    for process in container.execs.values():
        if process.status in _BEGUN:
            yield ExecStarted(**common, process=process.name, pid=process.pid)
            yield from _ended(common, process)
    yield from _ended(common, init)


def _ended(common: dict[str, Any], process: Process) -> Iterator[Occurrence]:
    if process.status is Status.STOPPED:
        yield Exited(**common, process=process.name, pid=process.pid, exit=process.exit)
