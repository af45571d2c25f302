"""Calls to the node's service, and with `grouping = "pod"` to those of its pods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

# What gRPC's core has to say of its event loop is for its developers; what matters is raised.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

from shim import rundir
from shim.config import Config
from shim.errors import InvalidRequest, NodeFault, NotFound, ShimError, TimedOut, Unreachable
from shim.rpc.status import FAULT, inward
from shim.sandbox.identifiers import title
from shim.wire import inspection_pb2 as pb

T = TypeVar("T", bound=Message)

_SERVICE = pb.DESCRIPTOR.services_by_name["Inspection"].full_name
_TIMEOUT = 15.0  # seconds; a check of a guest that does not answer takes about one


def ask(config: Config, method: str, request: Message, answer: type[T]) -> T:
    """Call Inspection of the daemon that knows the pod. Raises Unreachable where none runs, NodeFault where their
    sockets are closed to this user, and what they answer."""
    return locate(config, method, request, answer)[1]


def locate(config: Config, method: str, request: Message, answer: type[T], timeout: float = _TIMEOUT) -> tuple[Path, T]:
    """As `ask`, with the socket of the daemon that answered."""
    found: list[tuple[Path, T]] = []
    unknown: NotFound | None = None
    late: TimedOut | None = None
    for door in doors(config):
        try:
            found.append((door, answer.FromString(_call(door, method, request, timeout))))
        except NotFound as error:
            unknown = error
        except TimedOut as error:
            late = error  # one that hangs is no reason not to ask the others
        except Unreachable:
            continue  # dead, and not cleared away yet
    if len(found) == 1:
        return found[0]
    if found:
        meant = [it for door, _ in found for it in _meant(door, request)]
        titles = [title(it.id, it.pod_namespace, it.pod_name) for it in meant]
        raise InvalidRequest(
            f"{len(found)} pods are meant, each with a daemon of its own: {', '.join(titles)}",
            remedy="name one by its id",
        )
    raise late or unknown or nobody(config)


def _meant(door: Path, request: Message) -> list[pb.SandboxEntry]:
    """Which of a daemon's sandboxes a request that several answered may have meant: the daemon of one pod has one."""
    wanted: str = getattr(request, "pod", "")
    entries = pb.ListResponse.FromString(_call(door, "List", pb.ListRequest())).sandboxes
    named = [it for it in entries if wanted in (it.pod_name, f"{it.pod_namespace}/{it.pod_name}")]
    return named or [it for it in entries if it.id.startswith(wanted)] or list(entries)


def ask_all(
    config: Config, method: str, request: Message, answer: type[T], timeout: float = _TIMEOUT
) -> tuple[list[T], list[Path]]:
    """Call it of every daemon; what they answer, and the sockets that are there where nobody answers in time.

    Raises Unreachable where none runs, TimedOut where those that do hang, NodeFault where their sockets are closed to
    this user, and the first failure of one that runs.
    """
    found: list[T] = []
    dead: list[Path] = []
    late: TimedOut | None = None
    for door in doors(config):
        try:
            found.append(answer.FromString(_call(door, method, request, timeout)))
        except Unreachable:
            if door.exists():
                dead.append(door)
        except TimedOut as error:
            late = error
            dead.append(door)
    if not found:
        raise late or nobody(config)
    return found, dead


def doors(config: Config) -> list[Path]:
    """The daemons' sockets, the node's first, whether or not they answer. Raises NodeFault where this user may not
    connect: gRPC does not tell that from a daemon that is away."""
    found = rundir.doors(config.run_dir)
    try:
        found[0].lstat()
        closed = not os.access(found[0], os.W_OK, effective_ids=True)  # what connect(2) asks for (unix(7))
    except PermissionError:
        closed = True
    except OSError:
        closed = False
    if closed:
        raise NodeFault(
            "the service is closed to this user", subject=os.fspath(config.run_dir), remedy="run this as root"
        )
    return found


def nobody(config: Config) -> Unreachable:
    """No daemon answers."""
    return Unreachable(
        "the service does not answer",
        subject=os.fspath(config.grpc_socket),
        remedy="start it (unikernel-shim serve), or name its configuration with --config",
    )


def _call(door: Path, method: str, request: Message, timeout: float = _TIMEOUT) -> bytes:
    with connected(door, method, request, timeout) as call:
        return call()


@contextmanager
def connected(door: Path, method: str, request: Message, timeout: float = _TIMEOUT) -> Iterator[Callable[[], bytes]]:
    """A call that may be made again and again over one connection; it raises what is answered."""
    with grpc.insecure_channel(f"unix:{door}") as channel:
        call: grpc.UnaryUnaryMultiCallable[Message, bytes] = channel.unary_unary(
            _path(method), request_serializer=_bytes, response_deserializer=bytes
        )

        def make() -> bytes:
            try:
                return call(request, timeout=timeout)
            except grpc.RpcError as error:
                raise translated(error, door) from None

        yield make


@asynccontextmanager
async def events(door: Path, request: pb.EventsRequest) -> AsyncIterator[AsyncIterator[pb.Event]]:
    """The events of one daemon, once it has answered. Raises what it answers, and TimedOut where it hangs, unless they
    are to be followed; so does the iterator."""
    async with grpc.aio.insecure_channel(f"unix:{door}") as channel:
        method = channel.unary_stream(
            _path("Events"), request_serializer=_bytes, response_deserializer=pb.Event.FromString
        )
        call = method(request, timeout=None if request.follow else _TIMEOUT)
        try:
            await call.wait_for_connection()
        except grpc.RpcError as error:
            raise translated(error, door) from None
        yield _each(call, door)


async def _each(call: Any, door: Path) -> AsyncIterator[pb.Event]:
    try:
        async for event in call:
            yield event
    except grpc.RpcError as error:
        raise translated(error, door) from None


Console = grpc.aio.StreamStreamCall[pb.ConsoleRequest, pb.ConsoleResponse]


@asynccontextmanager
async def console(door: Path) -> AsyncIterator[Console]:
    """A stream to a daemon's Console, which is cut off at the end. What it raises is for `translated`."""
    async with grpc.aio.insecure_channel(f"unix:{door}") as channel:
        method: grpc.aio.StreamStreamMultiCallable[pb.ConsoleRequest, pb.ConsoleResponse] = channel.stream_stream(
            _path("Console"), request_serializer=_bytes, response_deserializer=pb.ConsoleResponse.FromString
        )
        call: Console = method()
        try:
            yield call
        finally:
            call.cancel()


def translated(error: grpc.RpcError, door: Path) -> ShimError:
    """The error that the daemon at `door` answered with, or that there is none, or that it hangs."""
    raised = cast(grpc.Call, error)  # what gRPC raises of a call is both
    fault = dict(raised.trailing_metadata() or ()).get(FAULT)
    if raised.code() is grpc.StatusCode.DEADLINE_EXCEEDED and fault is None:
        return TimedOut("the service does not answer in time", subject=os.fspath(door), remedy="its log may say why")
    return inward(raised.code().value[0], raised.details() or "", str(fault or ""))


def _path(method: str) -> str:
    return f"/{_SERVICE}/{method}"


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
