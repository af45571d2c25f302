"""What one process of the node uses, as the kernel counts it."""

from __future__ import annotations

import errno
import os

import msgspec

from shim.process import pidfd

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
# Numbers of fields in /proc/PID/stat (proc(5)): user and kernel time and the start, in clock ticks; resident pages.
_USER, _KERNEL, _START, _RESIDENT = 14, 15, 22, 24


class Usage(msgspec.Struct, frozen=True):
    """`resident` bytes of memory now, and `cpu` seconds of processor time since the start, all threads'."""

    resident: int
    cpu: float


def usage_of(pid: int, started: int) -> Usage:
    """What the process uses whose start time is `started` (`pidfd.start_time`): one read of kernel memory.

    Raises ProcessLookupError where there is none.
    """
    fields = pidfd.stat(pid)

    def number(field: int) -> int:
        return int(fields[field - pidfd.STATE])

    if number(_START) != started:
        raise ProcessLookupError(errno.ESRCH, "another process has the number", str(pid))
    return Usage(resident=number(_RESIDENT) * _PAGE, cpu=(number(_USER) + number(_KERNEL)) / _TICK)
