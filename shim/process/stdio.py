"""A process's standard streams, in the forms containerd asks for.

FIFOs are handed to the process itself: nothing is copied, and the process outlives both containerd and the daemon.
Only a terminal is relayed (`terminal.py`), a log binary (`binary://`) gets a pipe of its own, and a stream over RPC
(`ttrpc+unix://…?streaming_id=…`) has a FIFO of ours behind it (`streaming.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from shim.errors import InvalidRequest, NodeFault, TimedOut
from shim.process.readable import readable
from shim.process.reaper import Reaper
from shim.process.spawn import spawn
from shim.process.streaming import Rendezvous, id_in

_LOGGER_READY = 10.0  # seconds a log binary may take to say that it reads (containerd's runc shim waits as long)

_LOGGER_DIES = 0.01  # seconds in which the exit of one that died arrives


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for: a FIFO's path, a URI (`fifo://`, `file://`, `binary://`, a stream's), "" for none, or
    `fd://N` for a descriptor of this very process."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Descriptors:
    """Open descriptors for one process, closed together.

    `child` maps the process's 0, 1, 2 to ours; `close_child` is called once the process has its own copies.
    `stdin_guard` keeps the stdin FIFO from reaching end of file when containerd restarts; closing it is CloseIO.
    """

    def __init__(self) -> None:
        self.child: dict[int, int] = {}
        self._stdin_guard: int | None = None

    def hold_stdin(self, descriptor: int) -> None:
        """Keep a writing end of stdin open until `close_stdin`."""
        self._stdin_guard = descriptor

    def close_stdin(self) -> None:
        """Let the process see end of file on stdin, as soon as containerd has closed its end too."""
        if self._stdin_guard is not None:
            os.close(self._stdin_guard)
            self._stdin_guard = None

    def close_child(self) -> None:
        """Close our copies of what the process was given."""
        for descriptor in set(self.child.values()):
            os.close(descriptor)
        self.child.clear()

    def close(self) -> None:
        """Close everything; harmless when repeated."""
        self.close_child()
        self.close_stdin()


def _fifo_path(value: str, name: str) -> Path | None:
    """The path when `value` names a FIFO, else None for another scheme."""
    if "://" not in value:
        path = Path(value)
    else:
        parts = urlsplit(value)
        if parts.scheme != "fifo":
            return None
        path = Path(unquote(parts.path))
    if not path.is_absolute():
        raise InvalidRequest(f"{name} must be an absolute path", subject=value)
    return path


def _open_fifo(path: Path, flags: int, name: str) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InvalidRequest(f"there is no such {name} FIFO", subject=str(path)) from None
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRequest(f"{name} is not a FIFO", subject=str(path), remedy="use file:// for a regular file")
    # O_NONBLOCK was for the open alone: it sticks to the open file, which the process will share.
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    return descriptor


def _inherited(value: str) -> int | None:
    """A copy of this process's own descriptor N for `fd://N`, else None; what a foreground run hands on."""
    if not value.startswith("fd://"):
        return None
    try:
        return fcntl.fcntl(int(value.removeprefix("fd://")), fcntl.F_DUPFD_CLOEXEC, 0)
    except (ValueError, OSError) as error:
        raise InvalidRequest(f"no such descriptor: {error}", subject=value) from error


def _open_file(value: str) -> int:
    path = Path(unquote(urlsplit(value).path))
    if not path.is_absolute():
        raise InvalidRequest("a log file's path must be absolute", subject=value)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NodeFault(f"the log file cannot be opened: {os.strerror(error.errno or 0)}", subject=str(path)) from error


async def _start_logger(reaper: Reaper, value: str, container: str, namespace: str) -> tuple[int, int]:
    """Start a log binary and wait until it is ready; returns the writing ends for stdout and stderr.

    The binary reads descriptors 3 and 4 and closes, or writes to, 5 when ready (containerd, runtime/v2/README.md).
    """
    parts = urlsplit(value)
    program = unquote(parts.path)
    arguments = [text for pair in parse_qsl(parts.query, keep_blank_values=True) for text in pair if text]
    environment = {**os.environ, "CONTAINER_ID": container, "CONTAINER_NAMESPACE": namespace}
    out_r, out_w = os.pipe2(os.O_CLOEXEC)
    err_r, err_w = os.pipe2(os.O_CLOEXEC)
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            pid = spawn(
                [program, *arguments],
                fds={0: null, 1: null, 2: null, 3: out_r, 4: err_r, 5: ready_w},
                env=environment,
                new_session=True,
            )
        finally:
            for descriptor in (out_r, err_r, ready_w, null):
                os.close(descriptor)
        ended = reaper.watch(pid)
        await _ready(ready_r, program)
        # End of file says "ready" by the contract, but also that the program died: only the first may go on.
        await asyncio.wait([ended], timeout=_LOGGER_DIES)
        if ended.done() and ended.result().status != 0:
            raise NodeFault(f"the log program ended at once with status {ended.result().status}", subject=program)
    except BaseException:
        os.close(out_w)
        os.close(err_w)
        raise
    finally:
        os.close(ready_r)
    return out_w, err_w


