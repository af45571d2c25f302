"""Publishing: in order, again and again, bounded, and never in a caller's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shim import errors
from shim.errors import ShimError
from shim.events import Event, Pauses, Publisher, Queue, Topic

_QUICK = Pauses(first=0.001, longest=0.004)


class Destination:
    """A sender that fails with what `failures` holds, one a call, and then takes what it is given."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.got: list[str] = []
        self.attempts = 0
        self.open = asyncio.Event()
        self.open.set()
        self.closed = False

    async def send(self, event: Event) -> None:
        self.attempts += 1
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.got.append(event.topic)

    async def close(self) -> None:
        self.closed = True


def _event(name: object) -> Event:
    return Event(namespace="k8s.io", topic=str(name), type_url="containerd.events.TaskStart", value=b"")


def _publisher(*destinations: Destination, capacity: int = 100) -> Publisher:
    by_name = dict(zip("abc", destinations, strict=False))
    return Publisher(lambda address: by_name[address], capacity=capacity, pauses=_QUICK)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_topics_are_containerds() -> None:
    topics = {value for name, value in vars(Topic).items() if name.isupper()}
    names = "create start exit delete exec-added exec-started oom paused resumed checkpointed"
    assert topics == {f"/tasks/{name}" for name in names.split()}


async def test_events_go_out_in_order() -> None:
    a = Destination()
    publisher = _publisher(a)
    for number in range(50):
        publisher.publish("a", _event(number))
    assert a.got == []  # nothing is sent in the caller's turn
    assert await publisher.flush(5)
    assert a.got == [str(number) for number in range(50)]
    await publisher.close(1)
    assert a.closed


@pytest.mark.parametrize("failure", [errors.Unreachable("away"), errors.TimedOut("slow")], ids=["away", "slow"])
async def test_what_cannot_be_sent_now_is_sent_later_and_in_order(failure: ShimError) -> None:
    a = Destination(*[failure] * 40)
    publisher = _publisher(a)
    for number in range(3):
        publisher.publish("a", _event(number))
    assert await publisher.flush(5)
    assert (a.got, a.attempts, publisher.dropped) == (["0", "1", "2"], 43, 0)
    await publisher.close(1)


async def test_pauses_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    really = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await really(0)

    monkeypatch.setattr("shim.events.asyncio.sleep", sleep)
    a = Destination(*[errors.Unreachable("away")] * 5)
    publisher = Publisher(lambda _: a, pauses=Pauses(1, 4))
    publisher.publish("a", _event(0))
    assert await publisher.flush(5)
    assert pauses == [1, 2, 4, 4, 4]
    a.failures = [errors.Unreachable("away")]
    publisher.publish("a", _event(1))
    assert await publisher.flush(5)
    assert pauses[5:] == [1]  # from the beginning again
    await publisher.close(1)


@pytest.mark.parametrize(
    "failure",
    [errors.InvalidRequest("bad"), errors.WrongState("bad"), errors.Unsupported("bad"), errors.Exhausted("too large")],
    ids=lambda error: type(error).__name__,
)
async def test_a_malformed_event_is_dropped_and_counted_at_once(failure: ShimError) -> None:
    a = Destination(failure)
    publisher = _publisher(a)
    for name in ("bad", "good"):
        publisher.publish("a", _event(name))
    assert await publisher.flush(5)
    assert (a.got, a.attempts, publisher.dropped) == (["good"], 2, 1)
    await publisher.close(1)


@pytest.mark.parametrize("failure", [errors.Unexpected("hm"), errors.Bug("hm"), RuntimeError("hm"), OSError("hm")])
async def test_an_unclear_failure_is_tried_five_times(failure: Exception) -> None:
    a = Destination(*[failure] * 5)
    publisher = _publisher(a)
    for name in ("bad", "good"):
        publisher.publish("a", _event(name))
    assert await publisher.flush(5)
    assert (a.got, a.attempts, publisher.dropped) == (["good"], 6, 1)
    await publisher.close(1)


