"""The Streaming service through both doors: windows, back-pressure, refusals, and who waits for whom."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from shim.errors import AlreadyExists, InvalidRequest, TimedOut
from shim.process import streaming
from shim.process.streaming import Rendezvous
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.service import from_descriptor
from shim.rpc.status import inward
from shim.rpc.ttrpc_client import TtrpcClient
from shim.rpc.ttrpc_server import TtrpcServer
from shim.rpc.ttrpc_stream import TtrpcStream
from shim.services.streaming import StreamingService
from shim.services.wellknown import packed
from shim.wire import services_streaming_v1_pb2, types_transfer_pb2

_SERVICE = services_streaming_v1_pb2.DESCRIPTOR.services_by_name["Streaming"]
Data, WindowUpdate = types_transfer_pb2.Data, types_transfer_pb2.WindowUpdate


class GrpcStream:
    """A streaming call over gRPC, in the manner of our ttrpc client."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, message: Message) -> None:
        await self._call.write(message)

    async def receive(self) -> Any:
        try:
            answer = await self._call.read()
            if answer is grpc.aio.EOF and await self._call.code() is not grpc.StatusCode.OK:
                raise inward((await self._call.code()).value[0], await self._call.details())
        except grpc.aio.AioRpcError as error:
            raise inward(error.code().value[0], error.details() or "") from None
        return None if answer is grpc.aio.EOF else answer

    async def close(self) -> None:
        await self._call.done_writing()

    def drop(self) -> None:
        self._call.cancel()


class OverTtrpc:
    """A stream with a connection of its own, as containerd opens it."""

    def __init__(self, client: TtrpcClient) -> None:
        self.client = client
        self._stream: TtrpcStream = client.stream(_SERVICE.full_name, "Stream", AnyMessage)
        self.send, self.receive, self.close = self._stream.send, self._stream.receive, self._stream.close

    def drop(self) -> None:
        self.client.close()


Connect = Callable[[], Awaitable[Any]]


@pytest.fixture
def rendezvous(tmp_path: Path) -> Rendezvous:
    (tmp_path / "streams").mkdir()
    return Rendezvous(tmp_path / "streams")


@pytest.fixture(params=["ttrpc", "grpc"])
async def connect(request: pytest.FixtureRequest, rendezvous: Rendezvous, tmp_path: Path) -> AsyncIterator[Connect]:
    service = from_descriptor(_SERVICE, StreamingService(rendezvous))
    server: TtrpcServer | GrpcServer
    opened: list[Any] = []
    if request.param == "ttrpc":
        server = TtrpcServer([service])
        await server.start(tmp_path / "s")

        async def over_ttrpc() -> Any:
            opened.append(OverTtrpc(await TtrpcClient.connect(str(tmp_path / "s"))))
            return opened[-1]

        yield over_ttrpc
    else:
        server = GrpcServer([service])
        await server.start(tmp_path / "s")
        channel = grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}")
        multi: Any = channel.stream_stream(
            f"/{_SERVICE.full_name}/Stream",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=AnyMessage.FromString,
        )

        async def over_grpc() -> Any:
            opened.append(GrpcStream(multi()))
            return opened[-1]

        yield over_grpc
    for stream in opened:
        stream.drop()
    if request.param == "grpc":
        await channel.close()
    await server.stop(1)
    rendezvous.forget(("a",), ("in",))


async def opened(connect: Connect, id: str) -> Any:
    """A stream that was acknowledged."""
    stream = await connect()
    await stream.send(packed(services_streaming_v1_pb2.StreamInit(id=id)))
    answer = await asyncio.wait_for(stream.receive(), 5)
    assert answer.Is(Empty.DESCRIPTOR) or answer.type_url == "google.protobuf.Empty"
    return stream


async def data(stream: Any) -> bytes | None:
    message = await asyncio.wait_for(stream.receive(), 5)
    if message is None:
        return None
    assert message.type_url == "containerd.types.transfer.Data"
    return bytes(Data.FromString(message.value).data)


