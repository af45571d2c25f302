"""containerd's Streaming service: a process's standard streams, read and written over the sandbox's address.

Bytes travel as containerd's transfer types (core/transfer/streaming): whoever receives says how many bytes more it
takes, and whoever sends keeps to it. So what is under way is bounded, both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from shim.errors import InvalidRequest
from shim.process.streaming import Inlet, Outlet, Rendezvous
from shim.rpc.service import Call, Stream
from shim.services.wellknown import packed
from shim.wire import services_streaming_v1_pb2, types_transfer_pb2

_LARGEST = 32 << 10  # bytes in a message; containerd counts a larger one wrongly where it reads it in parts (2.1.9)
_WINDOW = 64 << 10  # bytes that a caller may send ahead, as containerd's own receivers allow

Content = TypeVar("Content", bound=Message)
Result = TypeVar("Result")


class StreamingService:
    """Messages in, messages out."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous

    async def stream(self, stream: Stream, call: Call) -> None:
        """One stream, from its first message to its end.

        Raises InvalidRequest for a message that makes no sense here, AlreadyExists while another caller has the stream,
        TimedOut when no process is created with it.
        """
        first = await stream.receive()
        if first is None:
            raise InvalidRequest("a stream begins with a StreamInit")
        init = _unpacked(first, services_streaming_v1_pb2.StreamInit)
        with self._rendezvous.attach(init.id) as place:
            await stream.send(packed(Empty()))
            window = _Window()
            listening = asyncio.ensure_future(_listen(stream, window))
            try:
                end = await _unless(listening, place.claimed())
                if isinstance(end, Outlet) and not await _unless(listening, _give(stream, end, window)):
                    return
            finally:
                listening.cancel()
                await asyncio.wait([listening])
            if end is None:
                return
            if isinstance(end, Inlet):
                over = asyncio.ensure_future(end.over.wait())
                try:
                    await _unless(over, _take(stream, end))
                finally:
                    over.cancel()
            # Until its caller has read all, a stream is not over: only then may the process's exit be told.
            await stream.finish()


class _Window:
    """How many bytes a caller takes."""

    def __init__(self) -> None:
        self.size = 0
        self._open = asyncio.Event()

    def widen(self, size: int) -> None:
        """The caller takes so many more. Raises InvalidRequest for a number that is none."""
        if size < 0:
            raise InvalidRequest("a window cannot shrink", subject=f"update {size}")
        self.size += size
        if self.size:
            self._open.set()

    def spend(self, size: int) -> None:
        """So many have been sent."""
        self.size -= size
        if not self.size:
            self._open.clear()

    async def opened(self) -> None:
        """Wait until something may be sent."""
        await self._open.wait()


async def _listen(stream: Stream, window: _Window) -> None:
    """Widen the window as the caller says, until it says its last."""
    while (message := await stream.receive()) is not None:
        window.widen(_unpacked(message, types_transfer_pb2.WindowUpdate).update)


async def _give(stream: Stream, outlet: Outlet, window: _Window) -> bool:
    """Send the process's output until its end; then True."""
    while True:
        data = await outlet.peek(_LARGEST)
        if not data:
            return True
        await window.opened()
        data = data[: window.size]
        await stream.send(packed(types_transfer_pb2.Data(data=data)))
        outlet.take(len(data))
        window.spend(len(data))


async def _take(stream: Stream, inlet: Inlet) -> None:
    """Write what comes to the process's input until the caller says its last, or nobody reads it."""
    allowed = 0
    while True:
        if allowed <= _WINDOW // 2:
            await stream.send(packed(types_transfer_pb2.WindowUpdate(update=_WINDOW - allowed)))
            allowed = _WINDOW
        message = await stream.receive()
        if message is None:
            inlet.close()
            return
        data = _unpacked(message, types_transfer_pb2.Data).data
        allowed -= len(data)
        if allowed < 0:
            raise InvalidRequest("more was sent than the window allows", subject=f"{-allowed} bytes too many")
        if not await inlet.write(data):
            return


async def _unless(ended: asyncio.Future[Any], work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `work`, or None when `ended` is done first. Raises what either raises."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([ended, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        ended.result()
        return None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


def _unpacked(message: AnyMessage, kind: type[Content]) -> Content:
    """The message in an Any. Raises InvalidRequest when it is another, or none."""
    name = message.type_url.rpartition("/")[2]
    wanted = kind.DESCRIPTOR.full_name
    if name != wanted:
        raise InvalidRequest(f"a {wanted} was expected here", subject=name or "(no type)")
    try:
        return kind.FromString(message.value)
    except DecodeError as error:
        raise InvalidRequest(f"this is no {wanted}: {error}", subject=name) from error
