"""How long an event loop has no turn for others, as one of its own tasks sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

#: How often it is looked at, in seconds. A block is seen but for so much of it.
TICK: Final = 0.001


async def watch(note: Callable[[float, float], None]) -> None:
    """Until cancelled: tell `note` by how many seconds each turn came late, and for how many of these the loop's own
    thread was on a processor. The rest of them it waited in a system call, or for a processor that others had."""
    wall, own = time.perf_counter(), time.thread_time()
    while True:
        await asyncio.sleep(TICK)
        now, spent = time.perf_counter(), time.thread_time()
        note(now - wall - TICK, min(spent - own, now - wall - TICK))
        wall, own = now, spent
