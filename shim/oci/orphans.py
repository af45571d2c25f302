"""Engine runs that outlived the daemon that began them.

A daemon that is killed does not take its engine along: a `create` goes on, and what it makes would come into the world
after the next daemon has cleaned up. So that one waits for them first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from shim import log, telemetry
from shim.process import pidfd
from shim.process.readable import readable
from shim.telemetry import Leftover, Tally

_log = log.get(__name__)


def running(root: Path, *, proc: Path = Path("/proc")) -> list[int]:
    """The processes that were started with `--root DIRECTORY`, as every engine run is, for a directory below `root`."""
    return [pid for pid, words in _commands(proc) if _is_of(words, os.fsencode(root) + b"/")]


def _commands(proc: Path) -> Iterator[tuple[int, list[bytes]]]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().split(b"\0")


def _is_of(words: list[bytes], below: bytes) -> bool:
    return any(word == b"--root" and value.startswith(below) for word, value in itertools.pairwise(words))


async def ended(root: Path, grace: float) -> None:
    """Wait until no engine run of a former daemon is left, killing those that have not ended after `grace` seconds."""
    waits = {
        asyncio.ensure_future(readable(descriptor)): descriptor for descriptor in await asyncio.to_thread(_opened, root)
    }
    if not waits:
        return
    _log.info("waiting for engine runs of a former daemon", count=len(waits))
    try:
        _, late = await asyncio.wait(waits, timeout=grace)
        for each in late:
            _log.warning("an engine run hangs, and is killed")
            with contextlib.suppress(ProcessLookupError):
                pidfd.send(waits[each], signal.SIGKILL)
                telemetry.count(Tally.LEFTOVER, Leftover.PROCESS)
        if late:
            await asyncio.wait(late)
    finally:
        for wait, descriptor in waits.items():
            wait.cancel()
            os.close(descriptor)


def _opened(root: Path) -> list[int]:
    found = []
    for pid in running(root):
        with contextlib.suppress(ProcessLookupError):
            found.append(pidfd.open_pidfd(pid))
    return found
