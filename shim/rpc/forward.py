"""Talking to containerd: forwarding events, asking its version."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from shim.events import Event, Sender
from shim.rpc.status import inward
from shim.rpc.ttrpc_client import TtrpcClient
from shim.wire import (
    services_events_ttrpc_v1_pb2,
    services_events_v1_pb2,
    services_version_v1_pb2,
    types_pb2,
)

_TIMEOUT = 5.0  # seconds for one event; containerd's publisher allows as much


def envelope(event: Event) -> types_pb2.Envelope:
    """The event as it travels."""
    return types_pb2.Envelope(
        timestamp=Timestamp(seconds=event.timestamp // 10**9, nanos=event.timestamp % 10**9),
        namespace=event.namespace,
        topic=event.topic,
        event=Any(type_url=event.type_url, value=event.value),
    )


class TtrpcSender:
    """Sends events to containerd's ttrpc socket over one connection, made anew when it was lost."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: TtrpcClient | None = None

    async def send(self, event: Event) -> None:
        """Forward one event. Raises Unreachable while containerd is away, and what it answers."""
        if self._client is None or self._client.closed:
            self._client = await TtrpcClient.connect(self._address)
        await self._client.call(
            "containerd.services.events.ttrpc.v1.Events",
            "Forward",
            services_events_ttrpc_v1_pb2.ForwardRequest(envelope=envelope(event)),
            Empty,
            namespace=event.namespace,
            timeout=_TIMEOUT,
        )

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


class GrpcSender:
    """Sends events to containerd's gRPC socket."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = _channel(address)

    async def send(self, event: Event) -> None:
        """Forward one event. Raises Unreachable while containerd is away, and what it answers."""
        await _unary(
            self._channel,
            self._address,
            "/containerd.services.events.v1.Events/Forward",
            services_events_v1_pb2.ForwardRequest(envelope=envelope(event)),
            (("containerd-namespace", event.namespace),),
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def sender(address: str) -> Sender:
    """What forwards to `address`: containerd names its ttrpc socket `….ttrpc`, any other is gRPC."""
    return TtrpcSender(address) if address.endswith(".ttrpc") else GrpcSender(address)


async def ask_version(address: str) -> str:
    """The version text of the containerd at a gRPC address. Raises Unreachable, and what it answers."""
    async with _channel(address) as channel:
        answer = await _unary(channel, address, "/containerd.services.version.v1.Version/Version", Empty(), ())
    return services_version_v1_pb2.VersionResponse.FromString(answer).version


def _channel(address: str) -> grpc.aio.Channel:
    # Each its own: gRPC would share a connection, and with it the back-off after containerd was away. That back-off
    # would grow to two minutes, and our own attempts meanwhile fail without a look at the socket.
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    return grpc.aio.insecure_channel(f"unix:{address.removeprefix('unix://')}", options=options)


async def _unary(
    channel: grpc.aio.Channel,
    address: str,
    method: str,
    request: Message,
    metadata: tuple[tuple[str, str], ...],
) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[Message, bytes] = channel.unary_unary(
        method, request_serializer=lambda message: message.SerializeToString(), response_deserializer=bytes
    )
    try:
        return await call(request, timeout=_TIMEOUT, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        raise inward(error.code().value[0], f"{address}: {error.details()}") from error
