"""A ttrpc client: to forward events to containerd, and for tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from shim.errors import Exhausted, TimedOut, Unexpected, Unreachable
from shim.rpc.status import inward
from shim.rpc.ttrpc_codec import LIMIT, Decoder, Flag, Frame, Type, encode
from shim.rpc.ttrpc_stream import Flow, TtrpcStream
from shim.wire import ttrpc_pb2

Answer = TypeVar("Answer", bound=Message)
_NAMESPACE = "containerd-namespace-ttrpc"  # containerd, pkg/namespaces/ttrpc.go
_LAST_STREAM = 2**32 - 1  # stream ids have 32 bits


class TtrpcClient(asyncio.Protocol):
    """One connection; any number of calls at once. Made by `connect`."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._flow: Flow | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, TtrpcStream] = {}
        self._stream = 1

    @classmethod
    async def connect(cls, address: str) -> TtrpcClient:
        """Connect to a socket, by path or `unix://` address. Raises Unreachable."""
        path = address.removeprefix("unix://")
        try:
            _, client = await asyncio.get_running_loop().create_unix_connection(cls, path)
        except OSError as error:
            raise Unreachable(f"nobody answers: {error.strerror or error}", subject=path) from error
        return client

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._flow = Flow(self._transport)

    def pause_writing(self) -> None:
        if self._flow is not None:
            self._flow.full()

    def resume_writing(self) -> None:
        if self._flow is not None:
            self._flow.roomy()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        for stream in list(self._streams.values()):
            stream.fail(Unreachable("the connection was lost"))
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unreachable("the connection was lost"))

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if frame.stream in self._streams:
                _continue(self._streams[frame.stream], frame)
                continue
            future = self._waiting.pop(frame.stream, None) if frame.type == Type.RESPONSE else None
            if future is None or future.done():
                continue
            if frame.oversize:
                future.set_exception(Exhausted(f"the answer of {frame.oversize} bytes exceeds the limit of {LIMIT}"))
            else:
                future.set_result(frame.payload)

    async def call(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[Answer],
        *,
        namespace: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a method; `timeout` is in seconds, None for none.

        Raises the error for the peer's status (`status.inward`), Unreachable when the connection is gone, TimedOut,
        Exhausted for a request or an answer that is too large, Unexpected for an answer that cannot be decoded.
        """
        pairs = {**(metadata or {}), **({_NAMESPACE: namespace} if namespace else {})}
        message = ttrpc_pb2.Request(
            service=service,
            method=method,
            payload=request.SerializeToString(),
            timeout_nano=int(timeout * 1e9) if timeout else 0,
            metadata=[ttrpc_pb2.KeyValue(key=key, value=value) for key, value in pairs.items()],
        )
        stream = self._request(message)
        future = self._waiting[stream] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                payload = await future
        except TimeoutError:
            raise TimedOut(f"no answer within {timeout:g} s", subject=f"{service}/{method}") from None
        finally:
            self._waiting.pop(stream, None)
        try:
            response = ttrpc_pb2.Response.FromString(payload)
            if response.status.code:
                raise inward(response.status.code, response.status.message)
            return answer.FromString(response.payload)
        except DecodeError as error:
            raise Unexpected("the answer cannot be decoded", subject=f"{service}/{method}") from error

    def stream(self, service: str, method: str, answer: type[Message]) -> TtrpcStream:
        """Call a method that streams both ways. Raises Unreachable when the connection is gone.

        The stream's `receive` gives messages of type `answer`, and raises the error for the peer's status.
        """
        stream = self._request(ttrpc_pb2.Request(service=service, method=method), Flag.REMOTE_OPEN)
        assert self._flow is not None
        opened = TtrpcStream(stream, self._flow, answer.FromString, self._over)
        self._streams[stream] = opened
        return opened

    def _over(self, stream: TtrpcStream) -> None:
        self._streams.pop(stream.id, None)

    def _request(self, request: ttrpc_pb2.Request, flags: int = 0) -> int:
        """Send a request; the id of its stream. Raises Unreachable, Exhausted."""
        if self._transport is None or self._transport.is_closing():
            raise Unreachable("the connection is closed")
        message = request.SerializeToString()
        if len(message) > LIMIT:
            raise Exhausted(f"the request of {len(message)} bytes exceeds the limit of {LIMIT}", subject=request.method)
        if self._stream > _LAST_STREAM:
            self._transport.close()
            raise Unreachable("the connection has no stream ids left")
        stream, self._stream = self._stream, self._stream + 2
        self._transport.write(encode(Frame(stream, Type.REQUEST, message, flags)))
        return stream

    def close(self) -> None:
        """Close the connection; calls under way fail with Unreachable."""
        if self._transport is not None:
            self._transport.close()


def _continue(stream: TtrpcStream, frame: Frame) -> None:
    """Give a stream what has come for it."""
    if frame.type == Type.DATA:
        stream.feed(frame)
        return
    try:
        response = ttrpc_pb2.Response.FromString(frame.payload)
    except DecodeError:
        stream.fail(Unexpected("the end of the stream cannot be decoded"))
        return
    if response.status.code:
        stream.fail(inward(response.status.code, response.status.message))
    else:
        # The last message and the end in one.
        stream.feed(Frame(frame.stream, Type.DATA, response.payload, Flag.REMOTE_CLOSED))
