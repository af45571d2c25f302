"""The gRPC door: the Sandbox Controller plugin, Task v3, health and reflection."""

from __future__ import annotations

import asyncio
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
from shim.rpc.service import Call, Method, Running, Service
from shim.rpc.status import outward

_NAMESPACE = "containerd-namespace"  # containerd, pkg/namespaces/grpc.go
_LIMIT = 16 << 20  # bytes; containerd's own default for messages it sends
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT),
    ("grpc.so_reuseport", 0),
]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer:
    """Serves services, health and reflection on one unix socket."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._services = list(services)
        self._running = Running()
        self._health = HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Listen at `path`, which is inside a directory of mode 0700: gRPC binds the socket itself, and until its mode
        is set that directory is what keeps others out. Raises NodeFault when another service answers there."""
        unix.clear(path)
        server = grpc.aio.server(options=_OPTIONS)
        for service in self._services:
            handlers = {name: self._handler(service, method) for name, method in service.methods.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in self._services]
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise NodeFault(f"the socket cannot be made: {error}", subject=str(path)) from error
        await server.start()
        await asyncio.to_thread(path.chmod, 0o600)
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server, self._path = server, path

    async def stop(self, grace: float) -> None:
        """Say that we stop serving, let what is under way finish within `grace` seconds, and close."""
        if self._server is None or self._path is None:
            return
        await self._health.enter_graceful_shutdown()
        await self._running.drain(grace)
        await self._server.stop(grace)
        self._path.unlink(missing_ok=True)
        self._server = None

    def _handler(self, service: Service, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            self._behaviour(f"{service.name}/{method.name}", method),
            request_deserializer=method.request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    def _behaviour(
        self, name: str, method: Method
    ) -> Callable[[Message, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
        async def behave(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
            left = context.time_remaining()
            call = Call(
                namespace=metadata.get(_NAMESPACE, ""),
                method=name,
                transport="grpc",
                deadline=None if left is None else time.monotonic() + left,
                metadata=metadata,
            )
            try:
                return await self._running.call(method, request, call)
            except Exception as error:
                code, text = outward(error, name)
            return await context.abort(_CODES[Code(code)], text)

        return behave
