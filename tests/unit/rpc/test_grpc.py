"""The gRPC door: our services, health and reflection on one socket."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from shim import errors
from shim.rpc import unix
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.splice import Splice
from tests.unit.rpc.echo import NAME, Echo

_MEGABYTE = 1 << 20


@pytest.fixture
async def server(echo: Echo, room: Path) -> AsyncIterator[GrpcServer]:
    server = GrpcServer([echo.service])
    await server.start(room / "g")
    yield server
    echo.gate.set()
    await server.stop(1)


@pytest.fixture
async def channel(server: GrpcServer, room: Path) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"unix:{room / 'g'}", options=options) as channel:
        yield channel


def _call(
    channel: grpc.aio.Channel,
    method: str,
    value: str | bytes = "a",
    timeout: float | None = 10,
    metadata: tuple[tuple[str, str | bytes], ...] = (),
    service: str = NAME,
) -> grpc.aio.UnaryUnaryCall[bytes, StringValue]:
    request = value if isinstance(value, bytes) else StringValue(value=value).SerializeToString()
    multi: grpc.aio.UnaryUnaryMultiCallable[bytes, StringValue] = channel.unary_unary(
        f"/{service}/{method}", response_deserializer=StringValue.FromString
    )
    return multi(request, timeout=timeout, metadata=metadata)


def _stub(kind: Callable[[Any], object], channel: grpc.aio.Channel) -> Any:
    # The stubs' types know nothing of grpc.aio.
    return kind(channel)


async def _status(call: grpc.aio.UnaryUnaryCall[bytes, StringValue]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_call_carries_what_a_handler_may_know(channel: grpc.aio.Channel, echo: Echo) -> None:
    metadata = (("containerd-namespace", "k8s.io"), ("trace", "1"), ("raw-bin", b"\xff"))
    assert (await _call(channel, "Echo", "hello", timeout=60, metadata=metadata)).value == "hello"
    (call,) = echo.calls
    assert (call.namespace, call.method, call.transport) == ("k8s.io", f"{NAME}/Echo", "grpc")
    assert call.metadata["trace"] == "1"
    assert "raw-bin" not in call.metadata
    assert call.peer_pid is None
    assert call.deadline is not None
    assert 50 < call.deadline - asyncio.get_running_loop().time() < 61


async def test_a_call_without_a_namespace_or_deadline(channel: grpc.aio.Channel, echo: Echo) -> None:
    await _call(channel, "Echo", timeout=None)
    assert (echo.calls[0].namespace, echo.calls[0].deadline) == ("", None)


async def test_sixty_four_calls_at_once(channel: grpc.aio.Channel) -> None:
    values = [str(number) for number in range(64)]
    answers = await asyncio.gather(*(_call(channel, "Echo", value) for value in values))
    assert [answer.value for answer in answers] == values


@pytest.mark.parametrize(
    ("method", "value", "code", "text"),
    [
        ("Fail", "not found", grpc.StatusCode.NOT_FOUND, "c1: no such container; list them"),
        ("Fail", "timeout", grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the call was done"),
        ("Fail", "boom", grpc.StatusCode.INTERNAL, "unexpected RuntimeError: boom"),
        ("Fail", "\U0001f600" * 5000, grpc.StatusCode.INTERNAL, "unexpected RuntimeError: \U0001f600"),
        ("Wrong", "", grpc.StatusCode.INTERNAL, f"{NAME}/Wrong: answered with Empty, not StringValue"),
        ("Cut", "", grpc.StatusCode.UNAVAILABLE, "the call was cut off"),
        ("Echo", b"\x0a\xff", grpc.StatusCode.INVALID_ARGUMENT, f"the request of {NAME}/Echo cannot be decoded"),
        ("Nope", "", grpc.StatusCode.UNIMPLEMENTED, ""),
        ("Pour", "", grpc.StatusCode.UNIMPLEMENTED, ""),
        ("Large", str(16 * _MEGABYTE), grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
        ("Echo", "x" * (16 * _MEGABYTE), grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
    ],
)
async def test_every_failure_has_an_answer(
    channel: grpc.aio.Channel, method: str, value: str | bytes, code: grpc.StatusCode, text: str
) -> None:
    found, details = await _status(_call(channel, method, value))
    assert found is code
    assert details.startswith(text)
    assert (await _call(channel, "Echo")).value == "a"


async def test_an_unknown_service(channel: grpc.aio.Channel) -> None:
    assert (await _status(_call(channel, "Echo", service="other.v1.Other")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_of_fifteen_megabytes_passes(channel: grpc.aio.Channel) -> None:
    assert len((await _call(channel, "Large", str(15 * _MEGABYTE))).value) == 15 * _MEGABYTE


async def test_the_deadline_leaves_the_handler_to_finish(
    server: GrpcServer, channel: grpc.aio.Channel, echo: Echo
) -> None:
    assert (await _status(_call(channel, "Slow", "late", timeout=0.05)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    echo.gate.set()
    await server._running.drain(1)
    assert (echo.finished, echo.cancelled) == (["late"], [])


async def test_the_caller_going_away_leaves_the_handler_to_finish(
    server: GrpcServer, channel: grpc.aio.Channel, echo: Echo
) -> None:
    kept, waiter = _call(channel, "Slow", "kept"), _call(channel, "Wait", "waiter")
    await _until(lambda: len(server._running._tasks) == 2)
    kept.cancel()
    waiter.cancel()
    await _until(lambda: echo.cancelled == ["waiter"])
    echo.gate.set()
    await server._running.drain(1)
    assert (echo.finished, echo.cancelled) == (["kept"], ["waiter"])


async def test_health_is_per_service(channel: grpc.aio.Channel) -> None:
    health = _stub(health_pb2_grpc.HealthStub, channel)
    for name in ("", NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="other.v1.Other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_says_when_we_stop(server: GrpcServer, channel: grpc.aio.Channel, echo: Echo) -> None:
    watch = _stub(health_pb2_grpc.HealthStub, channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(server.stop(0.3))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await stopping


async def test_reflection_knows_the_services_and_no_others(channel: grpc.aio.Channel) -> None:
    def asking() -> list[reflection_pb2.ServerReflectionRequest]:
        return [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAME),
        ]

    stub = _stub(reflection_pb2_grpc.ServerReflectionStub, channel)
    listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(asking()))]
    assert {service.name for service in listed.list_services_response.service} == {
        NAME,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    files = [FileDescriptorProto.FromString(file) for file in described.file_descriptor_response.file_descriptor_proto]
    assert "unikernel/test/v1/echo.proto" in [file.name for file in files]


async def test_the_socket_is_roots(server: GrpcServer, room: Path) -> None:
    assert stat.S_IMODE((room / "g").stat().st_mode) == 0o600
    assert os.listdir(room) == ["g"]


async def test_a_dead_socket_is_replaced(echo: Echo, room: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(room / "g"))
    server = GrpcServer([echo.service])
    await server.start(room / "g")
    async with grpc.aio.insecure_channel(f"unix:{room / 'g'}") as channel:
        assert (await _call(channel, "Echo")).value == "a"
    await server.stop(1)


async def test_a_second_server_is_told_of_the_first(server: GrpcServer, echo: Echo, room: Path) -> None:
    with pytest.raises(errors.NodeFault, match="another service answers here"):
        await GrpcServer([echo.service]).start(room / "g")


async def test_a_path_that_is_too_long(echo: Echo, room: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="107 bytes at most"):
        await GrpcServer([echo.service]).start(room / ("x" * 107))


async def test_stop_lets_a_call_finish_and_tells_waiters(
    server: GrpcServer, channel: grpc.aio.Channel, echo: Echo
) -> None:
    slow, waiter = _call(channel, "Slow", "slow"), _call(channel, "Wait", "waiter")
    await _until(lambda: len(server._running._tasks) == 2)
    stopping = asyncio.create_task(server.stop(5))
    assert (await _status(waiter))[0] is grpc.StatusCode.UNAVAILABLE
    assert not stopping.done()
    echo.gate.set()
    assert (await slow).value == "slow"
    await stopping


async def test_stop_closes_what_outlasts_its_grace(
    server: GrpcServer, channel: grpc.aio.Channel, echo: Echo, room: Path
) -> None:
    slow = _call(channel, "Slow", "slow")
    await _until(echo.started.is_set)
    await server.stop(0.05)
    assert (await _status(slow))[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert echo.cancelled == ["slow"]
    assert os.listdir(room) == []
    await server.stop(1)  # twice is harmless


async def test_stopping_leaves_a_successors_socket(server: GrpcServer, echo: Echo, room: Path) -> None:
    (room / "g").rename(room / "old")
    successor = GrpcServer([echo.service])
    await successor.start(room / "g")
    await server.stop(1)
    async with grpc.aio.insecure_channel(f"unix:{room / 'g'}") as channel:
        assert (await _call(channel, "Echo")).value == "a"
    await successor.stop(1)


async def test_stop_before_start_is_harmless(echo: Echo) -> None:
    await GrpcServer([echo.service]).stop(1)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def _hold(path: Path) -> socket.socket:
    """A socket that listens at a path, bound there and not moved there, as systemd's is."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.fspath(path))
    made.listen()
    made.setblocking(False)
    return made


