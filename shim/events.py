"""Publishing events to containerd: in order, again and again while it is away, and never in a caller's way."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from shim import log
from shim.errors import Code, ShimError

_log = log.get(__name__)

_QUEUE = 16384  # events kept for one containerd that is away; beyond that the oldest are dropped and counted
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds between attempts
# Codes that say "later"; any other answer would be the same the next time.
_LATER = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)


class Topic:
    """containerd's names for what happens to a task (containerd, core/runtime/events.go)."""

    CREATE: Final = "/tasks/create"
    START: Final = "/tasks/start"
    OOM: Final = "/tasks/oom"
    EXIT: Final = "/tasks/exit"
    DELETE: Final = "/tasks/delete"
    EXEC_ADDED: Final = "/tasks/exec-added"
    EXEC_STARTED: Final = "/tasks/exec-started"
    PAUSED: Final = "/tasks/paused"
    RESUMED: Final = "/tasks/resumed"


def _now() -> int:
    return time.time_ns()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `type_url` is the message's full name, `value` its bytes, `timestamp` in ns since the epoch."""

    namespace: str
    topic: str
    type_url: str
    value: bytes
    timestamp: int = msgspec.field(default_factory=_now)


class Sender(Protocol):
    """A way to one containerd."""

    async def send(self, event: Event) -> None:
        """Forward one event. Raises ShimError; UNAVAILABLE means "try again"."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class _Lane:
    """The queue to one destination and the task that empties it."""

    def __init__(self, destination: str, sender: Sender) -> None:
        self._destination = destination
        self._sender = sender
        self._queue: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.dropped = 0
        self._task = asyncio.ensure_future(self._forward())

    def put(self, event: Event) -> None:
        if len(self._queue) >= _QUEUE:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)
        self._empty.clear()
        self._arrived.set()

    async def _forward(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._arrived.wait()
            event = self._queue[0]
            try:
                await self._sender.send(event)
            except ShimError as error:
                if error.code in _LATER:
                    _log.debug("event delayed", topic=event.topic, destination=self._destination, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                self.dropped += 1
                _log.error("event refused", topic=event.topic, destination=self._destination, error=str(error))
            pause = _FIRST_PAUSE
            # By identity: a full queue may have dropped it meanwhile.
            if self._queue and self._queue[0] is event:
                self._queue.popleft()
            if not self._queue:
                self._arrived.clear()
                self._empty.set()

    async def close(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("events not delivered", destination=self._destination, count=len(self._queue))
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._sender.close()


class Publisher:
    """One ordered, bounded queue per destination."""

    def __init__(self, connect: Callable[[str], Sender]) -> None:
        """`connect` makes the sender for an address; it does not block."""
        self._connect = connect
        self._lanes: dict[str, _Lane] = {}

    def publish(self, destination: str, event: Event) -> None:
        """Queue an event; neither blocks nor raises."""
        if destination not in self._lanes:
            self._lanes[destination] = _Lane(destination, self._connect(destination))
        self._lanes[destination].put(event)

    @property
    def dropped(self) -> int:
        """Events that were given up, since the start."""
        return sum(lane.dropped for lane in self._lanes.values())

    async def close(self, grace: float) -> None:
        """Deliver what can be delivered within `grace` seconds, and stop."""
        await asyncio.gather(*(lane.close(grace) for lane in self._lanes.values()))
        self._lanes.clear()
