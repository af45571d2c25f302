"""Copying between two descriptors on the event loop: for terminals, and for what a monitor says on stderr."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from shim import log

_log = log.get(__name__)
_CHUNK = 65536
_BACKLOG = 1 << 18  # bytes kept for a slow reader before the guest is made to wait


class Relay:
    """Copies one descriptor into another on the event loop, with a bounded backlog; owns neither."""

    def __init__(
        self,
        source: int,
        sink: int,
        at_end: Callable[[], None],
        overhear: Callable[[bytes], None] | None = None,
    ) -> None:
        """`at_end` is called once when the source has ended and all was written; `overhear` sees each chunk."""
        self._loop = asyncio.get_running_loop()
        self._source, self._sink, self._at_end, self._overhear = source, sink, at_end, overhear
        self._backlog = bytearray()
        self._reading = self._writing = False
        self._ended = False
        self._resume()

    def _resume(self) -> None:
        if not self._reading and not self._ended:
            self._loop.add_reader(self._source, self._readable)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._source)
            self._reading = False

    def _readable(self) -> None:
        try:
            chunk = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            # A pty's master says EIO when the last process has closed the terminal.
            if error.errno != errno.EIO:
                raise
            chunk = b""
        if not chunk:
            self._ended = True
            self._pause()
            if not self._backlog:
                self._at_end()
            return
        if self._overhear is not None:
            self._overhear(chunk)
        self._backlog += chunk
        if len(self._backlog) >= _BACKLOG:
            self._pause()
        self._writable()

    def _writable(self) -> None:
        try:
            while self._backlog:
                del self._backlog[: os.write(self._sink, self._backlog)]
        except BlockingIOError:
            if not self._writing:
                self._loop.add_writer(self._sink, self._writable)
                self._writing = True
            return
        except OSError:
            self._backlog.clear()
        if self._writing:
            self._loop.remove_writer(self._sink)
            self._writing = False
        if self._ended:
            self._at_end()
        else:
            self._resume()

    def stop(self) -> None:
        """Stop copying, whatever is left."""
        self._ended = True
        self._pause()
        if self._writing:
            self._loop.remove_writer(self._sink)
            self._writing = False

    def flush(self) -> None:
        """Copy what can be read right now, for a source that never ends by itself."""
        if self._reading:
            self._readable()


class Overheard:
    """A monitor's stderr: a FIFO of ours, relayed to where the caller wants it, its end remembered.

    A monitor that dies at once says why on stderr, and only there. The FIFO has a name so that a restarted daemon can
    take the relay up again; the monitor holds it open for reading too, so a missing reader is no error to it.
    """

    _KEPT = 4096  # bytes

    def __init__(self, path: Path, sink: int) -> None:
        """Make (or take up) the FIFO at `path`; takes ownership of `sink`."""
        self.path = path
        self._tail = b""
        self._sink = sink
        try:
            if not path.exists():
                os.mkfifo(path, 0o600)
            self._source = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            os.close(sink)
            raise
        os.set_blocking(sink, False)
        self._relay: Relay | None = Relay(self._source, sink, lambda: None, self._hear)

    def _hear(self, chunk: bytes) -> None:
        self._tail = (self._tail + chunk)[-self._KEPT :]

    def for_child(self) -> int:
        """A descriptor for the monitor; the caller closes it."""
        return os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def words(self) -> str:
        """The last that was said, as one line."""
        if self._relay is not None:
            self._relay.flush()
        return " / ".join(line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip())

    def close(self) -> None:
        """Relay what is left, stop, and remove the FIFO; harmless when repeated."""
        if self._relay is None:
            return
        self._relay.flush()
        self._relay.stop()
        self._relay = None
        os.close(self._source)
        os.close(self._sink)
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            # It goes with the container's directory; an end must not wait for a disk.
            _log.warning("the FIFO stays", path=os.fspath(self.path), error=str(error))
