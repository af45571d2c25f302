"""A container's terminal over a stream: what it shows goes out, what is typed comes in, neither waits for the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from shim.errors import InvalidRequest
from shim.feed import Missed
from shim.process.terminal import Attached
from shim.rpc.service import Stream
from shim.sandbox.consoles import container_in, terminal_of
from shim.sandbox.lookup import find
from shim.sandbox.sandbox import Sandbox
from shim.wire import inspection_pb2 as pb

_LARGEST = 65535  # columns or rows: an unsigned short each (struct winsize, ioctl_tty(2))


async def console(sandboxes: Iterable[Sandbox], stream: Stream) -> None:
    """One who attaches, from its first message until it goes away or the terminal does.

    Raises InvalidRequest for a message that makes no sense here, and what `find`, `container_in` and `terminal_of` do.
    """
    first = await stream.receive()
    if first is None or first.WhichOneof("what") != "open":
        raise InvalidRequest("a console begins with `open`")
    sandbox = find(sandboxes, first.open.pod)
    container = container_in(sandbox, first.open.container)
    with terminal_of(container).attach() as attached:
        namespace, name = sandbox.pod_name
        opened = pb.ConsoleOpened(id=sandbox.id, pod_namespace=namespace, pod_name=name, container=container.id)
        await stream.send(pb.ConsoleResponse(opened=opened))
        typing = asyncio.ensure_future(_type(stream, attached))
        showing = asyncio.ensure_future(_show(stream, attached))
        try:
            await asyncio.wait((typing, showing), return_when=asyncio.FIRST_COMPLETED)
            if not showing.done():
                typing.result()
                return
            showing.result()
        finally:
            for work in (typing, showing):
                work.cancel()
            await asyncio.wait((typing, showing))
    ended = await container.init.wait()
    await stream.send(pb.ConsoleResponse(closed=pb.ConsoleClosed(exit_status=ended.status)))


async def _show(stream: Stream, attached: Attached) -> None:
    """Send what the terminal shows until it is gone."""
    while (shown := await attached.output()) is not None:
        told: Any = {"missed": shown.count} if isinstance(shown, Missed) else {"output": shown}
        await stream.send(pb.ConsoleResponse(**told))


async def _type(stream: Stream, attached: Attached) -> None:
    """Type what comes until the caller has said its last."""
    while (message := await stream.receive()) is not None:
        match message.WhichOneof("what"):
            case "input":
                # The process is gone: `_show` sees it too, and says so.
                with contextlib.suppress(OSError):
                    await attached.type(message.input)
            case "resize":
                columns, rows = message.resize.columns, message.resize.rows
                if not (0 < columns <= _LARGEST and 0 < rows <= _LARGEST):
                    raise InvalidRequest("not a window's size", subject=f"{columns}x{rows}")
                with contextlib.suppress(OSError):
                    attached.resize(columns, rows)
            case other:
                raise InvalidRequest("not what follows `open`", subject=str(other))