@pytest.fixture
async def held(echo: Echo, room: Path) -> AsyncIterator[tuple[GrpcServer, socket.socket]]:
    """A server at a socket that somebody else holds, as systemd does."""
    with _hold(room / "g.sock") as holder:
        server = GrpcServer([echo.service])
        await server.start(holder.dup())
        yield server, holder
        echo.gate.set()
        await server.stop(1)


async def test_a_socket_that_listens_already_is_served_and_left(
    held: tuple[GrpcServer, socket.socket], room: Path
) -> None:
    server, holder = held
    assert stat.S_IMODE((room / "g.grpc").stat().st_mode) == 0o600
    async with grpc.aio.insecure_channel(f"unix:{room / 'g.sock'}") as channel:
        large = "x" * (8 * _MEGABYTE)
        answers = await asyncio.gather(*(_call(channel, "Echo", large[: 1 << shift]) for shift in range(22)))
        assert [len(answer.value) for answer in answers] == [1 << shift for shift in range(22)]
    await server.stop(1)
    assert (room / "g.sock").is_socket() and not (room / "g.grpc").exists()
    # Who connects now waits for the next server.
    async with grpc.aio.insecure_channel(f"unix:{room / 'g.sock'}") as channel:
        call = _call(channel, "Echo", "late")
        await asyncio.sleep(0.1)
        successor = GrpcServer([Echo().service])
        await successor.start(holder.dup())
        assert (await call).value == "late"
        await successor.stop(1)


