"""The daemon's turn on a processor, before what it waits for: engines, plugins and monitors that start."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Of the daemon's threads (nice(2)): each weighs nine others then (kernel/sched/core.c, sched_prio_to_weight).
_NICE: Final = -10
_AUTOGROUP: Final = Path("/proc/self/autogroup")


def come_first() -> bool:
    """Let this thread, and all that it starts, have their turn soon, also on a node whose processors are all taken.
    False where we may not (CAP_SYS_NICE).

    All threads, because the loop waits for whichever of them holds the interpreter's lock.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        # Where the kernel shares processors out by session, a thread's niceness counts within its own alone (sched(7),
        # "The autogroup feature"). Engines are of the daemon's session; what they start has one of its own.
        if _AUTOGROUP.exists():
            _AUTOGROUP.write_text(str(_NICE))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def inherited_by_none() -> Iterator[None]:
    """What this thread starts meanwhile is as nice as any program (SCHED_RESET_ON_FORK, sched(7))."""
    if os.getpriority(os.PRIO_PROCESS, 0) >= 0:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    try:
        yield
    finally:
        # One that was born nice and has no CAP_SYS_NICE keeps the flag: its further threads are like any program's.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
