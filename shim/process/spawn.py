"""Starting programs without forking the daemon: posix_spawn, with exactly the file descriptors that were meant."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from shim.errors import NodeFault, TimedOut
from shim.process.reaper import Reaper

# Python ignores these and an ignored signal survives exec; a child must meet them as a shell would give them.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
_SPARE = 64  # first number for temporary copies, above any number that a child is given
_DYING = 1.0  # seconds for a program that was killed to be gone; one that waits for a disk is not waited for
_OUTPUT_LIMIT = 1 << 20  # bytes kept of each stream of a short-lived program


class Completed(msgspec.Struct, frozen=True):
    """A program that ended: `status` as in `Exit`, and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


def seal_inherited() -> None:
    """Mark every descriptor that whoever started us left open as close-on-exec, so that no program gets it from us.

    Called once, early: posix_spawn passes on whatever is not marked.
    """
    for entry in Path("/proc/self/fd").iterdir():
        number = int(entry.name)
        if number > 2:
            # The listing's own descriptor is among them, and gone by now.
            with contextlib.suppress(OSError):
                os.set_inheritable(number, False)


def spawn(
    argv: Sequence[str],
    *,
    fds: Mapping[int, int],
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> int:
    """Start `argv` (argv[0] an absolute path) with descriptor `fds[n]` of ours as its descriptor n; returns the pid.

    Descriptors that are not named are not inherited. Raises NodeFault when the program is missing or cannot be run.
    """
    copies: list[tuple[int, int]] = []
    try:
        # Copied out of the way first: a source may have the number that another target needs.
        for target, source in fds.items():
            copies.append((fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _SPARE), target))
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(os.environ if env is None else env),
            file_actions=[(os.POSIX_SPAWN_DUP2, copy, target) for copy, target in copies],
            setsid=new_session,
            setsigdef=_RESTORED,
            setsigmask=(),
        )
    except (FileNotFoundError, PermissionError) as error:
        raise NodeFault(
            f"cannot be started: {os.strerror(error.errno or 0)}",
            subject=argv[0],
            remedy="install it or correct its path",
        ) from error
    finally:
        for copy, _ in copies:
            os.close(copy)


async def _read_all(descriptor: int) -> bytes:
    """Everything until end of file, keeping the last _OUTPUT_LIMIT bytes; closes the descriptor.

    Not by a transport: uvloop closes the number of a file object that it is given twice, by libuv and by the object
    (uvloop, handles/handle.pyx, UVSocketHandle._close), and in between another thread may have been given it.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    kept = bytearray()

    def read() -> None:
        try:
            chunk = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        kept.extend(chunk)
        del kept[:-_OUTPUT_LIMIT]
        if not chunk and not ended.done():
            ended.set_result(None)

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, read)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return bytes(kept)


async def run(
    reaper: Reaper,
    argv: Sequence[str],
    *,
    timeout: float,
    fds: Mapping[int, int] | None = None,
    capture: bool = True,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a short-lived program to its end.

    `fds` adds or replaces descriptors; `capture` collects stdout and stderr. The program is killed when `timeout`
    (seconds) passes, and TimedOut raised, and also when the caller is cancelled. Raises NodeFault as `spawn` does.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    plumbing = {0: null, 1: null, 2: null}
    ends: list[int] = []
    readers: list[int] = []
    if capture:
        for number in (1, 2):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            plumbing[number] = writing
            ends.append(writing)
            readers.append(reading)
    try:
        pid = spawn(argv, fds={**plumbing, **(fds or {})}, env=env)
    except BaseException:
        for reading in readers:
            os.close(reading)
        raise
    finally:
        os.close(null)
        for end in ends:
            os.close(end)
    ended = reaper.watch(pid)
    output = [asyncio.ensure_future(_read_all(reading)) for reading in readers]
    try:
        async with asyncio.timeout(timeout):
            result = await asyncio.shield(ended)
            # A grandchild may keep the pipe open; what the program itself wrote is there by now.
            if output:
                await asyncio.wait(output, timeout=1.0)
    except TimeoutError:
        raise TimedOut(f"did not end within {timeout:g} s", subject=argv[0]) from None
    finally:
        if not ended.done():
            # Ours and not yet reaped, so the number cannot have passed to another process.
            os.kill(pid, signal.SIGKILL)
            # Whoever cleans up after it must not meet it.
            await asyncio.wait([ended], timeout=_DYING)
        for task in output:
            if not task.done():
                task.cancel()
    stdout, stderr = (
        (task.result() if task.done() and not task.cancelled() else b"" for task in output) if capture else (b"", b"")
    )
    return Completed(result.status, stdout, stderr)
