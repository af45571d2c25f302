"""Methods that stream, over both doors: order, half-closing, back-pressure both ways, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from shim import errors
from shim.errors import Code
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.ttrpc_client import TtrpcClient
from shim.rpc.ttrpc_codec import LIMIT, Decoder, Flag, Frame, Type, encode
from shim.rpc.ttrpc_server import TtrpcServer
from shim.rpc.ttrpc_stream import TtrpcStream
from shim.wire import ttrpc_pb2
from tests.unit.rpc.echo import NAME, Echo

_LAST = Flag.REMOTE_CLOSED | Flag.NO_DATA


@pytest.fixture
async def server(echo: Echo, room: Path) -> AsyncIterator[TtrpcServer]:
    server = TtrpcServer([echo.service])
    await server.start(room / "t")
    yield server
    await server.stop(1)


@pytest.fixture
async def client(server: TtrpcServer, room: Path) -> AsyncIterator[TtrpcClient]:
    client = await TtrpcClient.connect(str(room / "t"))
    yield client
    client.close()


def chat(client: TtrpcClient) -> TtrpcStream:
    return client.stream(NAME, "Chat", StringValue)


async def say(stream: TtrpcStream, word: str) -> str:
    await stream.send(StringValue(value=word))
    answer = await asyncio.wait_for(stream.receive(), 5)
    assert answer is not None
    return str(answer.value)


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_messages_go_both_ways_until_both_have_said_their_last(client: TtrpcClient, echo: Echo) -> None:
    stream = chat(client)
    assert [await say(stream, word) for word in ("a", "", "c")] == ["a", "", "c"]
    await stream.close()
    assert await stream.receive() is None
    assert echo.finished == ["a", "", "c"]


async def test_streams_and_calls_share_a_connection(client: TtrpcClient) -> None:
    streams = [chat(client) for _ in range(8)]
    for turn in range(3):
        assert await asyncio.gather(*(say(stream, f"{turn}") for stream in streams)) == [f"{turn}"] * 8
    assert (await client.call(NAME, "Echo", StringValue(value="x"), StringValue)).value == "x"
    for stream in streams:
        await stream.finish()
    assert (await client.call(NAME, "Echo", StringValue(value="y"), StringValue)).value == "y"


@pytest.mark.parametrize("how", ["finished", "failed"])
async def test_a_connection_made_for_one_stream_ends_with_it(
    client: TtrpcClient, server: TtrpcServer, how: str
) -> None:
    stream = chat(client)
    if how == "finished":
        await say(stream, "a")
        await stream.finish()
    else:
        await stream.send(StringValue(value="fail"))
        with pytest.raises(errors.NotFound, match="no such word"):
            await stream.receive()
    await eventually(lambda: client.closed and not server.connections)


@pytest.mark.parametrize("word", ["fail", "boom"])
async def test_a_failure_comes_after_what_was_sent_before(client: TtrpcClient, word: str) -> None:
    await client.call(NAME, "Echo", StringValue(), StringValue)
    stream = chat(client)
    await stream.send(StringValue(value="a"))
    await stream.send(StringValue(value=word))
    first = await stream.receive()
    assert first is not None and first.value == "a"
    with pytest.raises((errors.NotFound, errors.Bug)):
        await stream.receive()
    with pytest.raises((errors.NotFound, errors.Bug)):  # and again
        await stream.receive()


async def test_finish_waits_until_the_peer_has_read_all(client: TtrpcClient, echo: Echo) -> None:
    stream = chat(client)
    await stream.send(StringValue(value="finish"))
    await asyncio.wait_for(echo.started.wait(), 5)
    await asyncio.sleep(0.02)
    assert echo.finished == []
    assert await stream.receive() is None  # the handler has said its last, and waits
    await stream.close()
    await eventually(lambda: echo.finished == ["finish"])


async def test_a_reader_that_is_behind_makes_the_sender_wait(client: TtrpcClient, echo: Echo) -> None:
    """Neither end keeps more than a bounded part of what is sent; the rest stays with the sender."""
    stream = chat(client)
    await stream.send(StringValue(value="deaf"))
    await echo.started.wait()
    sent = 0

    async def push() -> None:
        nonlocal sent
        for _ in range(1000):
            await stream.send(StringValue(value="x" * 100_000))
            sent += 1

    pushing = asyncio.ensure_future(push())
    await asyncio.sleep(0.3)
    assert not pushing.done() and 0 < sent < 200
    echo.gate.set()
    await asyncio.wait_for(pushing, 20)
    await stream.close()
    assert await asyncio.wait_for(stream.receive(), 5) is None
    assert len(echo.finished) == 1000


async def test_a_caller_that_reads_nothing_makes_the_handler_wait(client: TtrpcClient, echo: Echo) -> None:
    stream = chat(client)
    await stream.send(StringValue(value="flood"))
    await asyncio.sleep(0.3)
    before = len(echo.finished)
    assert 0 < before < 200
    received = 0
    while await asyncio.wait_for(stream.receive(), 5) is not None:
        received += 1
    assert received == 1000


async def test_what_nobody_receives_holds_up_nobody(client: TtrpcClient) -> None:
    await client.call(NAME, "Echo", StringValue(), StringValue)
    stream = chat(client)
    await stream.send(StringValue(value="return"))
    assert await stream.receive() is None
    for _ in range(100):
        await stream.send(StringValue(value="x"))
    assert (await client.call(NAME, "Echo", StringValue(value="x"), StringValue, timeout=5)).value == "x"


async def test_the_handler_ends_with_its_connection(client: TtrpcClient, echo: Echo) -> None:
    stream = chat(client)
    await say(stream, "a")
    client.close()
    await eventually(lambda: echo.cancelled)
    with pytest.raises(errors.Unreachable, match="lost"):
        await stream.receive()
    with pytest.raises(errors.Unreachable, match="gone"):
        await stream.send(StringValue())


async def test_a_server_that_stops_says_so(client: TtrpcClient, server: TtrpcServer, echo: Echo) -> None:
    stream = chat(client)
    await say(stream, "a")
    await server.stop(5)
    with pytest.raises(errors.Unreachable, match="stopping"):
        await stream.receive()


async def test_too_large_a_message_is_not_sent(client: TtrpcClient) -> None:
    stream = chat(client)
    with pytest.raises(errors.Exhausted):
        await stream.send(StringValue(value="x" * LIMIT))
    assert await say(stream, "a") == "a"


class Raw:
    """A peer that sends what frames it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def open(self, stream: int, method: str = "Chat", flags: int = Flag.REMOTE_OPEN, payload: bytes = b"") -> None:
        request = ttrpc_pb2.Request(service=NAME, method=method, payload=payload)
        self.send(Frame(stream, Type.REQUEST, request.SerializeToString(), flags))

    def send(self, frame: Frame) -> None:
        self.writer.write(encode(frame))

    async def frame(self) -> Frame:
        while not self._frames:
            data = await asyncio.wait_for(self.reader.read(1 << 20), 5)
            assert data, "closed"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)


