"""Events on their way to something that listens as containerd does, over both transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from shim.errors import InvalidRequest, ShimError, Unreachable
from shim.events import Event, Pauses, Publisher, Topic
from shim.rpc.forward import GrpcSender, TtrpcSender, ask_version, envelope, sender
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.service import Call, from_descriptor
from shim.rpc.ttrpc_server import TtrpcServer
from shim.wire import (
    events_pb2,
    services_events_ttrpc_v1_pb2,
    services_events_v1_pb2,
    services_version_v1_pb2,
    types_pb2,
)

_NAMES = {"ttrpc": "containerd.sock.ttrpc", "grpc": "containerd.sock"}


class Containerd:
    """The end of the line: keeps what it is forwarded, or refuses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.got: list[types_pb2.Envelope] = []
        self.calls: list[Call] = []
        self.refusal: ShimError | None = None
        self._server: TtrpcServer | GrpcServer | None = None

    async def forward(self, request: Any, call: Call) -> Empty:
        if self.refusal is not None:
            raise self.refusal
        self.got.append(request.envelope)
        self.calls.append(call)
        return Empty()

    # What else gRPC's Events service has.
    async def publish(self, request: Any, call: Call) -> Empty:
        return Empty()

    async def version(self, request: Empty, call: Call) -> services_version_v1_pb2.VersionResponse:
        if self.refusal is not None:
            raise self.refusal
        return services_version_v1_pb2.VersionResponse(version="v2.1.9")

    async def start(self) -> None:
        if self.path.suffix == ".ttrpc":
            events = services_events_ttrpc_v1_pb2.DESCRIPTOR.services_by_name["Events"]
            self._server = TtrpcServer([from_descriptor(events, self)])
        else:
            events = services_events_v1_pb2.DESCRIPTOR.services_by_name["Events"]
            version = services_version_v1_pb2.DESCRIPTOR.services_by_name["Version"]
            self._server = GrpcServer([from_descriptor(events, self), from_descriptor(version, self)])
        await self._server.start(self.path)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0.1)
            self._server = None


@pytest.fixture(params=["ttrpc", "grpc"])
async def containerd(request: pytest.FixtureRequest, room: Path) -> AsyncIterator[Containerd]:
    containerd = Containerd(room / _NAMES[request.param])
    yield containerd
    await containerd.stop()


def _event(number: int) -> Event:
    message = events_pb2.TaskStart(container_id=f"c{number}", pid=number)
    return Event(
        namespace="k8s.io",
        topic=Topic.START,
        type_url=message.DESCRIPTOR.full_name,
        value=message.SerializeToString(),
        timestamp=1_700_000_000_000_000_007,
    )


def test_an_envelope_says_what_containerd_reads() -> None:
    made = envelope(_event(5))
    assert (made.timestamp.seconds, made.timestamp.nanos) == (1_700_000_000, 7)
    assert (made.namespace, made.topic) == ("k8s.io", "/tasks/start")
    assert made.event.type_url == "containerd.events.TaskStart"  # without a prefix, as containerd's typeurl wants it
    assert events_pb2.TaskStart.FromString(made.event.value).pid == 5


async def test_the_addresss_name_says_the_transport() -> None:
    senders = sender("unix:///run/containerd/containerd.sock.ttrpc"), sender("/run/containerd/containerd.sock")
    assert [type(made) for made in senders] == [TtrpcSender, GrpcSender]
    for made in senders:
        await made.close()


async def test_an_event_arrives_as_it_was(containerd: Containerd) -> None:
    await containerd.start()
    way = sender(str(containerd.path))
    await way.send(_event(1))
    await way.send(_event(2))
    await way.close()
    assert containerd.got == [envelope(_event(1)), envelope(_event(2))]
    assert containerd.calls[0].namespace == "k8s.io"


async def test_nobody_there_means_later(containerd: Containerd) -> None:
    way = sender(f"unix://{containerd.path}")
    with pytest.raises(Unreachable):
        await way.send(_event(1))
    await containerd.start()
    async with asyncio.timeout(5):
        while not containerd.got:
            try:
                await way.send(_event(1))
            except Unreachable:
                await asyncio.sleep(0.02)
    await way.close()


async def test_a_refusal_is_what_containerd_answered(containerd: Containerd) -> None:
    containerd.refusal = InvalidRequest("no such topic")
    await containerd.start()
    way = sender(str(containerd.path))
    with pytest.raises(InvalidRequest, match="no such topic"):
        await way.send(_event(1))
    await way.close()


async def test_events_outlive_a_restart_of_containerd_in_order(containerd: Containerd) -> None:
    publisher = Publisher(sender, pauses=Pauses(0.01, 0.1))
    for number in range(10):
        publisher.publish(str(containerd.path), _event(number))
    await asyncio.sleep(0.05)
    await containerd.start()
    assert await publisher.flush(5)
    await containerd.stop()
    for number in range(10, 20):
        publisher.publish(str(containerd.path), _event(number))
    await asyncio.sleep(0.05)
    await containerd.start()
    assert await publisher.flush(5)
    assert [events_pb2.TaskStart.FromString(made.event.value).pid for made in containerd.got] == list(range(20))
    assert publisher.dropped == 0
    await publisher.close(1)


async def test_the_version_is_asked(room: Path) -> None:
    containerd = Containerd(room / "containerd.sock")
    with pytest.raises(Unreachable, match=r"containerd\.sock"):
        await ask_version(str(containerd.path))
    await containerd.start()
    assert await ask_version(f"unix://{containerd.path}") == "v2.1.9"
    containerd.refusal = InvalidRequest("not now")
    with pytest.raises(InvalidRequest, match="not now"):
        await ask_version(str(containerd.path))
    await containerd.stop()
