"""Following events: nothing is shown twice, and nothing is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shim.cli import client
from shim.cli.events import _Followed
from shim.wire import inspection_pb2 as pb


def told(at: int, what: str) -> pb.Event:
    event = pb.Event(what=what)
    event.at.FromNanoseconds(at)
    return event


async def followed(monkeypatch: pytest.MonkeyPatch, *connections: list[pb.Event]) -> list[str]:
    """What is shown of one connection after the other."""
    left = list(connections)

    @asynccontextmanager
    async def events(door: Path, request: pb.EventsRequest) -> AsyncIterator[AsyncIterator[pb.Event]]:
        async def each() -> AsyncIterator[pb.Event]:
            for event in left.pop(0):
                yield event

        yield each()

    monkeypatch.setattr(client, "events", events)
    shown: list[str] = []
    known = _Followed(Path("shim.sock"), "", lambda event: shown.append(event.what), spoken_of=True)
    for _ in connections:
        known.begin()
        assert await known.answered()
        assert known._task is not None
        await known._task
    return shown


async def test_a_connection_that_was_lost_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [told(1, "created"), told(2, "started")]
    assert await followed(monkeypatch, first, [*first, told(3, "exited")]) == ["created", "started", "exited"]


async def test_a_clock_that_is_set_back_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [told(50, "created"), told(10, "started"), pb.Event(what="missed"), told(11, "exited")]
    assert await followed(monkeypatch, events) == ["created", "started", "missed", "exited"]
