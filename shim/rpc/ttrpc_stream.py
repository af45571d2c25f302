"""A stream of many messages on a ttrpc connection, as either end sees it (containerd/ttrpc, PROTOCOL.md).

ttrpc itself has no flow control for a stream: a reader that falls behind holds up its whole connection, and a writer
waits while the connection's peer is slow. containerd opens a connection for each stream, so nobody else is held up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from shim.errors import Exhausted, ShimError, Unreachable
from shim.rpc.ttrpc_codec import LIMIT, Flag, Frame, Type, encode

_QUEUE = 16  # messages kept for a reader that is behind, before its connection is read no more


class Flow:
    """Back-pressure of one connection, both ways: whether it is read, and when there is room to write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._holds: set[object] = set()
        self._room = asyncio.Event()
        self._room.set()

    def hold(self, reason: object) -> None:
        """Read no more until every reason was released."""
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds.add(reason)

    def release(self, reason: object) -> None:
        """Take a reason away; harmless when it was not given."""
        if reason not in self._holds:
            return
        self._holds.discard(reason)
        if not self._holds and not self._transport.is_closing():
            self._transport.resume_reading()

    def full(self) -> None:
        """As the protocol's pause_writing."""
        self._room.clear()

    def roomy(self) -> None:
        """As its resume_writing; also once the connection is lost, so that nobody waits for a peer that is gone."""
        self._room.set()

    async def write(self, frame: Frame) -> None:
        """Write a frame once there is room. Raises Unreachable when the connection is gone, or goes meanwhile."""
        await self._room.wait()
        if self._transport.is_closing():
            raise Unreachable("the peer of the stream is gone")
        self._transport.write(encode(frame))


class TtrpcStream:
    """One stream; what is received is fed by its connection."""

    def __init__(
        self, id: int, flow: Flow, decode: Callable[[bytes], Message], ended: Callable[[TtrpcStream], None]
    ) -> None:
        """`ended` is called once, when both ends have closed their halves."""
        self.id = id
        self._flow = flow
        self._decode = decode
        self._ended = ended
        self._received: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._failure: ShimError | None = None
        self._ignoring = False
        self._closed_here = self._closed_there = False

    def feed(self, frame: Frame) -> None:
        """Take in a data frame of the peer's; what comes after its end is dropped."""
        if self._closed_there:
            return
        if frame.oversize:
            self.fail(Exhausted(f"message of {frame.oversize} bytes exceeds the limit of {LIMIT}"))
            return
        if not frame.flags & Flag.NO_DATA and not self._ignoring:
            self._received.append(frame.payload)
            if len(self._received) >= _QUEUE:
                self._flow.hold(self)
        if frame.flags & Flag.REMOTE_CLOSED:
            self._end(there=True)
        self._news.set()

    def fail(self, failure: ShimError) -> None:
        """Nothing more comes; `receive` raises this once it has given out what came before."""
        self._failure = self._failure or failure
        self._end(there=True)
        self._news.set()

    @property
    def closed(self) -> bool:
        """Whether both ends have closed their halves."""
        return self._closed_here and self._closed_there

    def _end(self, *, here: bool = False, there: bool = False) -> None:
        before = self.closed
        self._closed_here |= here
        self._closed_there |= there
        if self.closed and not before:
            self._ended(self)

    async def receive(self) -> Any | None:
        """The peer's next message, None once it has closed its half.

        Raises DecodeError, Exhausted for one that was too large, and what ended the stream.
        """
        while not self._received:
            if self._failure is not None:
                raise self._failure
            if self._closed_there:
                return None
            self._news.clear()
            await self._news.wait()
        payload = self._received.popleft()
        if len(self._received) < _QUEUE:
            self._flow.release(self)
        return self._decode(payload)

    async def send(self, message: Message) -> None:
        """Send a message, once the connection has room for it. When it is cut off, nothing was sent.

        Raises Unreachable when the peer is gone, Exhausted for a message that is too large.
        """
        if self._closed_here:
            raise Unreachable("the stream has been closed")
        payload = message.SerializeToString()
        if len(payload) > LIMIT:
            raise Exhausted(f"message of {len(payload)} bytes exceeds the limit of {LIMIT}")
        await self._flow.write(Frame(self.id, Type.DATA, payload))

    async def close(self) -> None:
        """Say that no message follows; harmless when repeated. Raises Unreachable when the peer is gone."""
        if not self._closed_here:
            await self._flow.write(Frame(self.id, Type.DATA, b"", Flag.REMOTE_CLOSED | Flag.NO_DATA))
            self._end(here=True)

    async def finish(self) -> None:
        """Close, and wait until the peer has closed too: it has then read all that was sent. Raises as `receive`."""
        await self.close()
        while await self.receive() is not None:
            pass

    def ignore(self) -> None:
        """Nobody receives any more: what still comes is dropped, so that it holds up no others."""
        self._ignoring = True
        self._received.clear()
        self._flow.release(self)

    def abandon(self) -> None:
        """The stream ends without another word from here, whatever the peer still says."""
        self.ignore()
        self._end(here=True, there=True)
