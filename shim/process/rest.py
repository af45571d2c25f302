"""Whether a program has come to wait for events: then it is through with what it could fail at when it starts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final, NamedTuple

#: How often it is looked at, in seconds. A program that has slept from one look to the next is at rest.
INTERVAL: Final = 0.002


class Look(NamedTuple):
    """A program at one moment: its name, whether it sleeps, and for how many nanoseconds it has been on a processor."""

    name: bytes
    asleep: bool
    busy: int


def look(pid: int) -> Look | None:
    """The process's first thread now; None where it is gone, or the kernel does not say (CONFIG_SCHED_INFO).

    /proc/PID/stat is in proc(5), schedstat in the kernel's Documentation/scheduler/sched-stats.rst. A thread that waits
    for a disk does not sleep: its state is D.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        busy = Path(f"/proc/{pid}/schedstat").read_bytes().split()
    except OSError:
        return None
    end = stat.rindex(b")")
    return Look(stat[stat.index(b"(") + 1 : end], stat[end + 2 : end + 3] == b"S", int(busy[0])) if busy else None


async def at_rest(pid: int, before: Look | None, ended: asyncio.Future[Any], limit: float) -> None:
    """Return once the process has become another program than it was `before` and waits for events, or has ended;
    after `limit` seconds at the latest. `ended` is done when the process is."""
    deadline = asyncio.get_running_loop().time() + limit
    last: Look | None = None
    while not ended.done() and (left := deadline - asyncio.get_running_loop().time()) > 0:
        await asyncio.wait([ended], timeout=min(INTERVAL, left))
        now = look(pid)
        if now is not None and before is not None and now.name != before.name and now.asleep and now == last:
            return
        last = now
