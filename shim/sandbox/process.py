"""One process of a container, init or exec, as its callers see it."""

from __future__ import annotations

import asyncio
import time

from shim import log
from shim.errors import Bug
from shim.process.reaper import UNKNOWN_STATUS, Exit
from shim.process.stdio import Descriptors, Streams
from shim.process.terminal import Terminal
from shim.sandbox.state import Call, Status, may_become, require

_log = log.get(__name__)

#: What Wait and State report for the time before a process has ended.
NO_EXIT = Exit(0, 0)


class Process:
    """Status, pid, streams and the end of one process; decides nothing about how it is run."""

    def __init__(self, name: str, streams: Streams) -> None:
        """`name` is the exec id, or the container's id for its init."""
        self.name = name
        self.streams = streams
        self.pid = 0
        self.exit = NO_EXIT
        self.status = Status.CREATED
        self.descriptors: Descriptors | None = None
        self.terminal: Terminal | None = None
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Process {self.name} {self.status} pid={self.pid}>"

    def require(self, call: Call) -> None:
        """Raise Unexpected unless `call` is allowed now."""
        require(self.status, call, self.name)

    def become(self, status: Status) -> None:
        """The one place where the status changes. Raises Bug for a step the picture in `state` does not have."""
        if not may_become(self.status, status):
            raise Bug(f"a {self.status} process cannot become {status}", subject=self.name)
        _log.debug("process", name=self.name, pid=self.pid, was=self.status.value, now=status.value)
        if status is Status.RUNNING:
            self._ended.clear()  # an earlier start may have failed
        self.status = status

    def end(self, exit: Exit) -> None:
        """Record the end and wake every waiter."""
        self.exit = exit
        self.become(Status.STOPPED)
        self._ended.set()

    def never_ran(self) -> None:
        """End a process that was deleted before it was started."""
        if self.status is Status.CREATED:
            self.end(Exit(UNKNOWN_STATUS, time.time_ns()))

    def failed_to_start(self) -> None:
        """Wake every waiter of a process that a start could not make run; it may be started again."""
        self._ended.set()

    async def wait(self) -> Exit:
        """How the process ended; waits, also when it was not started yet. 255 for one that could not be started."""
        await self._ended.wait()
        return self.exit if self.status is not Status.CREATED else Exit(UNKNOWN_STATUS, time.time_ns())

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size; without a terminal there is nothing to do."""
        if self.terminal is not None:
            self.terminal.resize(width, height)

    def close_stdin(self) -> None:
        """Let the process see the end of its input."""
        if self.terminal is not None:
            self.terminal.close_stdin()
        if self.descriptors is not None:
            self.descriptors.close_stdin()

    async def close_streams(self, drain: float) -> None:
        """Relay what is left of a terminal's output, `drain` seconds at most, and close all streams."""
        if self.terminal is not None:
            await self.terminal.drain(drain)
            self.terminal.close()
            self.terminal = None
        if self.descriptors is not None:
            self.descriptors.close()
            self.descriptors = None
