"""The gRPC door: the Sandbox Controller plugin, Task v3, health and reflection.

gRPC neither takes a socket that listens already nor shows who is at the other end. So who may connect is decided by the
socket's mode alone, which `unix.claim` sets before anybody can find it; and in front of gRPC's own socket there is a
splice where systemd's is the one that callers know.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from shim.errors import Code, NodeFault
from shim.rpc import unix
from shim.rpc.service import Call, Method, Running, Service, StreamingMethod
from shim.rpc.splice import Splice
from shim.rpc.status import outward, trailer

_NAMESPACE = "containerd-namespace"  # containerd, pkg/namespaces/grpc.go
_LIMIT = 16 << 20  # bytes; containerd's own default for messages it sends
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT),
    ("grpc.so_reuseport", 0),
]
_GONE = 0.05  # seconds
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves services, health and reflection on one unix socket."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._services = list(services)
        self._running = Running()
        self._health = HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._socket: tuple[Path, int] | None = None  # path and inode
        self._splice: Splice | None = None

    async def start(self, where: Path | socket.socket) -> None:
        """Listen at a path, or on a socket that listens already and is not ours to remove: then gRPC has one of its own
        beside it, with the suffix `.grpc`.

        Raises NodeFault when another service answers there, InvalidRequest when the path is too long.
        """
        path = where if isinstance(where, Path) else _beside(where)
        server = grpc.aio.server(options=_OPTIONS)
        for service in self._services:
            handlers = {name: self._handler(service, method) for name, method in service.methods.items()}
            handlers |= {name: self._streaming(service, method) for name, method in service.streams.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in self._services]
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        with unix.claim(path) as draft:
            # gRPC binds, and listens, here; at its end it unlinks this name, and so never a successor's socket.
            try:
                server.add_insecure_port(f"unix:{draft}")
            except RuntimeError as error:
                raise NodeFault("gRPC cannot bind the socket", subject=os.fspath(path)) from error
        self._server, self._socket = server, (path, path.lstat().st_ino)
        await server.start()
        if not isinstance(where, Path):
            self._splice = Splice(where, path)
            await self._splice.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace: float) -> None:
        """Say that we stop serving, let what is under way finish within `grace` seconds, and close. Harmless before
        `start`. Cancellable calls end at once: their callers are told UNAVAILABLE."""
        if self._server is None or self._socket is None:
            return
        await self._health.enter_graceful_shutdown()
        if self._splice is not None:
            self._splice.refuse()
        unix.release(*self._socket)
        await asyncio.gather(self._server.stop(grace), self._running.drain(grace))
        if self._splice is not None:
            self._splice.stop()
        self._server = self._socket = self._splice = None

    def _handler(self, service: Service, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            self._behaviour(f"{service.name}/{method.name}", method),
        )

    def _streaming(self, service: Service, method: StreamingMethod) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"{service.name}/{method.name}"

        async def behave(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            stream = _Stream(context, method.request)
            try:
                # So that a caller knows of us before there is anything to tell it.
                await context.send_initial_metadata(())
                await self._running.stream(method, stream, _call(name, context))
                return
            except Exception as error:
                code, text = outward(error, name)
                told = trailer(error)
            finally:
                stream.close()
            await context.abort(_CODES[Code(code)], text, told)

        return grpc.stream_stream_rpc_method_handler(behave)

    def _behaviour(
        self, name: str, method: Method
    ) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        # Bytes in and out: gRPC itself answers INTERNAL to a request that cannot be decoded, and prints a trace.
        async def behave(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                message = method.request.FromString(request)
                return (await self._running.call(method, message, _call(name, context))).SerializeToString()
            except Exception as error:
                code, text = outward(error, name)
                told = trailer(error)
            return await context.abort(_CODES[Code(code)], text, told)

        return behave


def _beside(listening: socket.socket) -> Path:
    return Path(listening.getsockname()).with_suffix(".grpc")


def _call(name: str, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    left = context.time_remaining()
    return Call(
        namespace=metadata.get(_NAMESPACE, ""),
        method=name,
        transport="grpc",
        deadline=None if left is None else time.monotonic() + left,
        metadata=metadata,
    )


class _Stream:
    """A streaming call's messages. gRPC reads only what is asked for, and a write waits for its flow control."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], request: type[Message]) -> None:
        self._context, self._request = context, request
        self._reading: asyncio.Future[Any] | None = None

    async def receive(self) -> Message | None:
        # gRPC reads nothing more once a read was cut off, so it goes on for whoever asks next.
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._context.read())
        data = await asyncio.shield(self._reading)
        self._reading = None
        if data is not grpc.aio.EOF:
            return self._request.FromString(data)
        # A caller that went away looks first like one that said its last; the cancellation follows (seen: after 1 ms).
        await asyncio.sleep(_GONE)
        return None

    async def send(self, message: Message) -> None:
        await self._context.write(message.SerializeToString())

    async def finish(self) -> None:
        return

    def close(self) -> None:
        """The handler is done."""
        if self._reading is not None:
            self._reading.cancel()
