"""The ttrpc door: what containerd's `start` path and the courier speak.

Where the peer breaks the framing's rules (a stream id that is even or not larger than the last, a frame that a client
does not send) the connection is closed. Everything else has an answer: too large a message is skipped and refused.

A connection whose only call was a stream is closed with it: containerd opens one for each stream and leaves it open
(internal/cri/io/helpers.go, openStream), so otherwise both of us would keep a socket for every stream there ever was.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import DecodeError, Message

from shim import log
from shim.errors import Code
from shim.rpc import unix
from shim.rpc.service import Call, Method, Running, Service, StreamingMethod
from shim.rpc.status import outward
from shim.rpc.ttrpc_codec import LIMIT, Decoder, Flag, Frame, Type, encode
from shim.rpc.ttrpc_stream import Flow, TtrpcStream
from shim.wire import rpc_status_pb2, ttrpc_pb2

_log = log.get(__name__)

_NAMESPACE = "containerd-namespace-ttrpc"  # containerd, pkg/namespaces/ttrpc.go
_WRITE_HIGH = 1 << 20  # bytes waiting for a slow peer before its requests are no longer read


class TtrpcServer:
    """Serves services on one unix socket."""

    def __init__(self, services: Iterable[Service], namespace: str = "") -> None:
        """`namespace` is that of calls which do not say theirs."""
        self.namespace = namespace
        self.services = {service.name: service for service in services}
        self.running = Running()
        self.connections: set[_Connection] = set()
        self.stopping = False
        self._server: asyncio.Server | None = None
        self._socket: tuple[Path, int] | None = None  # path and inode of one that we made

    async def start(self, where: Path | socket.socket) -> None:
        """Listen at a path, or on a socket that listens already (systemd's, say) and is not ours to remove.

        Raises NodeFault when another service answers there, InvalidRequest when the path is too long.
        """
        if isinstance(where, Path):
            listening = unix.listen(where)
            self._socket = where, where.lstat().st_ino  # noqa: ASYNC240 - neither blocks nor walks
        else:
            listening = where
        self._server = await unix.serve(lambda: _Connection(self), listening)

    async def stop(self, grace: float) -> None:
        """Stop accepting, let what is under way finish within `grace` seconds, and close. Harmless before `start`.

        Cancellable calls end at once: their callers are told UNAVAILABLE.
        """
        if self._server is None:
            return
        self.stopping = True
        if self._socket is not None:
            # Before the socket is closed: until then its inode's number cannot be a successor's.
            unix.release(*self._socket)
        self._server.close()
        for connection in list(self.connections):
            connection.hush()
        await self.running.drain(grace)
        for connection in list(self.connections):
            await connection.finish()
        self._server = self._socket = None


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: TtrpcServer) -> None:
        self._server = server
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._flow: Flow | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._streams: dict[int, TtrpcStream] = {}
        self._handled: set[int] = set()  # streams whose handler is done, and whose caller is not
        self._last_stream = 0
        self._peer_pid: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        stream = cast(asyncio.Transport, transport)
        connection = stream.get_extra_info("socket")
        if self._server.stopping or not unix.trusted(connection):
            stream.abort()
            return
        self._peer_pid, _ = unix.peer(connection)
        stream.set_write_buffer_limits(high=_WRITE_HIGH)
        self._transport, self._flow = stream, Flow(stream)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        if self._flow is not None:
            self._flow.roomy()
        # Only what may be cancelled is: `Running.call` shields the rest.
        for task in self._calls:
            task.cancel()

    def pause_writing(self) -> None:
        if self._flow is not None:
            self._flow.full()
            self._flow.hold("a slow peer")

    def resume_writing(self) -> None:
        if self._flow is not None:
            self._flow.roomy()
            self._flow.release("a slow peer")

    def hush(self) -> None:
        """Take no more requests; the answers of those under way still go out."""
        if self._flow is not None:
            self._flow.hold("stopping")

    async def finish(self) -> None:
        """Write the answers of handlers that are done, and close."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=1.0)
        self.close()

    def close(self) -> None:
        """Close once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            # Turned away, and what it sent was already under way: it must not be acted on.
            return
        for frame in self._decoder.feed(data):
            if not self._accept(frame):
                return

    def _accept(self, frame: Frame) -> bool:
        """Start to answer one frame; False when the peer broke the protocol and the connection was closed."""
        if frame.type == Type.DATA:
            stream = self._streams.get(frame.stream)
            if stream is not None:  # else one that was refused or has ended: there is nobody to give it to
                stream.feed(frame)
            return True
        if frame.type != Type.REQUEST or frame.stream % 2 == 0 or frame.stream <= self._last_stream:
            _log.warning("protocol error", type=frame.type, stream=frame.stream)
            self.close()
            return False
        self._last_stream = frame.stream
        if frame.oversize:
            text = f"message of {frame.oversize} bytes exceeds the limit of {LIMIT}"
            self._refuse(frame.stream, Code.RESOURCE_EXHAUSTED, text)
            return True
        try:
            request = ttrpc_pb2.Request.FromString(frame.payload)
        except DecodeError as error:
            self._refuse(frame.stream, *outward(error, "?"))
            return True
        service = self._server.services.get(request.service)
        if service is None:
            self._refuse(frame.stream, Code.UNIMPLEMENTED, f"service {request.service}")
            return True
        method, streaming = service.methods.get(request.method), service.streams.get(request.method)
        if frame.flags & Flag.REMOTE_OPEN and method is not None:
            self._refuse(frame.stream, Code.UNIMPLEMENTED, f"method {request.method} takes no stream")
        elif method is not None:
            self._begin(self._answer(frame.stream, method, request))
        elif streaming is not None:
            self._begin(self._stream(self._open(frame, streaming, request), streaming, request))
        else:
            self._refuse(frame.stream, Code.UNIMPLEMENTED, f"method {request.method} of {request.service}")
        return True

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _call(self, request: ttrpc_pb2.Request) -> Call:
        metadata = {pair.key: pair.value for pair in request.metadata}
        return Call(
            namespace=metadata.get(_NAMESPACE, self._server.namespace),
            method=f"{request.service}/{request.method}",
            transport="ttrpc",
            deadline=time.monotonic() + request.timeout_nano / 1e9 if request.timeout_nano else None,
            metadata=metadata,
            peer_pid=self._peer_pid,
        )

    async def _answer(self, stream: int, method: Method, request: ttrpc_pb2.Request) -> None:
        call = self._call(request)
        try:
            message = method.request.FromString(request.payload)
            self._reply(stream, await self._server.running.call(method, message, call))
        except Exception as error:
            self._refuse(stream, *outward(error, call.method))

    def _open(self, frame: Frame, method: StreamingMethod, request: ttrpc_pb2.Request) -> TtrpcStream:
        assert self._flow is not None
        stream = TtrpcStream(frame.stream, self._flow, method.request.FromString, self._perhaps_over)
        self._streams[frame.stream] = stream
        if method.one_request:
            stream.feed(Frame(frame.stream, Type.DATA, request.payload, Flag.REMOTE_CLOSED))
        elif not frame.flags & Flag.REMOTE_OPEN:
            stream.feed(Frame(frame.stream, Type.DATA, b"", Flag.REMOTE_CLOSED | Flag.NO_DATA))
        return stream

    async def _stream(self, stream: TtrpcStream, method: StreamingMethod, request: ttrpc_pb2.Request) -> None:
        call = self._call(request)
        try:
            await self._server.running.stream(method, stream, call)
            stream.ignore()
            await stream.close()
        except Exception as error:
            self._refuse(stream.id, *outward(error, call.method))
            stream.abandon()
        self._handled.add(stream.id)
        self._perhaps_over(stream)

    def _perhaps_over(self, stream: TtrpcStream) -> None:
        """A stream is over once its handler is and both ends have closed it, whichever comes last."""
        if not stream.closed or stream.id not in self._handled:
            return
        del self._streams[stream.id]
        self._handled.discard(stream.id)
        if self._last_stream == stream.id == 1:
            self.close()

    def _reply(self, stream: int, answer: Message) -> None:
        payload = ttrpc_pb2.Response(payload=answer.SerializeToString()).SerializeToString()
        if len(payload) > LIMIT:
            self._refuse(
                stream, Code.RESOURCE_EXHAUSTED, f"answer of {len(payload)} bytes exceeds the limit of {LIMIT}"
            )
            return
        self._send(stream, payload)

    def _refuse(self, stream: int, code: Code, text: str) -> None:
        status = rpc_status_pb2.Status(code=code, message=text)
        self._send(stream, ttrpc_pb2.Response(status=status).SerializeToString())

    def _send(self, stream: int, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(Frame(stream, Type.RESPONSE, payload)))
