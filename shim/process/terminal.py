"""A process's terminal: the pty's master end, received from the engine, relayed to the streams.

The engine opens the pty inside the container and sends its master over a unix socket (`--console-socket`).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

from shim.errors import NodeFault, TimedOut
from shim.feed import Feed, Listener, Missed
from shim.process.readable import readable, writable
from shim.process.relay import Relay
from shim.process.stdio import Opener, Streams

_UNSEEN = 1 << 18  # bytes that wait for one who attached and is slow


class Terminal:
    """A received pty master and the relays to and from it."""

    def __init__(self, master: int, stdin: int | None, guard: int | None, stdout: int) -> None:
        self._master = master
        self._shown: Feed[bytes] = Feed(_UNSEEN, len)
        self._guard = guard
        self._owned = [descriptor for descriptor in (master, stdin, stdout) if descriptor is not None]
        for descriptor in self._owned:
            os.set_blocking(descriptor, False)
        self._drained = asyncio.Event()
        self._relays = [Relay(master, stdout, self._drained.set, self._shown.tell)]
        if stdin is not None:
            self._relays.append(Relay(stdin, master, lambda: None))

    def resize(self, width: int, height: int) -> None:
        """Set the window's size, in columns and rows."""
        _resize(self._master, width, height)

    @contextlib.contextmanager
    def attach(self) -> Iterator[Attached]:
        """Sit down at the terminal too, beside whoever the streams are: for as long as the context is open."""
        # The event loop knows a descriptor by its number, and the relay waits at the master itself.
        own = fcntl.fcntl(self._master, fcntl.F_DUPFD_CLOEXEC, 0)
        try:
            with self._shown.listen() as listener:
                yield Attached(own, listener)
        finally:
            os.close(own)

    def close_stdin(self) -> None:
        """Let the relay see end of file on stdin."""
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    async def drain(self, timeout: float) -> None:
        """Wait until all output was relayed, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await self._drained.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Stop relaying and close everything; harmless when repeated."""
        for relayed in self._relays:
            relayed.stop()
        self._relays.clear()
        self._shown.close()
        self.close_stdin()
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned.clear()


class Attached:
    """One more who sees and types. What it has not taken of the output is bounded, and nobody waits for it."""

    def __init__(self, master: int, shown: Listener[bytes]) -> None:
        self._master, self._shown = master, shown

    async def output(self) -> bytes | Missed | None:
        """What the terminal shows next, or how many bytes of it were missed; None once it is gone."""
        return await self._shown.next()

    def resize(self, width: int, height: int) -> None:
        """Set the window's size, in columns and rows: it is everybody's."""
        _resize(self._master, width, height)

    async def type(self, data: bytes) -> None:
        """Type all of it, waiting while the process does not read. Raises OSError once the terminal is gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._master, rest) :]
            except BlockingIOError:
                await writable(self._master)


def _resize(master: int, width: int, height: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


class ConsoleSocket:
    """The unix socket at which one engine run delivers one pty master."""

    def __init__(self, path: Path) -> None:
        """`path` must not exist and must be short enough for a unix socket (107 bytes, unix(7))."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.bind(os.fspath(path))
        self._socket.listen(1)

    async def receive(self, timeout: float = 30.0) -> int:
        """The pty's master. Raises TimedOut when the engine delivers none, NodeFault for something else."""
        try:
            async with asyncio.timeout(timeout):
                connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
                with connection:
                    await readable(connection.fileno())
                    return _received_descriptor(connection)
        except TimeoutError:
            raise TimedOut("the engine delivered no terminal", subject=os.fspath(self.path)) from None

    def close(self) -> None:
        """Close the socket and remove its file."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


def _received_descriptor(connection: socket.socket) -> int:
    numbers = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(numbers.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: numbers.itemsize])
            return numbers[0]
    raise NodeFault("the engine sent something other than a terminal")


async def relay(opener: Opener, master: int, streams: Streams, container: str, namespace: str) -> Terminal:
    """Connect a pty's master to the streams; takes ownership of `master`, also on failure."""
    try:
        stdin, guard = opener.stdin(streams) if streams.stdin else (None, None)
        try:
            stdout, stderr = await opener.outputs(streams, container, namespace)
        except BaseException:
            for descriptor in (stdin, guard):
                if descriptor is not None:
                    os.close(descriptor)
            raise
    except BaseException:
        os.close(master)
        raise
    os.close(stderr)  # a terminal has one output
    return Terminal(master, stdin, guard, stdout)
