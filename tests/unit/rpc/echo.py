"""A service to talk to: what every door must do, without containerd's messages."""

from __future__ import annotations

import asyncio

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, wrappers_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.wrappers_pb2 import StringValue

from shim.errors import NotFound
from shim.rpc.service import Call, Service, Stream, from_descriptor

NAME = "unikernel.test.v1.Echo"
METHODS = ("Echo", "CloseIO", "Slow", "Wait", "Fail", "Wrong", "Large", "Cut")


def _descriptor() -> ServiceDescriptor:
    pool = descriptor_pool.Default()
    file = descriptor_pb2.FileDescriptorProto(
        name="unikernel/test/v1/echo.proto",
        package="unikernel.test.v1",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name, empty_pb2.DESCRIPTOR.name],
    )
    service = file.service.add(name="Echo")
    for name in METHODS:
        service.method.add(
            name=name, input_type=".google.protobuf.StringValue", output_type=".google.protobuf.StringValue"
        )
    service.method.add(
        name="Watch",
        input_type=".google.protobuf.StringValue",
        output_type=".google.protobuf.StringValue",
        server_streaming=True,
    )
    service.method.add(
        name="Pour",
        input_type=".google.protobuf.StringValue",
        output_type=".google.protobuf.StringValue",
        client_streaming=True,
    )
    service.method.add(
        name="Chat",
        input_type=".google.protobuf.StringValue",
        output_type=".google.protobuf.StringValue",
        client_streaming=True,
        server_streaming=True,
    )
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(NAME)


DESCRIPTOR = _descriptor()


class Echo:
    """Answers, and remembers how each call went."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.started = asyncio.Event()
        self.gate = asyncio.Event()

    @property
    def service(self) -> Service:
        """The service of these handlers; only Wait is cancellable."""
        return from_descriptor(DESCRIPTOR, self, cancellable={"Wait"})

    async def echo(self, request: StringValue, call: Call) -> StringValue:
        self.calls.append(call)
        await asyncio.sleep(0)
        return StringValue(value=request.value)

    async def close_io(self, request: StringValue, call: Call) -> StringValue:
        return StringValue(value="closed")

    async def slow(self, request: StringValue, call: Call) -> StringValue:
        return await self._until_gate(request)

    async def wait(self, request: StringValue, call: Call) -> StringValue:
        return await self._until_gate(request)

    async def _until_gate(self, request: StringValue) -> StringValue:
        self.started.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.value)
            raise
        self.finished.append(request.value)
        return StringValue(value=request.value)

    async def fail(self, request: StringValue, call: Call) -> StringValue:
        if request.value == "not found":
            raise NotFound("no such container", subject="c1", remedy="list them")
        if request.value == "timeout":
            raise TimeoutError
        raise RuntimeError(f"{request.value}\nTraceback: not for you")

    async def wrong(self, request: StringValue, call: Call) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    async def large(self, request: StringValue, call: Call) -> StringValue:
        return StringValue(value="x" * int(request.value))

    async def cut(self, request: StringValue, call: Call) -> StringValue:
        raise asyncio.CancelledError

    async def watch(self, request: StringValue, stream: Stream, call: Call) -> None:
        """Says the word letter by letter."""
        for letter in request.value:
            await stream.send(StringValue(value=letter))

    async def chat(self, stream: Stream, call: Call) -> None:
        """Says each word back; some mean more than themselves."""
        try:
            await self._chat(stream)
        except asyncio.CancelledError:
            self.cancelled.append("chat")
            raise

    async def _chat(self, stream: Stream) -> None:
        while (message := await stream.receive()) is not None:
            word = message.value
            if word == "fail":
                raise NotFound("no such word")
            if word == "return":
                return
            if word == "boom":
                raise RuntimeError(word)
            if word == "deaf":
                self.started.set()
                await self.gate.wait()
                while await stream.receive() is not None:
                    self.finished.append("heard")
                return
            if word == "flood":
                for _ in range(1000):
                    await stream.send(StringValue(value="x" * 100_000))
                    self.finished.append("sent")
                return
            if word == "finish":
                self.started.set()
                await stream.finish()
                self.finished.append(word)
                return
            await stream.send(message)
            self.finished.append(word)
