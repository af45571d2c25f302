"""One call to the node's service, and with `grouping = "pod"` to those of its pods."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message

from shim import rundir
from shim.config import Config
from shim.errors import InvalidRequest, NotFound, Unreachable
from shim.rpc.status import inward
from shim.wire import inspection_pb2 as pb

T = TypeVar("T", bound=Message)

_SERVICE = pb.DESCRIPTOR.services_by_name["Inspection"].full_name
_TIMEOUT = 15.0  # seconds; a check of a guest that does not answer takes about one


def ask(config: Config, method: str, request: Message, answer: type[T]) -> T:
    """Call Inspection of the daemon that knows the pod. Raises Unreachable where none runs, and what they answer."""
    found: list[T] = []
    unknown: NotFound | None = None
    for door in rundir.doors(config.run_dir):
        try:
            found.append(answer.FromString(_call(door, method, request)))
        except NotFound as error:
            unknown = error
        except Unreachable:
            continue  # dead, and not cleared away yet
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidRequest(f"{len(found)} pods are meant, each with a daemon of its own", remedy="name one by its id")
    raise unknown or Unreachable(
        "the service does not answer",
        subject=os.fspath(config.grpc_socket),
        remedy="start it (unikernel-shim serve), or name its configuration with --config",
    )


def _call(door: Path, method: str, request: Message) -> bytes:
    with grpc.insecure_channel(f"unix:{door}") as channel:
        call: grpc.UnaryUnaryMultiCallable[Message, bytes] = channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=bytes,
        )
        try:
            return call(request, timeout=_TIMEOUT)
        except grpc.RpcError as raised:
            error = cast(grpc.Call, raised)  # what gRPC raises of a call is both
            raise inward(error.code().value[0], error.details() or "") from None
