"""Protobuf's well-known types as containerd writes them."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(nanoseconds: int) -> Timestamp | None:
    """A time since the epoch; None for 0, which stands for "not yet"."""
    if not nanoseconds:
        return None
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


def packed(message: Message) -> Any:
    """A message in an Any whose type URL is the bare name, with no host before it."""
    return Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())