async def _ready(descriptor: int, program: str) -> None:
    try:
        async with asyncio.timeout(_LOGGER_READY):
            await readable(descriptor)
    except TimeoutError:
        raise TimedOut("the log program did not say that it is ready", subject=program) from None


class Opener:
    """Opens what processes' standard streams are connected to."""

    def __init__(self, reaper: Reaper, rendezvous: Rendezvous) -> None:
        """`reaper` collects log binaries, `rendezvous` knows the streams over RPC."""
        self._reaper = reaper
        self.rendezvous = rendezvous

    async def outputs(
        self, streams: Streams, container: str, namespace: str, *, adopted: bool = False
    ) -> tuple[int, int]:
        """Open what stdout and stderr go to; the caller owns both descriptors (they may be copies of one).

        `adopted` says that the process has its streams from a former daemon. Raises InvalidRequest for a scheme, path
        or stream that makes no sense, AlreadyExists for a stream that another process has, NodeFault where the node
        cannot open it.
        """
        if streams.stdout.startswith("binary://"):
            return await _start_logger(self._reaper, streams.stdout, container, namespace)
        opened: list[int] = []
        try:
            for name, value in (("stdout", streams.stdout), ("stderr", streams.stderr)):
                opened.append(self._output(name, value, adopted))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened[0], opened[1]

    def _output(self, name: str, value: str, adopted: bool) -> int:
        if not value:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        if (copy := _inherited(value)) is not None:
            return copy
        if value.startswith("file://"):
            return _open_file(value)
        if (stream := id_in(value)) is not None:
            return self.rendezvous.outlet(stream, adopted=adopted)
        if path := _fifo_path(value, name):
            # Read and write: the writer then survives the reader's (containerd's) restart without a SIGPIPE.
            return _open_fifo(path, os.O_RDWR, name)
        raise InvalidRequest(
            f"unknown scheme for {name}", subject=value, remedy="fifo, file, binary and streams' URLs are known"
        )

    def stdin(self, streams: Streams, *, adopted: bool = False) -> tuple[int, int | None]:
        """Open stdin: the reading end for the process, and a writing end to hold until CloseIO (None for no stdin).

        Raises as `outputs`.
        """
        if not streams.stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
        if (copy := _inherited(streams.stdin)) is not None:
            return copy, None
        if (stream := id_in(streams.stdin)) is not None:
            return self.rendezvous.inlet(stream, adopted=adopted)
        path = _fifo_path(streams.stdin, "stdin")
        if path is None:
            raise InvalidRequest("stdin must be a FIFO or a stream", subject=streams.stdin)
        reading = _open_fifo(path, os.O_RDONLY, "stdin")
        try:
            return reading, _open_fifo(path, os.O_WRONLY, "stdin")
        except BaseException:
            os.close(reading)
            raise

    async def all(self, streams: Streams, container: str, namespace: str) -> Descriptors:
        """Open all three streams of a process that has no terminal. Raises as `outputs` and `stdin`."""
        descriptors = Descriptors()
        try:
            reading, guard = self.stdin(streams)
            descriptors.child[0] = reading
            if guard is not None:
                descriptors.hold_stdin(guard)
            descriptors.child[1], descriptors.child[2] = await self.outputs(streams, container, namespace)
        except BaseException:
            with contextlib.suppress(OSError):
                descriptors.close()
            raise
        return descriptors

    async def end(self, streams: Streams, grace: float) -> None:
        """The process has ended: see what it wrote on to those who read it over RPC, `grace` seconds at most."""
        await self.rendezvous.end(*_over_rpc(streams), grace)

    def forget(self, streams: Streams) -> None:
        """The process is gone for its callers too: nothing of its streams is left here. Harmless when repeated."""
        self.rendezvous.forget(*_over_rpc(streams))


def _over_rpc(streams: Streams) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of the outputs and of the inputs that are streams over RPC; a malformed one never came to be."""
    found: list[tuple[str, ...]] = []
    for values in ((streams.stdout, streams.stderr), (streams.stdin,)):
        ids: list[str] = []
        for value in values:
            with contextlib.suppress(InvalidRequest):
                stream = id_in(value)
                if stream is not None:
                    ids.append(stream)
        found.append(tuple(ids))
    return found[0], found[1]
