"""How long an event loop has no turn for others, as one of its own tasks sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Final

#: How often it is looked at, in seconds. A block is seen but for so much of it.
TICK: Final = 0.001


@dataclass(frozen=True)
class Block:
    """A turn that came late, by `late` seconds. Of these the loop's own thread was on a processor for `busy`, and ready
    for one that others had for `starved`; the rest of them it waited in a system call."""

    late: float
    busy: float
    starved: float


async def watch(note: Callable[[Block], None]) -> None:
    """Tell `note` of each turn of the loop, until cancelled."""
    # Nanoseconds on a processor, and ready for one (Documentation/scheduler/sched-stats.rst).
    with Path("/proc/thread-self/schedstat").open("rb", buffering=0) as file:
        before = _reading(file)
        while True:
            await asyncio.sleep(TICK)
            now = _reading(file)
            wall, busy, starved = (later - earlier for later, earlier in zip(now, before, strict=True))
            note(Block(wall - TICK, busy, starved))
            before = now


def _reading(schedstat: RawIOBase) -> tuple[float, float, float]:
    schedstat.seek(0)
    data = schedstat.read()
    assert data is not None
    busy, starved, _ = map(int, data.split())
    return time.perf_counter(), busy / 1e9, starved / 1e9
