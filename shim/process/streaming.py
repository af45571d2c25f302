"""Standard streams that a caller reads and writes over RPC, each known by an id.

The caller opens its half first and names the id afterwards, when it has a process created: `Rendezvous` is where both
meet. The process itself has a FIFO of ours. That has a name, so the next daemon takes it up again; while nobody reads
it, output waits in it, and the process with it once it is full. A caller that lost its half (a containerd that was
restarted) opens another under the same id and goes on where the former had stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from shim import log, telemetry
from shim.errors import AlreadyExists, InvalidRequest, TimedOut
from shim.telemetry import Leftover, Tally

_log = log.get(__name__)

# As containerd's identifiers (a container's or an exec's, 76 bytes at most) with its "-stdout" behind it.
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_ID_LIMIT = 84
_CHUNK = 32 << 10  # bytes read at once; containerd's readers take as many (core/transfer/streaming/stream.go, maxRead)
#: Seconds a stream waits for a process to be created with it. The kubelet starts what it created at once, a person with
#: crictl need not; one whose caller closes it or goes away is dropped at once.
PATIENCE = 3600.0


def check(id: str) -> str:
    """`id` itself. Raises InvalidRequest when it cannot be a stream's: it becomes a file's name."""
    if len(id) > _ID_LIMIT or not _ID.fullmatch(id) or ".." in id:
        raise InvalidRequest(
            "not a stream id",
            subject=repr(id),
            remedy=f"use letters and digits with '.', '_' or '-' between them, {_ID_LIMIT} characters at most",
        )
    return id


def id_in(value: str) -> str | None:
    """The id in a stream's URL, as `ttrpc+unix:///run/x.sock?streaming_id=ID`; None for another scheme.

    Whose address it is does not matter: the stream was opened here or does not exist. Raises InvalidRequest without id.
    """
    parts = urlsplit(value)
    protocol, plus, _ = parts.scheme.partition("+")
    if not plus or protocol not in ("ttrpc", "grpc"):
        return None
    ids = parse_qs(parts.query).get("streaming_id", [])
    if len(ids) != 1:
        raise InvalidRequest("a stream's URL has one streaming_id", subject=value)
    return check(ids[0])


class Outlet:
    """A process's output: the reading end of its FIFO."""

    def __init__(self, path: Path | None) -> None:
        """Make (or take up) the FIFO at `path`; None for a process that has ended and left nothing."""
        self._path = path
        self._source: int | None = None
        self._held = bytearray()
        self._news = asyncio.Event()
        if path is not None:
            _make_fifo(path)
            self._source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def for_child(self) -> int:
        """A descriptor for the process; the caller closes it.

        It can be read too: whoever writes while no daemon reads must wait, and not die of SIGPIPE.
        """
        assert self._path is not None
        return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    async def peek(self, limit: int) -> bytes:
        """What comes next, `limit` bytes at most, which stays until it is taken; b"" once nothing more will come."""
        while not self._held and self._source is not None:
            try:
                chunk = os.read(self._source, _CHUNK)
            except BlockingIOError:
                await self._readable(self._source)
                continue
            if chunk:
                self._held += chunk
            else:
                self.close()
        return bytes(self._held[:limit])

    def take(self, size: int) -> None:
        """The next `size` bytes have been handed on."""
        del self._held[:size]

    async def _readable(self, source: int) -> None:
        loop = asyncio.get_running_loop()
        self._news.clear()
        loop.add_reader(source, self._news.set)
        try:
            await self._news.wait()
        finally:
            if self._source is not None:
                loop.remove_reader(source)

    def close(self) -> None:
        """The process has ended: keep what it left (a pipe's capacity at most), let go of the FIFO. Harmless twice."""
        if self._source is None:
            return
        asyncio.get_running_loop().remove_reader(self._source)
        waiting = struct.unpack("i", fcntl.ioctl(self._source, termios.FIONREAD, bytes(4)))[0]
        if waiting:
            self._held += os.read(self._source, waiting)
        os.close(self._source)
        self._source = None
        self._news.set()


class Inlet:
    """A process's input: the writing end of its FIFO."""

    def __init__(self, path: Path | None) -> None:
        """Make (or take up) the FIFO at `path`; None for a process that has ended."""
        self._path = path
        self._sink: int | None = None
        self._news = asyncio.Event()
        #: Set when nothing can be written any more.
        self.over = asyncio.Event()
        if path is None:
            self.over.set()
        else:
            _make_fifo(path)

    def for_child(self) -> tuple[int, int]:
        """Descriptors for the process, and for whoever holds its input open until CloseIO; the caller closes both."""
        assert self._path is not None
        with contextlib.ExitStack() as undo:
            # Without O_NONBLOCK this would wait for a writer; the process, which shares the open file, is to wait.
            reading = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            undo.callback(os.close, reading)
            os.set_blocking(reading, True)
            guard = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            undo.callback(os.close, guard)
            self._sink = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            undo.pop_all()
        return reading, guard

    async def write(self, data: bytes) -> bool:
        """Write all of it, waiting while the process is slow; False when nobody will read it."""
        rest = memoryview(data)
        while rest:
            if self._sink is None:
                return False
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BlockingIOError:
                await self._writable(self._sink)
            except BrokenPipeError:
                self.close()
        return True

    async def _writable(self, sink: int) -> None:
        loop = asyncio.get_running_loop()
        self._news.clear()
        loop.add_writer(sink, self._news.set)
        try:
            await self._news.wait()
        finally:
            if self._sink is not None:
                loop.remove_writer(sink)

    def close(self) -> None:
        """The caller has said its last, and the process sees the end once CloseIO was called too; or the process has
        ended. Harmless twice."""
        if self._sink is not None:
            asyncio.get_running_loop().remove_writer(self._sink)
            os.close(self._sink)
            self._sink = None
        self._news.set()
        self.over.set()


