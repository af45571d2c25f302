"""Services from descriptors, and what happens to a handler whose caller goes away."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from shim.errors import Bug, Unreachable
from shim.rpc.service import LIMIT, Call, Running, from_descriptor
from shim.wire import services_sandbox_v1_pb2, task_v2_pb2, task_v3_pb2
from tests.unit.rpc.echo import DESCRIPTOR, METHODS, NAME, Echo


def _call(seconds: float | None = None) -> Call:
    deadline = None if seconds is None else time.monotonic() + seconds
    return Call(namespace="k8s.io", method="Echo/Slow", transport="ttrpc", deadline=deadline)


async def test_a_service_has_the_descriptors_methods(echo: Echo) -> None:
    service = echo.service
    assert (service.name, tuple(service.methods)) == (NAME, METHODS)  # Pour, whose requests alone stream, is left out
    assert {name: method.one_request for name, method in service.streams.items()} == {"Watch": True, "Chat": False}
    method = service.methods["CloseIO"]
    assert (method.request, method.response, method.handler) == (StringValue, StringValue, echo.close_io)
    assert [name for name, method in service.methods.items() if method.cancellable] == ["Wait"]


def test_a_missing_handler_is_found_at_start_up() -> None:
    class Empty:
        pass

    with pytest.raises(Bug, match=r"Empty: no handler echo for unikernel\.test\.v1\.Echo\.Echo"):
        from_descriptor(DESCRIPTOR, Empty())


async def test_a_handler_that_is_not_async_is_found_at_start_up(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "close_io", lambda request, call: StringValue())
    with pytest.raises(Bug, match="close_io is no coroutine function"):
        from_descriptor(DESCRIPTOR, echo)


async def test_a_misspelt_cancellable_is_found_at_start_up(echo: Echo) -> None:
    with pytest.raises(Bug, match="there are no methods Wiat"):
        from_descriptor(DESCRIPTOR, echo, cancellable={"Wiat"})


@pytest.mark.parametrize(
    ("descriptor", "names"),
    [
        (task_v3_pb2.DESCRIPTOR.services_by_name["Task"], {"create", "resize_pty", "close_io", "wait", "shutdown"}),
        (task_v2_pb2.DESCRIPTOR.services_by_name["Task"], {"create", "resize_pty", "close_io", "wait", "shutdown"}),
        (services_sandbox_v1_pb2.DESCRIPTOR.services_by_name["Controller"], {"create", "platform", "metrics"}),
    ],
    ids=lambda it: getattr(it, "full_name", ""),
)
def test_containerds_services_ask_for_snake_case(descriptor: object, names: set[str]) -> None:
    asked: set[str] = set()

    class Any:
        def __getattr__(self, name: str) -> object:
            asked.add(name)

            async def handler(request: object, call: Call) -> None: ...

            return handler

    from_descriptor(descriptor, Any())  # type: ignore[arg-type]
    assert names <= asked


async def test_the_caller_going_away_leaves_the_handler_to_finish(echo: Echo) -> None:
    running = Running()
    caller = asyncio.create_task(running.call(echo.service.methods["Slow"], StringValue(value="a"), _call()))
    await echo.started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    echo.gate.set()
    await running.drain(1)
    assert (echo.finished, echo.cancelled) == (["a"], [])


async def test_the_deadline_leaves_the_handler_to_finish(echo: Echo) -> None:
    running = Running()
    with pytest.raises(TimeoutError):
        await running.call(echo.service.methods["Slow"], StringValue(value="a"), _call(0.02))
    echo.gate.set()
    await running.drain(1)
    assert (echo.finished, echo.cancelled) == (["a"], [])


async def test_the_deadline_ends_what_is_cancellable(echo: Echo) -> None:
    with pytest.raises(TimeoutError):
        await Running().call(echo.service.methods["Wait"], StringValue(value="a"), _call(0.02))
    assert echo.cancelled == ["a"]


async def test_a_call_without_a_deadline_has_ours_unless_it_is_endless(echo: Echo) -> None:
    methods = from_descriptor(DESCRIPTOR, echo, cancellable={"Wait"}, endless={"Wait"}).methods
    assert (methods["Slow"].limit, methods["Wait"].limit) == (LIMIT, None)
    with pytest.raises(TimeoutError):
        await Running().call(replace(methods["Slow"], limit=0.02), StringValue(value="a"), _call(None))
    endless = asyncio.ensure_future(Running().call(methods["Wait"], StringValue(value="a"), _call(None)))
    await asyncio.sleep(0.05)
    assert not endless.done()
    endless.cancel()


async def test_nothing_is_started_after_the_deadline(echo: Echo) -> None:
    with pytest.raises(TimeoutError):
        await Running().call(echo.service.methods["Slow"], StringValue(), _call(-1))
    await asyncio.sleep(0)
    assert not echo.started.is_set()


async def test_an_abandoned_handlers_failure_is_logged(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr("shim.rpc.service.outward", lambda error, method: told.append((str(error), method)))

    async def slow(request: StringValue, call: Call) -> StringValue:
        await echo.gate.wait()
        raise RuntimeError("half way")

    echo.slow = slow  # type: ignore[method-assign]
    running = Running()
    with pytest.raises(TimeoutError):
        await running.call(echo.service.methods["Slow"], StringValue(), _call(0.02))
    echo.gate.set()
    await running.drain(1)
    await asyncio.sleep(0)
    assert told == [("half way", "Echo/Slow")]


async def test_drain_ends_waiters_at_once_and_waits_for_the_rest(echo: Echo) -> None:
    running, methods = Running(), echo.service.methods
    waiter = asyncio.create_task(running.call(methods["Wait"], StringValue(value="waiter"), _call()))
    worker = asyncio.create_task(running.call(methods["Slow"], StringValue(value="worker"), _call()))
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(running.drain(5))
    with pytest.raises(Unreachable, match="cut off"):
        await waiter
    assert not draining.done()
    echo.gate.set()
    assert await worker == StringValue(value="worker")
    await draining
    assert echo.cancelled == ["waiter"]


async def test_drain_cuts_off_what_outlasts_its_grace(echo: Echo) -> None:
    running = Running()
    worker = asyncio.create_task(running.call(echo.service.methods["Slow"], StringValue(value="worker"), _call()))
    await echo.started.wait()
    await running.drain(0.02)
    with pytest.raises(Unreachable, match="cut off"):
        await worker
    assert echo.cancelled == ["worker"]


async def test_a_handler_that_answers_with_another_message_is_a_bug(echo: Echo) -> None:
    with pytest.raises(Bug, match="answered with Empty, not StringValue"):
        await Running().call(echo.service.methods["Wrong"], StringValue(), _call())
