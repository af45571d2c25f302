"""Publishing events to containerd: in order, again and again while it is away, and never in a caller's way."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from shim import log
from shim.errors import Code, ShimError, WrongState

_log = log.get(__name__)

CAPACITY: Final = 16384  # events kept for one containerd that is away; beyond that the oldest are dropped and counted
# It is away, or stopping: the same event is good when it is back.
_AWAY = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED)
# The event itself is refused, and would be the next time.
_MALFORMED = (
    Code.INVALID_ARGUMENT,
    Code.FAILED_PRECONDITION,
    Code.OUT_OF_RANGE,
    Code.UNIMPLEMENTED,
    Code.RESOURCE_EXHAUSTED,  # larger than a message may be
)
_ATTEMPTS = 5  # for any other failure, as containerd's own shim publisher allows


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
    CHECKPOINTED: Final = "/tasks/checkpointed"


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


class Pauses(msgspec.Struct, frozen=True):
    """Seconds between attempts: the first pause, which doubles up to the longest."""

    first: float = 0.05
    longest: float = 5.0


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one destination: how many events, when the oldest happened (ns since the epoch, 0 without any),
    and how many were delivered before."""

    destination: str
    length: int
    oldest: int
    delivered: int


class _Lane:
    """The queue to one destination and the task that empties it."""

    def __init__(
        self, destination: str, sender: Sender, capacity: int, pauses: Pauses, resync: Callable[[str], None]
    ) -> None:
        self._destination = destination
        self._resync = resync
        self._lost = False
        self._sender = sender
        self._capacity = capacity
        self._pauses = pauses
        self._queue: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.dropped = 0
        self._delivered = 0
        # In a context of its own: the ids that the first caller's log lines are bound to are not the lane's.
        self._task = asyncio.get_running_loop().create_task(self._forward(), context=contextvars.Context())

    def put(self, event: Event) -> None:
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self.dropped += 1
            self._lost = True
        self._queue.append(event)
        self._empty.clear()
        self._arrived.set()

    async def _forward(self) -> None:
        while True:
            await self._arrived.wait()
            event = self._queue[0]
            if not await self._deliver(event):
                self.dropped += 1
            # By identity: a full queue may have dropped it meanwhile.
            if self._queue and self._queue[0] is event:
                self._queue.popleft()
            if not self._queue and self._lost:
                _log.warning("events were dropped: telling the present state", destination=self._destination)
                self._resync(self._destination)
                self._lost = False  # also where that did not fit: it would not fit the next time
            if not self._queue:
                self._arrived.clear()
                self._empty.set()

    async def _deliver(self, event: Event) -> bool:
        """Send one event until it is taken; False when it is given up."""
        pause, attempts = self._pauses.first, 0
        while True:
            try:
                await self._sender.send(event)
            except Exception as error:
                # Whatever it is, the events behind this one must still go out.
                code = error.code if isinstance(error, ShimError) else Code.INTERNAL
                attempts += code not in _AWAY
                if code in _MALFORMED or attempts >= _ATTEMPTS:
                    _log.error("event refused", topic=event.topic, destination=self._destination, error=str(error))
                    return False
                _log.debug("event delayed", topic=event.topic, destination=self._destination, error=str(error))
            else:
                self._delivered += 1
                return True
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._pauses.longest)
            if not self._queue or self._queue[0] is not event:
                # Too old: the full queue dropped it, and counted it, to make room.
                return True

    def look(self) -> Queue:
        oldest = self._queue[0].timestamp if self._queue else 0
        return Queue(destination=self._destination, length=len(self._queue), oldest=oldest, delivered=self._delivered)

    async def flush(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("events not delivered", destination=self._destination, count=len(self._queue))
        return not self._queue

    async def close(self, grace: float) -> None:
        await self.flush(grace)
        self.dropped += len(self._queue)
        self._task.cancel()
        await asyncio.wait([self._task])
        try:
            await self._sender.close()
        except Exception as error:
            _log.warning("sender not closed", destination=self._destination, error=str(error))


class Publisher:
    """One ordered, bounded queue per destination."""

    def __init__(
        self, connect: Callable[[str], Sender], *, capacity: int = CAPACITY, pauses: Pauses | None = None
    ) -> None:
        """`connect` makes the sender for an address; it does not block. `capacity` is in events per destination."""
        self._connect = connect
        #: Publishes the present state to a destination that is back after events for it had to be dropped.
        self.resync: Callable[[str], None] = lambda destination: None
        self._capacity = capacity
        self._pauses = pauses or Pauses()
        self._lanes: dict[str, _Lane] = {}
        self._homeless = 0
        self._closed = False

    def publish(self, destination: str, event: Event) -> None:
        """Queue an event, on the running loop; neither blocks nor raises."""
        try:
            self._lane(destination).put(event)
        except Exception as error:
            self._homeless += 1
            _log.error("event lost", topic=event.topic, destination=destination, error=str(error))

    def _lane(self, destination: str) -> _Lane:
        if self._closed:
            raise WrongState("the publisher is closed")
        if destination not in self._lanes:
            sender = self._connect(destination)
            self._lanes[destination] = _Lane(
                destination, sender, self._capacity, self._pauses, lambda where: self.resync(where)
            )
        return self._lanes[destination]

    @property
    def dropped(self) -> int:
        """Events that were given up, since the start."""
        return self._homeless + sum(lane.dropped for lane in self._lanes.values())

    def queues(self) -> list[Queue]:
        """Each destination's queue as it is now."""
        return [lane.look() for lane in self._lanes.values()]

    async def flush(self, timeout: float) -> bool:
        """Wait `timeout` seconds for what is queued to be delivered; whether it was."""
        return all(await asyncio.gather(*(lane.flush(timeout) for lane in self._lanes.values())))

    async def close(self, grace: float) -> None:
        """Deliver what can be delivered within `grace` seconds, count the rest as dropped, and stop."""
        if not self._closed:
            self._closed = True
            await asyncio.gather(*(lane.close(grace) for lane in self._lanes.values()))