async def test_a_call_under_way_is_finished_over_a_held_socket(
    held: tuple[GrpcServer, socket.socket], echo: Echo, room: Path
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{room / 'g.sock'}") as channel:
        call = _call(channel, "Slow", "a")
        await echo.started.wait()
        stopping = asyncio.ensure_future(held[0].stop(5))
        await asyncio.sleep(0.05)
        echo.gate.set()
        assert (await call).value == "a"
        await stopping


async def test_nobody_but_root_passes_a_held_socket(
    held: tuple[GrpcServer, socket.socket], room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "peer", lambda connection: (1, os.geteuid() + 1))
    reader, writer = await asyncio.open_unix_connection(str(room / "g.sock"))
    assert await reader.read() == b""
    writer.close()


async def test_a_caller_of_a_held_socket_that_goes_away_takes_its_other_end_along(
    held: tuple[GrpcServer, socket.socket], room: Path
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        _, writer = await asyncio.open_unix_connection(str(room / "g.sock"))
        writer.close()
    async with asyncio.timeout(5):
        while len(os.listdir("/proc/self/fd")) > descriptors:
            await asyncio.sleep(0.01)


async def test_a_held_socket_before_a_server_that_is_gone(room: Path) -> None:
    with _hold(room / "g.sock") as holder:
        splice = Splice(holder.dup(), room / "nobody")
        await splice.start()
        reader, writer = await asyncio.open_unix_connection(str(room / "g.sock"))
        assert await reader.read() == b""
        writer.close()
        splice.refuse()
        splice.stop()