@pytest.fixture
async def raw(server: TtrpcServer, room: Path) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(room / "t")
    yield Raw(reader, writer)
    writer.close()


async def test_the_frames_of_a_stream_as_the_protocol_draws_them(raw: Raw) -> None:
    word = StringValue(value="a").SerializeToString()
    raw.open(1)
    raw.send(Frame(1, Type.DATA, word))
    assert await raw.frame() == Frame(1, Type.DATA, word)
    raw.send(Frame(1, Type.DATA, b"", Flag.NO_DATA))  # says nothing
    raw.send(Frame(1, Type.DATA, b""))  # an empty message
    assert await raw.frame() == Frame(1, Type.DATA)
    raw.send(Frame(1, Type.DATA, word, Flag.REMOTE_CLOSED))  # the last one with its message
    assert await raw.frame() == Frame(1, Type.DATA, word)
    assert await raw.frame() == Frame(1, Type.DATA, b"", _LAST)
    assert await raw.reader.read() == b""


async def test_a_caller_that_has_nothing_to_say(raw: Raw) -> None:
    raw.open(1, flags=Flag.REMOTE_CLOSED)
    assert await raw.frame() == Frame(1, Type.DATA, b"", _LAST)


async def test_a_request_whose_answers_are_a_stream(raw: Raw) -> None:
    raw.open(1, "Watch", Flag.REMOTE_CLOSED, StringValue(value="ab").SerializeToString())
    for letter in "ab":
        assert await raw.frame() == Frame(1, Type.DATA, StringValue(value=letter).SerializeToString())
    assert await raw.frame() == Frame(1, Type.DATA, b"", _LAST)


