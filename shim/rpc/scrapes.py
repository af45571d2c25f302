"""The HTTP door at which Prometheus fetches metrics. It answers one GET a connection, on the loop, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from shim import log
from shim.errors import InvalidRequest, NodeFault
from shim.rpc import unix

_log = log.get(__name__)

_UNIX = "unix:"
_PATH = "/metrics"
_HEAD_LIMIT = 16 << 10  # bytes of a request's head
_TIMEOUT = 5.0  # seconds that a client has for its request, and for taking the answer
_CLIENTS = 16  # at once; more than these are not scrapers

#: From a request's Accept header to the answer's content type and body.
Exposition = Callable[[str], Awaitable[tuple[str, bytes]]]


class ScrapeServer:
    """Serves GET /metrics."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._server: asyncio.Server | None = None
        self._socket: tuple[Path, int] | None = None  # path and inode
        self._clients: set[asyncio.Task[None]] = set()
        #: Where it listens: ("127.0.0.1", PORT), or a path.
        self.address: tuple[str, int] | Path | None = None

    async def start(self, listen: str) -> None:
        """Listen at HOST:PORT, or at `unix:PATH` for root alone. Raises InvalidRequest, NodeFault."""
        if listen.startswith(_UNIX):
            path = Path(listen.removeprefix(_UNIX))
            opened = unix.listen(path)
            self._server = await asyncio.start_unix_server(self._accept, sock=opened, limit=_HEAD_LIMIT)
            self._socket = path, path.lstat().st_ino  # noqa: ASYNC240 - neither blocks nor walks
            self.address = path
        else:
            host, port = parse_address(listen)
            try:
                self._server = await asyncio.start_server(self._accept, host, port, limit=_HEAD_LIMIT)
            except OSError as error:
                raise NodeFault(
                    f"metrics cannot be served: {error.strerror or error}",
                    subject=listen,
                    remedy="choose another address in metrics.listen",
                ) from error
            self.address = self._server.sockets[0].getsockname()[:2]
        _log.info("serving metrics", address=str(self.address))

    async def stop(self) -> None:
        """Close the door, and whatever still talks; harmless before `start`."""
        if self._server is None:
            return
        self._server.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients)
        if self._socket is not None:
            unix.release(*self._socket)
        self._server = self._socket = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _CLIENTS:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # slow, gone, or no HTTP: there is nobody to tell
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        target = rest.partition(" ")[0].partition("?")[0]
        if target != _PATH:
            return _response("404 Not Found", "text/plain; charset=utf-8", f"metrics are at {_PATH}\n".encode())
        if method != "GET":
            return _response("405 Method Not Allowed", "text/plain; charset=utf-8", b"GET\n", "Allow: GET\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return _response("200 OK", *await self._exposition(headers.get("accept", "")))


def parse_address(listen: str) -> tuple[str, int]:
    """HOST and PORT of HOST:PORT, with [HOST] for IPv6. Raises InvalidRequest."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidRequest(
            "not an address to serve metrics at",
            subject=listen,
            remedy="metrics.listen is HOST:PORT, such as 127.0.0.1:9477, or unix:/path",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _response(status: str, kind: str, body: bytes, more: str = "") -> bytes:
    """RFC 9112."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