async def test_what_waits_can_be_looked_at() -> None:
    a, b = Destination(), Destination()
    publisher = _publisher(a, b)
    a.open.clear()
    events = [_event(number) for number in range(3)]
    for event in events:
        publisher.publish("a", event)
    publisher.publish("b", events[0])
    await _until(lambda: bool(b.got))
    await asyncio.sleep(0)
    assert publisher.queues() == [
        Queue(destination="a", length=3, oldest=events[0].timestamp, delivered=0),
        Queue(destination="b", length=0, oldest=0, delivered=1),
    ]
    a.open.set()
    assert await publisher.flush(5)
    assert [(queue.length, queue.delivered) for queue in publisher.queues()] == [(0, 3), (0, 1)]
    await publisher.close(1)


async def test_being_away_does_not_use_up_the_attempts() -> None:
    a = Destination(*[errors.Unexpected("hm")] * 4, *[errors.Unreachable("away")] * 20)
    publisher = _publisher(a)
    publisher.publish("a", _event("kept"))
    assert await publisher.flush(5)
    assert (a.got, publisher.dropped) == (["kept"], 0)
    await publisher.close(1)


async def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    a = Destination(*[errors.Unreachable("away")] * 3)
    publisher = _publisher(a, capacity=4)
    for number in range(10):
        publisher.publish("a", _event(number))
    assert publisher.dropped == 6
    assert await publisher.flush(5)
    assert a.got == ["6", "7", "8", "9"]
    await publisher.close(1)


async def test_who_missed_events_is_told_the_present_state_once_it_is_back() -> None:
    a, b = Destination(*[errors.Unreachable("away")] * 3), Destination()
    publisher = _publisher(a, b, capacity=4)
    asked: list[str] = []

    def resync(destination: str) -> None:
        asked.append(destination)
        for number in range(6):  # more than there is room for: that is no reason to begin again
            publisher.publish(destination, _event(f"present {number}"))

    publisher.resync = resync
    publisher.publish("b", _event("b"))
    for number in range(10):
        publisher.publish("a", _event(number))
    await _until(lambda: len(a.got) == 8)
    assert await publisher.flush(5)
    assert a.got == ["6", "7", "8", "9", *(f"present {number}" for number in range(2, 6))]
    assert asked == ["a"] and b.got == ["b"]
    await publisher.close(1)


async def test_dropping_the_one_that_is_being_sent_loses_no_other() -> None:
    a = Destination(errors.Unreachable("away"))
    a.open.clear()
    publisher = _publisher(a, capacity=2)
    publisher.publish("a", _event(0))
    await _until(lambda: a.attempts == 1)
    for number in (1, 2):
        publisher.publish("a", _event(number))
    assert publisher.dropped == 1  # 0, which is on its way, and then fails
    a.open.set()
    assert await publisher.flush(5)
    assert (a.got, publisher.dropped) == (["1", "2"], 1)
    await publisher.close(1)


async def test_one_destination_that_is_away_holds_up_no_other() -> None:
    a, b = Destination(), Destination()
    a.open.clear()
    publisher = _publisher(a, b)
    publisher.publish("a", _event("a"))
    publisher.publish("b", _event("b"))
    await _until(lambda: b.got == ["b"])
    assert not await publisher.flush(0.01)
    a.open.set()
    assert await publisher.flush(5)
    await publisher.close(1)


async def test_flush_and_close_do_not_wait_longer_than_told_and_the_rest_is_counted() -> None:
    a = Destination()
    a.open.clear()
    publisher = _publisher(a)
    for number in range(3):
        publisher.publish("a", _event(number))
    assert not await publisher.flush(0.01)
    await publisher.close(0.01)
    assert (publisher.dropped, a.closed) == (3, True)


async def test_publishing_never_raises() -> None:
    publisher = _publisher()
    publisher.publish("nowhere", _event(0))  # no sender can be made
    assert publisher.dropped == 1
    await publisher.close(1)
    publisher.publish("a", _event(1))  # too late
    assert publisher.dropped == 2
    await publisher.close(1)  # twice is harmless


def test_publishing_without_a_loop_does_not_raise_either() -> None:
    publisher = Publisher(lambda _: asyncio.run(_made()))
    publisher.publish("a", _event(0))
    assert publisher.dropped == 1


async def _made() -> Destination:
    return Destination()


async def test_flushing_nothing_is_done() -> None:
    publisher = _publisher()
    assert await publisher.flush(0)
    await publisher.close(0)
