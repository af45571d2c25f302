"""One call to the node's service."""

from __future__ import annotations

import os
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message

from shim.config import Config
from shim.errors import Code, Unreachable
from shim.rpc.status import inward
from shim.wire import inspection_pb2 as pb

T = TypeVar("T", bound=Message)

_SERVICE = pb.DESCRIPTOR.services_by_name["Inspection"].full_name
_TIMEOUT = 15.0  # seconds; a check of a guest that does not answer takes about one


def ask(config: Config, method: str, request: Message, answer: type[T]) -> T:
    """Call the service's Inspection. Raises Unreachable where it does not run, and what it answers."""
    with grpc.insecure_channel(f"unix:{config.grpc_socket}") as channel:
        call: grpc.UnaryUnaryMultiCallable[Message, bytes] = channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=bytes,
        )
        try:
            found = call(request, timeout=_TIMEOUT)
        except grpc.RpcError as raised:
            error = cast(grpc.Call, raised)  # what gRPC raises of a call is both
            code = error.code().value[0]
            if code == Code.UNAVAILABLE:
                raise Unreachable(
                    "the service does not answer",
                    subject=os.fspath(config.grpc_socket),
                    remedy="start it (unikernel-shim serve), or name its configuration with --config",
                ) from None
            raise inward(code, error.details() or "") from None
    return answer.FromString(found)
