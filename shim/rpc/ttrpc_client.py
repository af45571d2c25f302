"""A ttrpc client: to forward events to containerd, and for tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from shim.errors import Exhausted, TimedOut, Unexpected, Unreachable
from shim.rpc.status import inward
from shim.rpc.ttrpc_codec import LIMIT, Decoder, Frame, Type, encode
from shim.wire import ttrpc_pb2

Answer = TypeVar("Answer", bound=Message)
_NAMESPACE = "containerd-namespace-ttrpc"  # containerd, pkg/namespaces/ttrpc.go
_LAST_STREAM = 2**32 - 1  # stream ids have 32 bits


class TtrpcClient(asyncio.Protocol):
    """One connection; any number of calls at once. Made by `connect`."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unreachable("the connection was lost"))

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
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
        if self._transport is None or self._transport.is_closing():
            raise Unreachable("the connection is closed")
        pairs = {**(metadata or {}), **({_NAMESPACE: namespace} if namespace else {})}
        message = ttrpc_pb2.Request(
            service=service,
            method=method,
            payload=request.SerializeToString(),
            timeout_nano=int(timeout * 1e9) if timeout else 0,
            metadata=[ttrpc_pb2.KeyValue(key=key, value=value) for key, value in pairs.items()],
        ).SerializeToString()
        if len(message) > LIMIT:
            raise Exhausted(f"the request of {len(message)} bytes exceeds the limit of {LIMIT}", subject=method)
        if self._stream > _LAST_STREAM:
            self._transport.close()
            raise Unreachable("the connection has no stream ids left")
        stream, self._stream = self._stream, self._stream + 2
        future = self._waiting[stream] = asyncio.get_running_loop().create_future()
        self._transport.write(encode(Frame(stream, Type.REQUEST, message)))
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

    def close(self) -> None:
        """Close the connection; calls under way fail with Unreachable."""
        if self._transport is not None:
            self._transport.close()
