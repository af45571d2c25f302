"""The ttrpc door and its client, against each other and against peers that do not keep the rules."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from shim import errors
from shim.errors import Code
from shim.rpc import ttrpc_client, unix
from shim.rpc.ttrpc_client import TtrpcClient
from shim.rpc.ttrpc_codec import LIMIT, Decoder, Flag, Frame, Type, encode
from shim.rpc.ttrpc_server import TtrpcServer, _Connection
from shim.wire import ttrpc_pb2
from tests.unit.rpc.echo import NAME, Echo


@pytest.fixture
async def server(echo: Echo, room: Path) -> AsyncIterator[TtrpcServer]:
    server = TtrpcServer([echo.service])
    await server.start(room / "t")
    yield server
    echo.gate.set()
    await server.stop(1)


@pytest.fixture
async def client(server: TtrpcServer, room: Path) -> AsyncIterator[TtrpcClient]:
    client = await TtrpcClient.connect(f"unix://{room / 't'}")
    yield client
    client.close()


class Raw:
    """A peer that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def request(self, stream: int, value: str = "a", method: str = "Echo", flags: int = 0) -> None:
        message = ttrpc_pb2.Request(service=NAME, method=method, payload=StringValue(value=value).SerializeToString())
        self.writer.write(encode(Frame(stream, Type.REQUEST, message.SerializeToString(), flags)))

    async def answer(self) -> tuple[int, ttrpc_pb2.Response]:
        while not self._frames:
            data = await asyncio.wait_for(self.reader.read(1 << 20), 5)
            assert data, "closed"
            self._frames += self._decoder.feed(data)
        frame = self._frames.pop(0)
        assert (frame.type, frame.flags) == (Type.RESPONSE, 0)
        return frame.stream, ttrpc_pb2.Response.FromString(frame.payload)

    async def closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def raw(room: Path) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(room / "t")
    yield Raw(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _say(client: TtrpcClient, method: str, value: str = "a", timeout: float | None = None) -> str:
    return (await client.call(NAME, method, StringValue(value=value), StringValue, timeout=timeout)).value


async def test_a_call_carries_what_a_handler_may_know(client: TtrpcClient, echo: Echo) -> None:
    request = StringValue(value="hello")
    answer = await client.call(
        NAME, "Echo", request, StringValue, namespace="k8s.io", timeout=60, metadata={"trace": "1"}
    )
    assert answer == request
    (call,) = echo.calls
    assert (call.namespace, call.method, call.transport) == ("k8s.io", f"{NAME}/Echo", "ttrpc")
    assert call.metadata == {"trace": "1", "containerd-namespace-ttrpc": "k8s.io"}
    assert call.peer_pid == os.getpid()
    assert call.deadline is not None


async def test_a_call_without_a_namespace_or_deadline(client: TtrpcClient, echo: Echo) -> None:
    await _say(client, "Echo")
    assert (echo.calls[0].namespace, echo.calls[0].deadline) == ("", None)


async def test_a_deadline_in_the_far_future_is_none(client: TtrpcClient) -> None:
    assert await _say(client, "Echo", timeout=9e9) == "a"


async def test_sixty_four_calls_at_once(client: TtrpcClient) -> None:
    values = [str(number) for number in range(64)]
    assert await asyncio.gather(*(_say(client, "Echo", value) for value in values)) == values


async def test_a_slow_call_holds_up_no_other(client: TtrpcClient, echo: Echo) -> None:
    slow = asyncio.create_task(_say(client, "Slow", "slow"))
    await echo.started.wait()
    assert await _say(client, "Echo") == "a"
    echo.gate.set()
    assert await slow == "slow"


async def test_sixteen_connections_of_four_calls(server: TtrpcServer, room: Path) -> None:
    clients = [await TtrpcClient.connect(str(room / "t")) for _ in range(16)]
    answers = await asyncio.gather(*(_say(client, "Echo", str(n)) for client in clients for n in range(4)))
    assert answers == ["0", "1", "2", "3"] * 16
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("method", "value", "kind", "text"),
    [
        ("Fail", "not found", errors.NotFound, "c1: no such container; list them"),
        ("Fail", "timeout", errors.TimedOut, "deadline"),
        ("Fail", "boom", errors.Bug, "^unexpected RuntimeError: boom$"),
        ("Wrong", "", errors.Bug, "answered with Empty"),
        ("Cut", "", errors.Unreachable, "cut off"),
        ("Nope", "", errors.Unsupported, f"method Nope of {NAME}"),
        ("Pour", "", errors.Unsupported, f"method Pour of {NAME}"),
        ("Large", str(LIMIT), errors.Exhausted, "exceeds the limit"),
    ],
)
async def test_every_failure_has_an_answer(
    client: TtrpcClient, method: str, value: str, kind: type[errors.ShimError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await _say(client, method, value)
    assert await _say(client, "Echo") == "a"


async def test_an_unknown_service(client: TtrpcClient) -> None:
    with pytest.raises(errors.Unsupported, match=r"^service other\.v1\.Other$"):
        await client.call("other.v1.Other", "Echo", Empty(), Empty)


async def test_a_four_megabyte_answer_passes(client: TtrpcClient) -> None:
    assert len(await _say(client, "Large", str(LIMIT - 100))) == LIMIT - 100


async def test_the_server_enforces_the_deadline_and_lets_the_handler_finish(
    server: TtrpcServer, echo: Echo, room: Path
) -> None:
    async with raw(room) as peer:
        payload = StringValue(value="late").SerializeToString()
        message = ttrpc_pb2.Request(service=NAME, method="Slow", payload=payload, timeout_nano=30_000_000)
        peer.writer.write(encode(Frame(1, Type.REQUEST, message.SerializeToString())))
        stream, answer = await peer.answer()
        assert (stream, answer.status.code) == (1, Code.DEADLINE_EXCEEDED)
        echo.gate.set()
        await server.running.drain(1)
        assert (echo.finished, echo.cancelled) == (["late"], [])
        peer.request(3)
        assert (await peer.answer())[0] == 3  # and nothing was sent on stream 1 again


@pytest.mark.parametrize("nanoseconds", [-1, -(2**63)])
async def test_a_negative_deadline_has_passed(server: TtrpcServer, echo: Echo, room: Path, nanoseconds: int) -> None:
    async with raw(room) as peer:
        message = ttrpc_pb2.Request(service=NAME, method="Echo", timeout_nano=nanoseconds)
        peer.writer.write(encode(Frame(1, Type.REQUEST, message.SerializeToString())))
        assert (await peer.answer())[1].status.code == Code.DEADLINE_EXCEEDED
        assert echo.calls == []


async def test_a_caller_that_disconnects_leaves_the_handler_to_finish(
    server: TtrpcServer, echo: Echo, room: Path
) -> None:
    async with raw(room) as peer:
        peer.request(1, "kept", "Slow")
        peer.request(3, "waiter", "Wait")
        await echo.started.wait()
    while server.connections:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    assert echo.cancelled == ["waiter"]
    echo.gate.set()
    await server.running.drain(1)
    assert echo.finished == ["kept"]


@pytest.mark.parametrize(
    "payload", [b"\xff\xff\xff", ttrpc_pb2.Request(service="x").SerializeToString() + b"\x0a\x05a"]
)
async def test_a_malformed_request_is_an_invalid_argument(server: TtrpcServer, room: Path, payload: bytes) -> None:
    async with raw(room) as peer:
        peer.writer.write(encode(Frame(1, Type.REQUEST, payload)))
        assert (await peer.answer())[1].status.code == Code.INVALID_ARGUMENT
        peer.request(3)
        assert (await peer.answer())[1].status.code == 0


async def test_a_malformed_message_is_an_invalid_argument(server: TtrpcServer, room: Path) -> None:
    async with raw(room) as peer:
        for stream, payload in ((1, b"\x0a\xff"), (3, b"\x0a\x02\xff\xfe")):  # cut short; no UTF-8
            message = ttrpc_pb2.Request(service=NAME, method="Echo", payload=payload)
            peer.writer.write(encode(Frame(stream, Type.REQUEST, message.SerializeToString())))
            found, answer = await peer.answer()
            assert (found, answer.status.code) == (stream, Code.INVALID_ARGUMENT)
            assert answer.status.message == f"the request of {NAME}/Echo cannot be decoded"


async def test_an_oversize_request_is_refused_and_skipped(server: TtrpcServer, room: Path) -> None:
    async with raw(room) as peer:
        peer.writer.write(struct.pack(">IIBB", LIMIT + 1, 1, Type.REQUEST, 0) + bytes(1000))
        stream, answer = await peer.answer()  # before the rest has come
        assert (stream, answer.status.code) == (1, Code.RESOURCE_EXHAUSTED)
        peer.writer.write(bytes(LIMIT + 1 - 1000))
        peer.request(3)
        stream, answer = await peer.answer()
        assert (stream, answer.status.code) == (3, 0)


async def test_a_stream_is_refused_and_its_data_ignored(server: TtrpcServer, room: Path) -> None:
    async with raw(room) as peer:
        peer.request(1, flags=Flag.REMOTE_OPEN)
        peer.writer.write(encode(Frame(1, Type.DATA, b"x")))
        peer.writer.write(encode(Frame(1, Type.DATA, b"", Flag.NO_DATA | Flag.REMOTE_CLOSED)))
        peer.request(3)
        assert (await peer.answer())[1].status.code == Code.UNIMPLEMENTED
        assert (await peer.answer())[0] == 3


@pytest.mark.parametrize(
    "bad",
    [
        Frame(2, Type.REQUEST),
        Frame(0, Type.REQUEST),
        Frame(1, Type.REQUEST),
        Frame(5, Type.RESPONSE),
        Frame(5, 0),
        Frame(5, 200),
    ],
    ids=["even", "zero", "used", "response", "type 0", "type 200"],
)
async def test_a_frame_against_the_rules_closes_the_connection(server: TtrpcServer, room: Path, bad: Frame) -> None:
    async with raw(room) as peer:
        peer.request(1)
        await peer.answer()
        peer.writer.write(encode(bad))
        assert await peer.closed()
    async with raw(room) as peer:  # the others' are not touched
        peer.request(1)
        await peer.answer()


async def test_bytes_of_another_protocol_close_the_connection(server: TtrpcServer, room: Path) -> None:
    async with raw(room) as peer:
        peer.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert await peer.closed()


async def test_a_peer_of_another_user_is_refused_and_nothing_it_sent_is_done(
    server: TtrpcServer, echo: Echo, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "peer", lambda connection: (1, 65534))
    async with raw(room) as peer:
        peer.request(1)
        assert await peer.closed()
    await asyncio.sleep(0.02)
    assert (echo.calls, server.connections) == ([], set())


class RefusedTransport(asyncio.Transport):
    """A transport that was aborted, and still delivers what it had read."""

    def abort(self) -> None:
        pass


async def test_bytes_that_arrive_after_a_refusal_are_not_acted_on(
    server: TtrpcServer, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "peer", lambda connection: (1, 65534))
    connection = _Connection(server)
    connection.connection_made(RefusedTransport())
    message = ttrpc_pb2.Request(service=NAME, method="Echo")
    connection.data_received(encode(Frame(1, Type.REQUEST, message.SerializeToString())))
    await asyncio.sleep(0.01)
    assert echo.calls == []


async def test_stop_lets_a_call_finish_and_tells_waiters(server: TtrpcServer, client: TtrpcClient, echo: Echo) -> None:
    slow = asyncio.create_task(_say(client, "Slow", "slow"))
    waiter = asyncio.create_task(_say(client, "Wait", "waiter"))
    while len(server.running._tasks) < 2:
        await asyncio.sleep(0.002)
    stopping = asyncio.create_task(server.stop(5))
    with pytest.raises(errors.Unreachable, match="stopping"):
        await waiter
    assert not stopping.done()
    echo.gate.set()
    assert await slow == "slow"
    await stopping


async def test_stop_closes_what_outlasts_its_grace(
    server: TtrpcServer, client: TtrpcClient, echo: Echo, room: Path
) -> None:
    slow = asyncio.create_task(_say(client, "Slow", "slow"))
    await echo.started.wait()
    await server.stop(0.02)
    with pytest.raises(errors.Unreachable):
        await slow
    assert echo.cancelled == ["slow"]
    assert list(room.iterdir()) == []
    with pytest.raises(errors.Unreachable, match="nobody answers: No such file"):
        await TtrpcClient.connect(str(room / "t"))
    await server.stop(1)  # twice is harmless


async def test_stop_before_start_is_harmless(echo: Echo) -> None:
    await TtrpcServer([echo.service]).stop(1)


async def test_a_socket_that_listens_already_is_served_and_left(echo: Echo, room: Path) -> None:
    listening = unix.listen(room / "t")
    server = TtrpcServer([echo.service])
    await server.start(listening)
    client = await TtrpcClient.connect(str(room / "t"))
    assert await _say(client, "Echo") == "a"
    client.close()
    await server.stop(1)
    assert (room / "t").exists()


async def test_a_second_server_is_told_of_the_first(server: TtrpcServer, echo: Echo, room: Path) -> None:
    with pytest.raises(errors.NodeFault, match="another service answers here"):
        await TtrpcServer([echo.service]).start(room / "t")


# --- the client, against a peer of the test's own making


@asynccontextmanager
async def peer_that(room: Path, reply: bytes | None) -> AsyncIterator[TtrpcClient]:
    """A client of a peer that answers its first request with these bytes, or hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        if reply is not None:
            writer.write(reply)
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, room / "p")
    client = await TtrpcClient.connect(str(room / "p"))
    yield client
    client.close()
    server.close()
    await asyncio.sleep(0.01)


async def test_a_lost_connection_fails_every_call(room: Path) -> None:
    async with peer_that(room, None) as client:
        results = await asyncio.gather(*(_say(client, "Echo") for _ in range(8)), return_exceptions=True)
        assert [type(result) for result in results] == [errors.Unreachable] * 8
        assert client.closed
        with pytest.raises(errors.Unreachable, match="closed"):
            await _say(client, "Echo")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (struct.pack(">IIBB", LIMIT + 1, 1, Type.RESPONSE, 0), errors.Exhausted),
        (encode(Frame(1, Type.RESPONSE, b"\xff")), errors.Unexpected),
        (encode(Frame(1, Type.RESPONSE, ttrpc_pb2.Response(payload=b"\xff").SerializeToString())), errors.Unexpected),
    ],
    ids=["oversize", "no response", "no message"],
)
async def test_an_answer_that_makes_no_sense(room: Path, reply: bytes, kind: type[errors.ShimError]) -> None:
    async with peer_that(room, reply) as client:
        with pytest.raises(kind):
            await _say(client, "Echo", timeout=5)


async def test_answers_to_nobody_and_data_are_ignored(room: Path) -> None:
    noise = encode(Frame(99, Type.RESPONSE, b"")) + encode(Frame(1, Type.DATA, b""))
    async with peer_that(room, noise + encode(Frame(1, Type.RESPONSE, b""))) as client:
        assert await _say(client, "Echo", timeout=5) == ""


async def test_no_answer_in_time(room: Path) -> None:
    async with peer_that(room, b"") as client:
        with pytest.raises(errors.TimedOut, match=r"Echo: no answer within 0.02 s"):
            await _say(client, "Echo", timeout=0.02)
        assert not client._waiting


async def test_a_request_that_is_too_large_is_not_sent(client: TtrpcClient) -> None:
    with pytest.raises(errors.Exhausted, match="exceeds the limit"):
        await _say(client, "Echo", "x" * LIMIT)
    assert await _say(client, "Echo") == "a"


async def test_the_last_stream_id_ends_the_connection(client: TtrpcClient) -> None:
    client._stream = ttrpc_client._LAST_STREAM
    assert await _say(client, "Echo") == "a"
    with pytest.raises(errors.Unreachable, match="no stream ids left"):
        await _say(client, "Echo")
    assert client.closed


async def test_nobody_at_the_address(room: Path) -> None:
    with pytest.raises(errors.Unreachable, match="nobody answers"):
        await TtrpcClient.connect(f"unix://{room / 'none'}")
    with pytest.raises(errors.Unreachable, match="nobody answers"):
        await TtrpcClient.connect("/" + "x" * 200)
