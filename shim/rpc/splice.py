"""Connections joined in pairs: from a socket that listens already to one that gRPC made.

gRPC's core can take over sockets of systemd's only where it was built with libsystemd, and Python's packages of it are
not; its Python interface takes no descriptor. So what is accepted at systemd's socket is carried on, byte by byte.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

from shim import log
from shim.rpc import unix

_log = log.get(__name__)


class Splice:
    """Carries what comes in at `listening` to `path`, and back."""

    def __init__(self, listening: socket.socket, path: Path) -> None:
        self._listening, self._path = listening, path
        self._server: asyncio.Server | None = None
        self._joined: set[_End] = set()
        self._joining: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Accept."""
        self._server = await unix.serve(lambda: _Outer(self), self._listening)

    def refuse(self) -> None:
        """Accept no more. Who connects now waits for whoever listens next: the socket is not ours alone."""
        if self._server is not None:
            self._server.close()

    def stop(self) -> None:
        """End every connection once what was written is sent."""
        for task in self._joining:
            task.cancel()
        for end in list(self._joined):
            end.close()

    def join(self, outer: _End) -> None:
        """Give a connection its other end, from which it is read afterwards."""
        self._joined.add(outer)
        task = asyncio.ensure_future(self._join(outer))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def forget(self, end: _End) -> None:
        """It is closed."""
        self._joined.discard(end)

    async def _join(self, outer: _End) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: _Inner(outer), os.fspath(self._path))
        except OSError as error:
            _log.warning("a connection cannot be carried to gRPC", path=os.fspath(self._path), error=error.strerror)
            outer.close()


class _End(asyncio.Protocol):
    """One of two connections: what it reads, the other writes, and it ends with the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            # uvloop begins to read after connection_made, whatever was said there; so it is said again.
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def join(self, other: _End) -> None:
        """Go on with the other end: what came before it is written first."""
        self.other, other.other = other, self
        assert other.transport is not None
        other.transport.write(self._early)
        self._early = b""
        if self.transport is not None:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None:
            self.other.close()

    def close(self) -> None:
        """Close once what was written is sent."""
        if self.transport is not None:
            self.transport.close()


class _Outer(_End):
    """A caller's connection."""

    def __init__(self, splice: Splice) -> None:
        super().__init__()
        self._splice = splice

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        if not unix.trusted(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return
        self.transport.pause_reading()
        self._splice.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._splice.forget(self)


class _Inner(_End):
    """The connection to gRPC that a caller's is joined to."""

    def __init__(self, outer: _End) -> None:
        super().__init__()
        self._outer = outer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._outer.transport is None:  # gone meanwhile
            self.close()
            return
        self._outer.join(self)