End = Outlet | Inlet


class Place:
    """One id: the caller's half, the process's end, or both."""

    def __init__(self) -> None:
        self.attached = False
        self.end: End | None = None
        self._claimed = asyncio.Event()
        #: Set while no caller is attached.
        self.quiet = asyncio.Event()
        self.quiet.set()

    def meet(self, end: End) -> None:
        """The process's end is there."""
        self.end = end
        self._claimed.set()

    async def claimed(self) -> End:
        """The process's end, once there is one. Raises TimedOut when there is none for long."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._claimed.wait()
        except TimeoutError:
            raise TimedOut("no process was created with this stream", remedy="open it when you create one") from None
        assert self.end is not None
        return self.end


class Rendezvous:
    """Where callers' halves of streams and processes' ends meet, by id."""

    def __init__(self, directory: Path) -> None:
        """`directory` is for the FIFOs and exists."""
        self._directory = directory
        self._places: dict[str, Place] = {}

    @contextmanager
    def attach(self, id: str) -> Iterator[Place]:
        """The caller's half, for as long as the context is open.

        Raises AlreadyExists while another caller has it, InvalidRequest for what is no id.
        """
        place = self._places.setdefault(check(id), Place())
        if place.attached:
            raise AlreadyExists("the stream is open", subject=id, remedy="close it first")
        place.attached = True
        place.quiet.clear()
        try:
            yield place
        finally:
            place.attached = False
            place.quiet.set()
            if place.end is None and self._places.get(id) is place:
                del self._places[id]

    def outlet(self, id: str, *, adopted: bool = False) -> int:
        """Where a process writes; the caller closes the descriptor. `adopted` for one that a former daemon created.

        Raises InvalidRequest when no caller has opened the stream, AlreadyExists when another process has it.
        """
        place = self._claim(id, adopted)
        end = Outlet(self._directory / id)
        try:
            # Before anybody reads: a FIFO that nobody can write to is at its end.
            child = end.for_child()
        except BaseException:
            end.close()
            raise
        place.meet(end)
        return child

    def inlet(self, id: str, *, adopted: bool = False) -> tuple[int, int]:
        """What a process reads, and what keeps it from reading the end before CloseIO. As `outlet` otherwise."""
        place = self._claim(id, adopted)
        end = Inlet(self._directory / id)
        child = end.for_child()
        place.meet(end)
        return child

    def _claim(self, id: str, adopted: bool) -> Place:
        place = self._places.setdefault(id, Place()) if adopted else self._places.get(id)
        if place is None:
            raise InvalidRequest("no stream of this id is open", subject=id, remedy="open it before it is named")
        if place.end is not None:
            raise AlreadyExists("another process has this stream", subject=id)
        return place

    async def end(self, outputs: Sequence[str], inputs: Sequence[str], grace: float) -> None:
        """The process has ended: hand on what it wrote, `grace` seconds at most where somebody reads.

        What was not read by then waits for its reader until `forget`. Ids may be of streams that nobody had.
        """
        out = [self._places.setdefault(id, Place()) for id in outputs]
        reading = [asyncio.ensure_future(place.quiet.wait()) for place in out if place.end is not None]
        if reading and grace:
            await asyncio.wait(reading, timeout=grace)
        for wait in reading:
            wait.cancel()
        for place in out:
            _close(place, Outlet)
        for id in inputs:
            _close(self._places.setdefault(id, Place()), Inlet)
        for id in (*outputs, *inputs):
            _remove(self._directory / id)

    def forget(self, outputs: Sequence[str], inputs: Sequence[str]) -> None:
        """Nobody will ask for these streams again: what is open of them is closed, and no trace is left."""
        for ids, kind in ((outputs, Outlet), (inputs, Inlet)):
            for id in ids:
                place = self._places.pop(id, None)
                if place is not None:
                    _close(place, kind)
                _remove(self._directory / id)

    def sweep(self) -> None:
        """Remove the FIFOs of processes that nobody took up again."""
        for path in self._directory.iterdir():
            if path.name not in self._places:
                _remove(path)
                telemetry.count(Tally.LEFTOVER, Leftover.FIFO)


def _close(place: Place, kind: type[Outlet] | type[Inlet]) -> None:
    if place.end is None:
        place.meet(kind(None))
    else:
        place.end.close()


def _make_fifo(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)


def _remove(fifo: Path) -> None:
    """What cannot be removed (a read-only run directory) is left to the next daemon: no end waits for it."""
    try:
        fifo.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("a stream's FIFO stays", path=os.fspath(fifo), error=str(error))
