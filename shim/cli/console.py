"""`unikernel-shim console`: a person's terminal at a guest's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shim.cli import log_files, terminal
from shim.cli.pods import pod_argument

if TYPE_CHECKING:
    from shim.cli.client import Console
    from shim.wire import inspection_pb2 as pb

_CHUNK: Final = 4096
_TYPED_AHEAD: Final = 16  # chunks; beyond that the person's terminal keeps them
# Attributes off, and the cursor seen again (ECMA-48 SGR 0; DEC's DECTCEM): what a guest may have left otherwise.
_TIDY: Final = b"\x1b[0m\x1b[?25h"


@click.command("console", epilog=terminal.EXIT_CODES)
@pod_argument()
@click.option("-c", "--container", default="", metavar="NAME", help="Which of its containers; default: the unikernel.")
@click.option(
    "--escape",
    default="^]",
    show_default=True,
    metavar="KEY",
    help="What leaves: ^ and a letter or one of []\\^_ for Ctrl with it, or one character.",
)
@click.pass_obj
def command(config_path: Path | None, pod: str, container: str, escape: str) -> None:
    """Sit down at the serial console of POD's guest. Ctrl-] leaves it; the guest goes on.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's or a container's id. A guest can be typed to where its
    container has a terminal (tty: true, ctr run -t). Of one without, the log is followed instead, read-only, and that
    is said; Ctrl-C leaves that.
    """
    from shim import config
    from shim.cli.client import locate
    from shim.wire import inspection_pb2 as pb

    key = escape_key(escape)
    door, answer = locate(config.load(config_path), "Logs", pb.LogsRequest(pod=pod), pb.LogsResponse)
    chosen = log_files.container(answer, container)
    if chosen is not None and not chosen.terminal:
        _read_only(answer, chosen)
        return
    sys.exit(asyncio.run(_attach(door, answer.id, chosen.id if chosen is not None else container, key)))


def escape_key(text: str) -> int:
    """The byte that leaves: of Ctrl with a key that is its code without the upper bits (as a terminal sends it, ASCII).

    Raises InvalidRequest.
    """
    from shim.errors import InvalidRequest

    if len(text) == 2 and text[0] == "^" and "@" <= text[1].upper() <= "_":
        return ord(text[1].upper()) & 0x1F
    if len(text) == 1 and text.isascii():
        return ord(text)
    raise InvalidRequest("not a key", subject=repr(text), remedy="give ^] or another of that kind, or one character")


def _read_only(answer: pb.LogsResponse, chosen: pb.LoggedContainer) -> None:
    """The log of a container that has no terminal. Raises NotFound where nobody keeps one."""
    from shim.cli.logs import follow_log, shown

    name = chosen.name or chosen.id
    source = log_files.source(answer, chosen.id)
    terminal.note(
        f"{name} has no terminal, so nothing can be typed; this is its log. For a console set tty: true and stdin: true"
    )
    follow_log(source, log_files.current(source, previous=False), shown(timestamps=False))


async def _attach(door: Path, pod: str, container: str, key: int) -> int:
    """From attaching to leaving; the exit code. Raises what the service answers, InvalidRequest without a terminal."""
    import grpc

    from shim.cli.client import console, translated
    from shim.errors import InvalidRequest, Unreachable
    from shim.wire import inspection_pb2 as pb

    if not (os.isatty(0) and os.isatty(1)):
        raise InvalidRequest(
            "a console needs a terminal", subject="stdin and stdout", remedy="use unikernel-shim logs -f for a pipe"
        )
    async with console(door) as call:
        try:
            await call.write(pb.ConsoleRequest(open=pb.ConsoleOpen(pod=pod, container=container)))
            first = await call.read()
            if first is grpc.aio.EOF:
                raise Unreachable("the service said nothing", subject=str(door))
            assert isinstance(first, pb.ConsoleResponse)
        except grpc.RpcError as error:
            raise translated(error, door) from None
        try:
            with _raw():
                outcome = await _Sitting(call, key).until_left()
        except grpc.RpcError as error:
            raised = translated(error, door)
            if isinstance(raised, Unreachable):
                raise Unreachable(
                    "the service went away, and with it the terminals that it held",
                    subject=str(door),
                    remedy="restart the container to have its terminal back",
                ) from None
            raise raised from None
    with contextlib.suppress(OSError):
        os.write(2, f"\r\n{outcome.words}\r\n".encode())
    return outcome.code


class _Outcome:
    """How it ended: the exit code, and a line for people."""

    def __init__(self, code: int, words: str) -> None:
        self.code, self.words = code, words


class _Sitting:
    """One person at a guest's terminal."""

    def __init__(self, call: Console, key: int) -> None:
        self._call, self._key = call, key
        self._typed: asyncio.Queue[pb.ConsoleRequest] = asyncio.Queue(_TYPED_AHEAD)
        self._left: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()

    async def until_left(self) -> _Outcome:
        """Type and show until the person leaves, a signal comes, or the terminal is gone. Raises what the service
        answers, Unreachable where it goes away."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            loop.add_signal_handler(signum, self._leave, _Outcome(128 + signum, f"left by {signum.name}"))
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        self._resized()
        work = [asyncio.ensure_future(each) for each in (self._type(), self._send(), self._show())]
        try:
            waited: list[asyncio.Future[Any]] = [*work, self._left]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
            return await self._left
        except OSError:
            return _Outcome(128 + signal.SIGHUP, "the terminal is gone")
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)

    def _leave(self, outcome: _Outcome) -> None:
        if not self._left.done():
            self._left.set_result(outcome)

    def _resized(self) -> None:
        from shim.wire import inspection_pb2 as pb

        size = os.get_terminal_size(1)
        if size.columns and size.lines:
            with contextlib.suppress(asyncio.QueueFull):
                window = pb.WindowSize(columns=size.columns, rows=size.lines)
                self._typed.put_nowait(pb.ConsoleRequest(resize=window))

    async def _type(self) -> None:
        """Take what is typed, up to the key that leaves."""
        from shim.process.readable import readable
        from shim.wire import inspection_pb2 as pb

        while True:
            await readable(0)
            data = os.read(0, _CHUNK)
            before, key, _ = data.partition(bytes((self._key,)))
            if before:
                await self._typed.put(pb.ConsoleRequest(input=before))
            if key or not data:
                self._leave(_Outcome(0, "left the console"))
                await asyncio.Event().wait()

    async def _send(self) -> None:
        # Once the call is over, reading from it says why.
        with contextlib.suppress(asyncio.InvalidStateError):
            while True:
                await self._call.write(await self._typed.get())
        await asyncio.Event().wait()

    async def _show(self) -> None:
        """Write what the guest's terminal shows, until it is gone."""
        import grpc

        from shim.errors import Unreachable
        from shim.wire import inspection_pb2 as pb

        with _own_output() as out:
            while True:
                message = await self._call.read()
                if message is grpc.aio.EOF:
                    raise Unreachable("the service ended the console")
                assert isinstance(message, pb.ConsoleResponse)
                match message.WhichOneof("what"):
                    case "output":
                        await _write(out, message.output)
                    case "missed":
                        await _write(out, f"\r\n[{message.missed} bytes were missed]\r\n".encode())
                    case "closed":
                        await _write(out, _TIDY if terminal.in_colour() else b"")
                        status = message.closed.exit_status
                        self._leave(_Outcome(0, f"the container ended with status {status}"))
                        await asyncio.Event().wait()


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """The person's terminal hands over every key as it is; at the end it is as it was, whatever happened."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)
    # But for its output: engines have a container's terminal send no carriage return of its own (runc, ClearONLCR).
    raw = termios.tcgetattr(0)
    raw[tty.OFLAG] = before[tty.OFLAG]
    termios.tcsetattr(0, termios.TCSANOW, raw)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(0, termios.TCSANOW, before)


@contextlib.contextmanager
def _own_output() -> Iterator[int]:
    """The person's terminal, opened once more so that writing to it never blocks: O_NONBLOCK belongs to an open file,
    and this one's the shell goes on with. By its descriptor (proc(5), /proc/PID/fd): who came into the node from a
    container (kubectl debug node, chroot) has a terminal that has no name here."""
    out = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield out
    finally:
        os.close(out)


async def _write(out: int, data: bytes) -> None:
    from shim.process.readable import writable

    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(out, rest) :]
        except BlockingIOError:
            await writable(out)