async def nothing(stream: Any) -> bool:
    """Whether nothing comes for a while; what comes later is not lost, so the stream is of no use afterwards."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.receive(), 0.1)
    return True


async def allow(stream: Any, size: int) -> None:
    await stream.send(packed(WindowUpdate(update=size)))


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_output_goes_as_far_as_the_window_and_no_further(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "a")
    child = rendezvous.outlet("a")
    os.write(child, b"0123456789")
    await allow(stream, 4)
    assert await data(stream) == b"0123"
    await allow(stream, 1)
    assert await data(stream) == b"4"
    await allow(stream, 100)
    assert await data(stream) == b"56789"
    os.close(child)
    assert await data(stream) is None


async def test_nothing_is_sent_before_it_is_allowed(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "a")
    child = rendezvous.outlet("a")
    os.write(child, b"x")
    assert await nothing(stream)
    os.close(child)


async def test_no_message_is_larger_than_containerd_reads_at_once(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "a")
    child = rendezvous.outlet("a")
    os.write(child, bytes(60_000))
    os.close(child)
    await allow(stream, 1 << 30)
    sizes = []
    while (chunk := await data(stream)) is not None:
        sizes.append(len(chunk))
    assert sum(sizes) == 60_000 and max(sizes) <= 32 << 10


async def test_a_window_may_be_opened_before_there_is_a_process(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "a")
    await allow(stream, 10)
    await asyncio.sleep(0.02)
    child = rendezvous.outlet("a")
    os.write(child, b"x")
    os.close(child)
    assert await data(stream) == b"x"
    assert await data(stream) is None


async def test_input_is_allowed_as_it_is_read(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "in")
    reading, guard = rendezvous.inlet("in")
    os.set_blocking(reading, False)
    sent, allowed, found = os.urandom(300_000), 0, b""
    position = 0
    async with asyncio.timeout(10):
        while len(found) < len(sent):
            while position < len(sent) and allowed:
                chunk = sent[position : position + min(allowed, 32 << 10)]
                await stream.send(packed(Data(data=chunk)))
                position, allowed = position + len(chunk), allowed - len(chunk)
            if position < len(sent) and not allowed:
                pending = asyncio.ensure_future(stream.receive())
                while not pending.done():
                    found += _read(reading)
                    await asyncio.sleep(0.001)
                update = WindowUpdate.FromString(pending.result().value).update
                assert 0 < update <= 64 << 10
                allowed += update
            found += _read(reading)
            await asyncio.sleep(0)
    assert found == sent
    await stream.close()
    await eventually(lambda: rendezvous._places["in"].end.over.is_set())  # type: ignore[union-attr]
    os.close(guard)
    assert os.read(reading, 1) == b""
    os.close(reading)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


async def test_more_input_than_was_allowed_is_refused(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "in")
    reading, guard = rendezvous.inlet("in")
    await stream.receive()
    await stream.send(packed(Data(data=bytes((64 << 10) + 1))))
    with pytest.raises(InvalidRequest, match="1 bytes too many: more was sent than the window allows"):
        await stream.receive()
    os.close(reading)
    os.close(guard)


async def test_a_lost_caller_is_not_the_end_of_input(connect: Connect, rendezvous: Rendezvous) -> None:
    """containerd was killed; it opens the stream again when it is back."""
    stream = await opened(connect, "in")
    reading, guard = rendezvous.inlet("in")
    os.close(guard)
    await stream.receive()
    await stream.send(packed(Data(data=b"one ")))
    assert await asyncio.to_thread(os.read, reading, 100) == b"one "
    stream.drop()
    await eventually(lambda: not rendezvous._places["in"].attached)
    again = await opened(connect, "in")
    await again.receive()
    await again.send(packed(Data(data=b"two")))
    assert await asyncio.to_thread(os.read, reading, 100) == b"two"
    await again.close()
    assert await asyncio.to_thread(os.read, reading, 100) == b""
    os.close(reading)


async def test_output_goes_on_where_a_lost_caller_had_it(connect: Connect, rendezvous: Rendezvous) -> None:
    stream = await opened(connect, "a")
    child = rendezvous.outlet("a")
    os.write(child, b"one two")
    await allow(stream, 4)
    assert await data(stream) == b"one "
    stream.drop()
    await eventually(lambda: not rendezvous._places["a"].attached)
    again = await opened(connect, "a")
    await allow(again, 100)
    assert await data(again) == b"two"
    os.close(child)
    assert await data(again) is None


@pytest.mark.parametrize("name", ["a", "in"])
async def test_a_second_caller_is_refused_while_the_first_lives(connect: Connect, name: str) -> None:
    first = await opened(connect, name)
    second = await connect()
    await second.send(packed(services_streaming_v1_pb2.StreamInit(id=name)))
    with pytest.raises(AlreadyExists, match=f"{name}: the stream is open"):
        await second.receive()
    assert await nothing(first)  # and the first goes on


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (packed(services_streaming_v1_pb2.StreamInit()), "not a stream id"),
        (packed(services_streaming_v1_pb2.StreamInit(id="../x")), "not a stream id"),
        (packed(services_streaming_v1_pb2.StreamInit(id="a" * 85)), "not a stream id"),
        (packed(Data(data=b"x")), "a containerd.services.streaming.v1.StreamInit was expected here"),
        (AnyMessage(), r"\(no type\)"),
        (AnyMessage(type_url="containerd.services.streaming.v1.StreamInit", value=b"\xff"), "this is no"),
    ],
)
async def test_a_beginning_that_makes_no_sense(connect: Connect, message: AnyMessage, text: str) -> None:
    stream = await connect()
    await stream.send(message)
    with pytest.raises(InvalidRequest, match=text):
        await stream.receive()


async def test_no_beginning(connect: Connect) -> None:
    stream = await connect()
    await stream.close()
    with pytest.raises(InvalidRequest, match="begins with a StreamInit"):
        await stream.receive()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (packed(WindowUpdate(update=-1)), "cannot shrink"),
        (packed(Data(data=b"x")), r"a containerd\.types\.transfer\.WindowUpdate was expected"),
        (packed(Empty()), "was expected"),
    ],
)
@pytest.mark.parametrize("claimed", [False, True])
async def test_nonsense_on_an_output(
    connect: Connect, rendezvous: Rendezvous, message: AnyMessage, text: str, claimed: bool
) -> None:
    stream = await opened(connect, "a")
    child = rendezvous.outlet("a") if claimed else os.open(os.devnull, os.O_RDONLY)
    await stream.send(message)
    with pytest.raises(InvalidRequest, match=text):
        await stream.receive()
    await eventually(lambda: not any(place.attached for place in rendezvous._places.values()))
    assert bool(rendezvous._places) is claimed  # the process's output waits for a better caller
    os.close(child)


async def test_a_stream_that_nobody_claims_is_dropped(
    connect: Connect, rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PATIENCE", 0.05)
    stream = await opened(connect, "a")
    with pytest.raises(TimedOut, match="no process was created with this stream"):
        await stream.receive()
    assert rendezvous._places == {}


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_a_stream_that_is_given_up_before_it_was_claimed(
    connect: Connect, rendezvous: Rendezvous, how: str
) -> None:
    stream = await opened(connect, "a")
    if how == "close":
        await stream.close()
        assert await stream.receive() is None
    else:
        stream.drop()
    await eventually(lambda: not rendezvous._places)


async def test_the_process_ends_and_so_do_its_streams(connect: Connect, rendezvous: Rendezvous) -> None:
    out, input = await opened(connect, "a"), await opened(connect, "in")
    child = rendezvous.outlet("a")
    reading, guard = rendezvous.inlet("in")
    await allow(out, 100)
    await input.receive()
    os.write(child, b"last")
    for descriptor in (child, reading, guard):
        os.close(descriptor)
    ending = asyncio.ensure_future(rendezvous.end(("a",), ("in",), 5))
    assert await data(out) == b"last"
    assert await out.receive() is None
    if isinstance(out, OverTtrpc):
        assert not ending.done(), "the caller has not said that it read all"
    await out.close()
    await asyncio.wait_for(ending, 2)
    assert await input.receive() is None
