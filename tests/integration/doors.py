"""The daemon's gRPC door, called as containerd's sandbox plugin calls it: blocking, one method at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import grpc
from google.protobuf import message_factory

from shim.wire import inspection_pb2, runtime_sandbox_v1_pb2, services_sandbox_v1_pb2, task_v3_pb2


class Door:
    """One connection. A refused call raises grpc.RpcError with the daemon's code and words."""

    def __init__(self, socket: Path, namespace: str, metadata: Mapping[str, str] | None = None) -> None:
        """`metadata` goes with every call, beside containerd's `namespace`."""
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._metadata = tuple({**(metadata or {}), "containerd-namespace": namespace}.items())

    def __enter__(self) -> Door:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def controller(self, method: str, **fields: Any) -> Any:
        """A method of the Sandbox Controller."""
        return self._call(services_sandbox_v1_pb2, "Controller", method, fields)

    def sandbox(self, method: str, **fields: Any) -> Any:
        """A method of a shim's Sandbox."""
        return self._call(runtime_sandbox_v1_pb2, "Sandbox", method, fields)

    def task(self, method: str, **fields: Any) -> Any:
        """A method of Task v3."""
        return self._call(task_v3_pb2, "Task", method, fields)

    def inspection(self, method: str, **fields: Any) -> Any:
        """A method of our own Inspection."""
        return self._call(inspection_pb2, "Inspection", method, fields)

    def _call(self, module: ModuleType, name: str, method: str, fields: dict[str, Any]) -> Any:
        service = module.DESCRIPTOR.services_by_name[name]
        described = service.methods_by_name[method]
        request = message_factory.GetMessageClass(described.input_type)(**fields)
        call: grpc.UnaryUnaryMultiCallable[Any, Any] = self._channel.unary_unary(
            f"/{service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        return call(request, timeout=30, metadata=self._metadata)