async def test_data_after_the_end_and_of_no_stream_are_dropped(raw: Raw, echo: Echo) -> None:
    raw.open(3)
    raw.send(Frame(3, Type.DATA, b"", _LAST))
    for stream in (3, 1, 99):
        raw.send(Frame(stream, Type.DATA, StringValue(value="late").SerializeToString()))
    assert await raw.frame() == Frame(3, Type.DATA, b"", _LAST)
    raw.open(5, "Echo", 0)
    assert (await raw.frame()).stream == 5
    assert echo.finished == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(1, Type.DATA, b"\x0a\xff"), Code.INVALID_ARGUMENT),
        (Frame(1, Type.DATA, b"\xff\xff\xff"), Code.INVALID_ARGUMENT),
    ],
)
async def test_what_is_no_message_ends_the_stream(raw: Raw, frame: Frame, code: Code) -> None:
    raw.open(1)
    raw.send(frame)
    answer = await raw.frame()
    assert answer.type == Type.RESPONSE
    assert ttrpc_pb2.Response.FromString(answer.payload).status.code == code


async def test_an_oversize_message_ends_the_stream(raw: Raw) -> None:
    raw.open(1)
    raw.writer.write((LIMIT + 1).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes((Type.DATA, 0)))
    answer = await raw.frame()
    assert ttrpc_pb2.Response.FromString(answer.payload).status.code == Code.RESOURCE_EXHAUSTED


async def test_a_unary_method_takes_no_stream(raw: Raw) -> None:
    raw.open(1, "Echo")
    answer = await raw.frame()
    assert ttrpc_pb2.Response.FromString(answer.payload).status.code == Code.UNIMPLEMENTED
    raw.open(3)  # and the connection goes on
    raw.send(Frame(3, Type.DATA, b"", _LAST))
    assert await raw.frame() == Frame(3, Type.DATA, b"", _LAST)


# --- gRPC

Chat = grpc.aio.StreamStreamCall[StringValue, StringValue]


@pytest.fixture
async def grpc_channel(echo: Echo, room: Path) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcServer([echo.service])
    await server.start(room / "g")
    async with grpc.aio.insecure_channel(f"unix:{room / 'g'}") as channel:
        yield channel
    await server.stop(1)


@pytest.fixture
async def over_grpc(grpc_channel: grpc.aio.Channel) -> Callable[[], Any]:
    return grpc_channel.stream_stream(
        f"/{NAME}/Chat",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=StringValue.FromString,
    )


async def test_grpc_answers_one_request_with_a_stream(grpc_channel: grpc.aio.Channel) -> None:
    watch: grpc.aio.UnaryStreamMultiCallable[StringValue, StringValue] = grpc_channel.unary_stream(
        f"/{NAME}/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=StringValue.FromString,
    )
    assert [answer.value async for answer in watch(StringValue(value="abc"), timeout=5)] == ["a", "b", "c"]


async def test_grpc_messages_go_both_ways(over_grpc: Callable[[], Chat], echo: Echo) -> None:
    call = over_grpc()
    for word in ("a", "", "c"):
        await call.write(StringValue(value=word))
        answer = await call.read()
        assert isinstance(answer, StringValue) and answer.value == word
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert echo.finished == ["a", "", "c"]


async def test_a_grpc_failure_has_its_code(over_grpc: Callable[[], Chat]) -> None:
    call = over_grpc()
    await call.write(StringValue(value="fail"))
    with pytest.raises(grpc.aio.AioRpcError, match="no such word") as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_grpc_cancels_the_handler_with_its_caller(over_grpc: Callable[[], Chat], echo: Echo) -> None:
    call = over_grpc()
    await call.write(StringValue(value="a"))
    await call.read()
    call.cancel()
    await eventually(lambda: echo.cancelled)


async def test_a_grpc_caller_that_reads_nothing_makes_the_handler_wait(
    over_grpc: Callable[[], Chat], echo: Echo
) -> None:
    call = over_grpc()
    await call.write(StringValue(value="flood"))
    await eventually(lambda: echo.finished)
    await asyncio.sleep(0.3)
    assert len(echo.finished) < 200
    received = 0
    while await call.read() is not grpc.aio.EOF:
        received += 1
    assert received == 1000
