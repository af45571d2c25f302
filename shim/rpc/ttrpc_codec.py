"""ttrpc's framing, with no stream behind it (containerd/ttrpc, PROTOCOL.md).

A frame is a ten-byte header — length, stream id, type, flags — and that many bytes. Clients use odd stream ids.
"""

from __future__ import annotations

import enum
import struct

import msgspec

_HEADER = struct.Struct(">IIBB")
#: The largest payload of a frame, in bytes (ttrpc's messageLengthMax).
LIMIT = 4 << 20


class Type(enum.IntEnum):
    """What a frame carries."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flag(enum.IntFlag):
    """Flags of stream frames."""

    REMOTE_CLOSED = 1
    REMOTE_OPEN = 2
    NO_DATA = 4


class Frame(msgspec.Struct, frozen=True):
    """One frame. `oversize` is the length of a payload that was too large and was dropped, else 0."""

    stream: int
    type: int
    payload: bytes = b""
    flags: int = 0
    oversize: int = 0


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises ValueError for a payload over LIMIT."""
    if len(frame.payload) > LIMIT:
        raise ValueError(f"{len(frame.payload)} bytes exceed ttrpc's limit of {LIMIT}")
    return _HEADER.pack(len(frame.payload), frame.stream, frame.type, frame.flags) + frame.payload


class Decoder:
    """Cuts received bytes into frames, however they were split; an oversize payload is skipped, not kept."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. An oversize one is reported as soon as its header is read."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            length, stream, kind, flags = _HEADER.unpack_from(self._buffer, start)
            end = start + _HEADER.size + length
            if length > LIMIT:
                frames.append(Frame(stream, kind, flags=flags, oversize=length))
                self._skip = max(0, end - len(self._buffer))
                start = min(end, len(self._buffer))
                continue
            if len(self._buffer) < end:
                break
            frames.append(Frame(stream, kind, bytes(self._buffer[start + _HEADER.size : end]), flags))
            start = end
        del self._buffer[:start]
        return frames
