"""QEMU's Machine Protocol: one JSON object a line (QEMU, docs/interop/qmp-spec).

The peer is a monitor that runs somebody's guest, so nothing it says is believed, and it cannot make us keep much: a
line has a limit, and so have the lines that are nobody's answer. How long it may take is for the caller to say
(`asyncio.timeout`): whatever waits here can be cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from shim.errors import NodeFault, Unreachable

_LINE = 1 << 16  # bytes; the answers to what is asked here have a few hundred
_UNASKED = 64  # messages; QEMU sends an event or two between a command and its answer


class _Error(msgspec.Struct):
    desc: str = ""


class _Message(msgspec.Struct):
    """Any of the four kinds: a greeting (`QMP`), an event, an answer (`return`), a refusal (`error`)."""

    greeting: Any = msgspec.field(name="QMP", default=msgspec.UNSET)
    event: str | None = None
    answer: Any = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Error | None = None
    id: Any = None


class Session:
    """A conversation with one QEMU. `session` opens it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)

    async def greeted(self) -> None:
        """Take the greeting and leave the negotiation, in which nothing else can be asked. Raises as `execute`."""
        if (await self._receive()).greeting is msgspec.UNSET:
            raise NodeFault("the monitor does not greet as QEMU does", subject="QMP")
        await self.execute("qmp_capabilities")

    async def execute(self, command: str) -> Any:
        """What QEMU answers to a command without arguments.

        Raises NodeFault where it refuses, or says what QEMU does not say, Unreachable where it hangs up.
        """
        number = next(self._numbers)
        request = msgspec.json.encode({"execute": command, "id": number}) + b"\n"
        try:
            self._writer.write(request)
            await self._writer.drain()
        except ConnectionError as error:
            raise Unreachable("the monitor has hung up", subject=command) from error
        for _ in range(_UNASKED):
            message = await self._receive()
            if message.event is not None:
                continue
            if message.error is not None:
                raise NodeFault(f"QEMU refuses: {message.error.desc}", subject=command)
            if message.answer is msgspec.UNSET or message.id != number:
                raise NodeFault("the monitor's answer makes no sense", subject=command)
            return message.answer
        raise NodeFault(f"the monitor says {_UNASKED} things and answers nothing", subject=command)

    async def _receive(self) -> _Message:
        try:
            line = await self._reader.readline()
        except ConnectionError as error:
            raise Unreachable("the monitor has hung up", subject="QMP") from error
        except ValueError as error:  # longer than the reader's limit
            raise NodeFault(f"a line of the monitor's has more than {_LINE} bytes", subject="QMP") from error
        if not line.endswith(b"\n"):
            raise Unreachable("the monitor has hung up", subject="QMP")
        try:
            return msgspec.json.decode(line, type=_Message)
        except (ValueError, RecursionError) as error:  # no JSON, of other types, or nested without end
            raise NodeFault(f"the monitor does not speak QMP: {error}", subject="QMP") from error


@asynccontextmanager
async def session(connection: socket.socket) -> AsyncIterator[Session]:
    """A conversation over `connection`, which is closed at its end. Raises as `Session.execute`."""
    try:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE)
    except BaseException:
        connection.close()
        raise
    try:
        opened = Session(reader, writer)
        await opened.greeted()
        yield opened
    finally:
        # Not `close`: that waits for a peer to take what was written, and this one may never.
        writer.transport.abort()
