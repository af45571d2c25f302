"""One HTTP request to a monitor's API over its control socket (RFC 9112), as far as a monitor's API goes.

The peer is a monitor that runs somebody's guest, so nothing it says is believed, and it cannot make us keep much. How
long it may take is for the caller to say (`asyncio.timeout`).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence

from shim.errors import NodeFault, Unreachable

_LINE = 1 << 13  # bytes of a line, and of a refusal, which is a sentence
_BODY = 1 << 20  # bytes of an answer: a machine's description has a few hundred for each device
_HEADERS = 32
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r?\n)")
_LENGTH = re.compile(rb"(?i)content-length:[ \t]*([0-9]{1,9})[ \t]*\r?\n")


async def get(connection: socket.socket, path: str) -> bytes:
    """GET over `connection`, which is closed at the end: the answer's body. Raises as `put`."""
    return await _request(connection, "GET", path, b"", ())


async def put(connection: socket.socket, path: str, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
    """PUT over `connection`, which is closed at the end; `body` is JSON, `descriptors` go with the request's first
    bytes (SCM_RIGHTS, unix(7)) and stay the caller's to close.

    Raises NodeFault where it is refused, with the refusal's words, or the answer is none; Unreachable where the monitor
    hangs up.
    """
    await _request(connection, "PUT", path, body, descriptors)


async def _request(connection: socket.socket, method: str, path: str, body: bytes, descriptors: Sequence[int]) -> bytes:
    kind = "Content-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode()
    try:
        # A connection's buffer is empty at first and takes these; a stream of asyncio's passes no descriptors.
        sent = socket.send_fds(connection, [head], list(descriptors)) if descriptors else 0
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE)
    except BaseException as error:
        connection.close()
        if isinstance(error, ConnectionError):
            raise Unreachable("the monitor has hung up", subject=path) from error
        raise
    try:
        writer.write(head[sent:] + body)
        await writer.drain()
        return await _answer(reader, path)
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Unreachable("the monitor has hung up", subject=path) from error
    finally:
        # Not `close`: that waits for a peer to take what was written, and this one may never.
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, path: str) -> bytes:
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
        raise NodeFault(f"a line of the monitor's has more than {_LINE} bytes", subject=path) from error
    status = int(found[1])
    if not 200 <= status < 300:
        words = (await reader.readexactly(min(length, _LINE))).decode(errors="replace")
        raise NodeFault(f"the monitor refuses with {status}: {words}", subject=path)
    if length > _BODY:
        raise NodeFault(f"the monitor's answer has {length} bytes, more than {_BODY}", subject=path)
    return await reader.readexactly(length)
