"""A service without a transport: what gRPC and ttrpc both serve."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from shim.errors import Bug


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of the call it answers. `deadline` is on the monotonic clock, None for no limit."""

    namespace: str
    method: str
    transport: Literal["grpc", "ttrpc"]
    deadline: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Any, Call], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    `cancellable` says that its handler may be cancelled when its caller goes away or its deadline passes. The others
    run to their end and only their answer is dropped: containerd never undoes half a Create.
    """

    name: str
    request: type[Message]
    handler: Handler
    cancellable: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its full name, such as `containerd.task.v3.Task`."""

    name: str
    methods: Mapping[str, Method]


def from_descriptor(descriptor: ServiceDescriptor, handlers: object, cancellable: Collection[str] = ()) -> Service:
    """A service whose methods are `handlers`' coroutine methods of the same names in snake case.

    Raises Bug where one is missing: an unanswered method is found at start-up, not by a caller.
    """
    methods: dict[str, Method] = {}
    for method in descriptor.methods:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()
        handler = getattr(handlers, name, None)
        if handler is None:
            raise Bug(f"no handler {name} for {method.full_name}", subject=type(handlers).__name__)
        request = message_factory.GetMessageClass(method.input_type)
        methods[method.name] = Method(method.name, request, handler, method.name in cancellable)
    return Service(descriptor.full_name, methods)


class Running:
    """The handlers under way, so that those that must not be cut off are waited for at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Message]] = set()

    async def call(self, method: Method, request: Message, call: Call) -> Message:
        """Run a handler until its deadline. Raises TimeoutError when it passes, and what the handler raises."""
        task = asyncio.ensure_future(method.handler(request, call))
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        left = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
        async with asyncio.timeout(left):
            return await (task if method.cancellable else asyncio.shield(task))

    def _forget(self, task: asyncio.Task[Message]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks a failure as seen whose caller has gone away.
            task.exception()

    async def drain(self, grace: float) -> None:
        """Wait `grace` seconds for what is under way, then cancel it."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(set(self._tasks), timeout=grace)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
