"""One HTTP request to a monitor's API over its control socket (RFC 9112), as far as a monitor's API goes.

The peer is a monitor that runs somebody's guest, so nothing it says is believed, and it cannot make us keep much. How
long it may take is for the caller to say (`asyncio.timeout`).
"""

from __future__ import annotations

import asyncio
import re
import socket

from shim.errors import NodeFault, Unreachable

_LIMIT = 1 << 13  # bytes of a line, and of a body: refusals are a sentence
_HEADERS = 32
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r?\n)")
_LENGTH = re.compile(rb"(?i)content-length:[ \t]*([0-9]{1,4})[ \t]*\r?\n")


async def put(connection: socket.socket, path: str) -> None:
    """PUT without a body, over `connection`, which is closed at the end.

    Raises NodeFault where it is refused, with the refusal's words, or the answer is none; Unreachable where the monitor
    hangs up.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LIMIT)
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        await _answer(reader, path)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Unreachable("the monitor has hung up", subject=path) from error
    finally:
        # Not `close`: that waits for a peer to take what was written, and this one may never.
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, path: str) -> None:
    try:
        found = _STATUS.match(await reader.readuntil(b"\n"))
        if found is None:
            raise NodeFault("the monitor does not speak HTTP", subject=path)
        length = 0
        for _ in range(_HEADERS):
            line = await reader.readuntil(b"\n")
            if not line.strip():
                break
            if (said := _LENGTH.fullmatch(line)) is not None:
                length = int(said[1])
        else:
            raise NodeFault(f"the monitor's answer has more than {_HEADERS} headers", subject=path)
    except asyncio.LimitOverrunError as error:
        raise NodeFault(f"a line of the monitor's has more than {_LIMIT} bytes", subject=path) from error
    status = int(found[1])
    if not 200 <= status < 300:
        words = (await reader.readexactly(min(length, _LIMIT))).decode(errors="replace")
        raise NodeFault(f"the monitor refuses with {status}: {words}", subject=path)
