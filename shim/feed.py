"""From one who tells to any number who listen, none of whom can hold it up.

Each listener has a queue with a bound. What finds it full is dropped, and counted where it would have been: whoever
reads on is told how much is missing, and nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Missed(msgspec.Struct, frozen=True):
    """So much was dropped here, by the feed's measure."""

    count: int


class Listener(Generic[T]):
    """One listener's queue."""

    def __init__(self, capacity: int, weigh: Callable[[T], int]) -> None:
        self._capacity, self._weigh = capacity, weigh
        self._queue: deque[T | Missed] = deque()
        self._held = self._missed = 0
        self._over = False
        self._news = asyncio.Event()

    def put(self, item: T) -> None:
        """Queue it, or count it as missed."""
        weight = self._weigh(item)
        if self._held + weight > self._capacity:
            self._missed += weight
        else:
            self._note_missed()
            self._queue.append(item)
            self._held += weight
        self._news.set()

    def _note_missed(self) -> None:
        if self._missed:
            self._queue.append(Missed(self._missed))
            self._missed = 0

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._news.set()

    async def next(self) -> T | Missed | None:
        """What comes next; None once nothing more will. When it is cut off, nothing is lost."""
        while not self._queue:
            if self._missed:
                self._note_missed()
                break
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        item = self._queue.popleft()
        if not isinstance(item, Missed):
            self._held -= self._weigh(item)
        return item


class Feed(Generic[T]):
    """The telling end, on the running loop."""

    def __init__(self, capacity: int, weigh: Callable[[T], int] = lambda _: 1) -> None:
        """`capacity` is what a listener's queue holds, measured by `weigh`."""
        self._capacity, self._weigh = capacity, weigh
        self._listeners: set[Listener[T]] = set()
        self._closed = False

    def tell(self, item: T) -> None:
        """Tell everybody who listens; neither blocks nor raises."""
        for listener in self._listeners:
            listener.put(item)

    @contextmanager
    def listen(self, before: Iterable[T] = ()) -> Iterator[Listener[T]]:
        """Listen for as long as the context is open, first to what was told `before`."""
        listener = Listener(self._capacity, self._weigh)
        for item in before:
            listener.put(item)
        if self._closed:
            listener.end()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Nothing more will be told; harmless twice."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
