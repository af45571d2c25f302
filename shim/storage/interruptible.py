"""Long work in a thread that ends soon after nobody wants it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from shim.threads import settled

T = TypeVar("T")
A = TypeVarTuple("A")


async def interruptible(work: Callable[[*A, threading.Event], T], *args: *A) -> T:
    """The result of `work(*args, stop)`, which looks at `stop` now and then and returns early once it is set.

    A caller that is cancelled goes on when the thread has ended: whoever then cleans up does not race with it.
    """
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await settled(running)
        raise
