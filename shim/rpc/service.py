"""A service without a transport: what gRPC and ttrpc both serve."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from shim import telemetry
from shim.errors import Bug, InvalidRequest, Unreachable
from shim.rpc.status import outward
from shim.telemetry import NOTHING, Span

#: Seconds for a call whose caller sets no deadline: as long as the kubelet waits (its runtimeRequestTimeout).
LIMIT = 120.0


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of the call it answers.

    `deadline` is in seconds on the monotonic clock, None for no limit; `peer_pid` is the caller's process where the
    transport knows it (ttrpc), else None. `span` is the call as it is measured: a handler notes there whom it is about.
    """

    namespace: str
    method: str
    transport: Literal["grpc", "ttrpc"]
    deadline: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer_pid: int | None = None
    span: Span = NOTHING


Handler = Callable[[Any, Call], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    `cancellable` says that its handler may be cancelled when its caller goes away or its deadline passes: it changes
    nothing, or undoes what it changed. The others run to their end and only their answer is dropped. `limit` is how
    long (seconds) a caller waits that sets no deadline itself, None for ever.
    """

    name: str
    request: type[Message]
    response: type[Message]
    handler: Handler
    cancellable: bool = False
    limit: float | None = LIMIT


class Stream(Protocol):
    """What a streaming method's handler exchanges messages over, each way at its own pace."""

    async def receive(self) -> Any | None:
        """The caller's next message, None once it has said its last. When it is cut off, the next call gets it.

        Raises DecodeError for one that is none, Unreachable when the caller is gone.
        """

    async def send(self, message: Message) -> None:
        """Send a message; waits while the caller is slow. When it is cut off, nothing was sent.

        Raises Unreachable when the caller is gone.
        """

    async def finish(self) -> None:
        """Say that nothing follows and wait until the caller, having read all, has said its last too.

        Over gRPC it cannot be said before the handler returns: there this returns at once.
        """


StreamHandler = Callable[[Stream, Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StreamingMethod:
    """A method whose caller and handler send any number of messages each.

    It has no deadline but its caller's, and its handler ends with its caller: what must not be cut off half way is no
    stream. `one_request` says that its caller sends one message, the call's own.
    """

    name: str
    request: type[Message]
    response: type[Message]
    handler: StreamHandler
    one_request: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its full name, such as `containerd.task.v3.Task`."""

    name: str
    methods: Mapping[str, Method]
    streams: Mapping[str, StreamingMethod] = field(default_factory=dict)


def from_descriptor(
    descriptor: ServiceDescriptor,
    handlers: object,
    cancellable: Collection[str] = (),
    endless: Collection[str] = (),
) -> Service:
    """A service whose methods are `handlers`' coroutine methods of the same names in snake case.

    `cancellable` has the names of the methods, as in the descriptor, whose handlers may be cut off, `endless` those
    that have no deadline of ours. The handler of a method whose answers alone are a stream takes the request, the
    stream, and the call. Methods whose requests alone are one are left out: both doors answer them UNIMPLEMENTED.

    Raises Bug where a handler is missing or no coroutine function, or a name is given that the service has not: what
    cannot be answered is found at start-up, not by a caller.
    """
    strangers = {*cancellable, *endless} - {method.name for method in descriptor.methods}
    if strangers:
        raise Bug(f"there are no methods {', '.join(sorted(strangers))}", subject=descriptor.full_name)
    methods: dict[str, Method] = {}
    streams: dict[str, StreamingMethod] = {}
    for method in descriptor.methods:
        if method.client_streaming and not method.server_streaming:
            continue
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()
        handler = getattr(handlers, name, None)
        if handler is None:
            raise Bug(f"no handler {name} for {method.full_name}", subject=type(handlers).__name__)
        if not inspect.iscoroutinefunction(handler):
            raise Bug(f"handler {name} is no coroutine function", subject=type(handlers).__name__)
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        if method.server_streaming:
            one = not method.client_streaming
            both_ways = _answering(handler) if one else handler
            streams[method.name] = StreamingMethod(method.name, request, response, both_ways, one_request=one)
            continue
        methods[method.name] = Method(
            name=method.name,
            request=request,
            response=response,
            handler=handler,
            cancellable=method.name in cancellable,
            limit=None if method.name in endless else LIMIT,
        )
    return Service(descriptor.full_name, methods, streams)


def _answering(handler: Callable[[Any, Stream, Call], Awaitable[None]]) -> StreamHandler:
    """One request is a stream that ends after its first message."""

    async def answer(stream: Stream, call: Call) -> None:
        request = await stream.receive()
        if request is None:
            raise InvalidRequest("a call begins with its request", subject=call.method)
        await handler(request, stream, call)

    return answer


class Running:
    """The handlers under way, so that those that must not be cut off are waited for at the end.

    A caller that goes away, or whose deadline passes, loses its answer and nothing else: a Stop that was cut off half
    way would leave a pod that nobody stops. Only a `cancellable` handler ends with its caller.
    """

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Message], Method] = {}
        self._streaming: set[asyncio.Task[None]] = set()

    async def call(self, method: Method, request: Message, call: Call) -> Message:
        """Run a handler until its deadline.

        Raises TimeoutError when that passes (or has passed: then nothing is started), Unreachable when the handler was
        cut off by `drain`, Bug when it answers with another message than its method's, and what the handler raises.
        """
        with _measured(call) as measured:
            return await self._call(method, request, measured)

    async def _call(self, method: Method, request: Message, call: Call) -> Message:
        left = method.limit if call.deadline is None else call.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        task = asyncio.ensure_future(method.handler(request, call))
        assert isinstance(task, asyncio.Task)
        self._tasks[task] = method
        task.add_done_callback(self._tasks.pop)
        try:
            async with asyncio.timeout(left):
                answer = await (task if method.cancellable else asyncio.shield(task))
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):
                # Not the caller was cancelled but the handler: the caller must not wait for ever.
                raise _stopping() from None
            _abandon(task, call)
            raise
        except TimeoutError:
            _abandon(task, call)
            raise
        if not isinstance(answer, method.response):
            raise Bug(f"answered with {type(answer).__name__}, not {method.response.__name__}", subject=call.method)
        return answer

    async def stream(self, method: StreamingMethod, stream: Stream, call: Call) -> None:
        """Run a streaming method's handler until it returns or its caller's deadline passes.

        Raises TimeoutError when that passes, Unreachable when the handler was cut off by `drain`, and what it raises.
        """
        with _measured(call) as measured:
            await self._stream(method, stream, measured)

    async def _stream(self, method: StreamingMethod, stream: Stream, call: Call) -> None:
        task = asyncio.ensure_future(method.handler(stream, call))
        assert isinstance(task, asyncio.Task)
        self._streaming.add(task)
        task.add_done_callback(self._streaming.discard)
        try:
            async with asyncio.timeout(None if call.deadline is None else call.deadline - time.monotonic()):
                await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):
                raise _stopping() from None
            raise

    async def drain(self, grace: float) -> None:
        """Cancel what may be cancelled, wait `grace` seconds for the rest, then cancel that too."""
        for stream in list(self._streaming):
            stream.cancel()
        for task, method in list(self._tasks.items()):
            if method.cancellable:
                task.cancel()
        for seconds in (grace, 1.0):
            if not self._tasks:
                return
            _, left = await asyncio.wait(set(self._tasks), timeout=seconds)
            for task in left:
                task.cancel()


@contextlib.contextmanager
def _measured(call: Call) -> Iterator[Call]:
    """The call, with the span of what follows."""
    with telemetry.call(call.method, call.transport, call.metadata) as span:
        yield call if span is NOTHING else replace(call, span=span)


def _stopping() -> Unreachable:
    return Unreachable("the call was cut off", remedy="the service is stopping: try again")


def _abandon(task: asyncio.Task[Message], call: Call) -> None:
    """Nobody waits for `task` any more: a failure of it is logged where it would have been answered."""

    def tell(done: asyncio.Task[Message]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            outward(error, call.method)

    if not task.done():
        task.add_done_callback(tell)
