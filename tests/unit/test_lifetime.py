"""How long the daemon of one pod lives: what it waits for, and what it does not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from shim import lifetime
from shim.lifetime import Lifetime, patience
from shim.rpc.service import Call, Method, Service
from shim.services.destinations import Destinations

QUIET: dict[str, Any] = {"calls": 0, "served": True, "quiet": 100.0, "announced": None, "connected": False}


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        ({}, 0),
        ({"quiet": 0.2}, 0.3),
        ({"calls": 1}, None),
        ({"served": False, "quiet": 1}, 9),
        ({"served": False, "quiet": 10}, 0),
        # containerd was told where to create a container.
        ({"announced": 1.0}, 29),
        ({"announced": 30.0}, 0),
        ({"announced": 29.9, "quiet": 0.1}, 0.4),
        # Whoever is connected may still call, but not for ever.
        ({"connected": True, "quiet": 1}, 0.5),
        ({"connected": True, "quiet": 3}, 0),
        ({"connected": True, "announced": 1.0, "quiet": 1}, 29),
    ],
)
def test_what_there_is_to_wait_for(state: dict[str, Any], seconds: float | None) -> None:
    found = patience(**{**QUIET, **state})
    assert found == (None if seconds is None else pytest.approx(seconds))


class Pod:
    """A daemon's surroundings, as a test sets them."""

    def __init__(self) -> None:
        self.empty, self.connected = True, False
        self.destinations = Destinations()
        self.lifetime = Lifetime(
            empty=lambda: self.empty,
            announced=lambda: self.destinations.announced,
            connected=lambda: self.connected,
        )
        self.release = asyncio.Event()
        methods = (
            Method("Work", Empty, Empty, self._work),
            Method("Fail", Empty, Empty, self._fail),
            Method("Wait", Empty, Empty, self._work, cancellable=True, limit=None),
        )
        self.service = self.lifetime.watch(Service("test", {method.name: method for method in methods}))

    async def _work(self, request: Any, call: Call) -> Empty:
        await self.release.wait()
        return Empty()

    async def _fail(self, request: Any, call: Call) -> Empty:
        raise RuntimeError("as it happens")

    def call(self, name: str) -> asyncio.Future[Any]:
        method = self.service.methods[name]
        return asyncio.ensure_future(method.handler(Empty(), Call("n", name, "ttrpc")))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LINGER", "_FIRST"):
        monkeypatch.setattr(lifetime, name, 0.05)


async def test_it_ends_after_a_call_and_not_during_one(quick: None) -> None:
    pod = Pod()
    over = asyncio.ensure_future(pod.lifetime.over())
    call = pod.call("Work")
    await asyncio.sleep(0.15)
    assert not over.done()
    pod.release.set()
    await call
    assert not over.done()
    await asyncio.wait_for(over, 2)
    assert pod.lifetime.left == 0


async def test_it_does_not_end_while_there_is_a_pod(quick: None) -> None:
    pod = Pod()
    pod.empty = False
    over = asyncio.ensure_future(pod.lifetime.over())
    with pytest.raises(RuntimeError):
        await pod.call("Fail")
    await asyncio.sleep(0.15)
    assert not over.done()
    # A pod goes in a call, whose end is looked at.
    pod.release.set()
    pod.empty = True
    await pod.call("Work")
    await asyncio.wait_for(over, 2)


async def test_a_call_that_may_wait_for_ever_does_not_keep_it(quick: None) -> None:
    pod = Pod()
    waiting = pod.call("Wait")
    await asyncio.wait_for(pod.lifetime.over(), 2)
    waiting.cancel()


async def test_it_waits_for_a_container_that_was_announced(quick: None) -> None:
    pod = Pod()
    pod.release.set()
    pod.destinations.learn("n", "c", "")
    await pod.call("Work")
    over = asyncio.ensure_future(pod.lifetime.over())
    await asyncio.sleep(0.15)
    assert not over.done()
    # It is being created, and that fails.
    pod.destinations.of("n", "c")
    await pod.call("Work")
    await asyncio.wait_for(over, 2)


def test_a_container_is_announced_until_it_comes_or_is_given_up() -> None:
    destinations = Destinations()
    assert destinations.announced == 0.0
    before = time.monotonic()
    destinations.learn("n", "a", "/c.sock.ttrpc")
    destinations.learn("n", "b", "")
    assert destinations.announced >= before
    assert destinations.of("n", "a") == "/c.sock.ttrpc"
    destinations.forget("n", "b")
    assert destinations.announced == 0.0
    assert destinations.of("n", "a") == "/c.sock.ttrpc"
