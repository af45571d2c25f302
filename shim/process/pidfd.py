"""Process file descriptors: a handle on a process that can never come to mean another one."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import time
from pathlib import Path

# include/uapi/linux/pidfd.h: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info), whose first published size is 64
# bytes: u64 mask, u64 cgroupid, eleven u32 ids, s32 exit_code. PIDFD_INFO_EXIT is bit 3 of the mask (Linux 6.15).
_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11
_INFO_EXIT = 1 << 3
#: The number of the state's field in /proc/PID/stat (proc(5)), which is the first that `stat` returns.
STATE = 3


def open_pidfd(pid: int) -> int:
    """Open a pidfd (close-on-exec by definition). Raises ProcessLookupError when there is no such process."""
    return os.pidfd_open(pid)


def send(pidfd: int, signum: int) -> None:
    """Signal the process behind `pidfd`. Raises ProcessLookupError once it is dead and reaped."""
    signal.pidfd_send_signal(pidfd, signum)


def exit_status(pidfd: int) -> int | None:
    """The wait status of a reaped process that need not be a child of ours, or None where the kernel cannot tell.

    Works for any holder of the pidfd since Linux 6.15; older kernels answer ENOTTY or leave the bit out. Of a process
    that is dead and not reaped yet only `zombie_status` knows.
    """
    buffer = bytearray(_INFO.pack(_INFO_EXIT, 0, *([0] * 11), 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, buffer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return None
        raise
    mask, *_, code = _INFO.unpack(buffer)
    return code if mask & _INFO_EXIT else None


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)).

    With the pid it names a process for as long as the machine is up. Raises ProcessLookupError.
    """
    return int(stat(pid)[22 - STATE])


def since_epoch(started: int) -> int:
    """A `start_time` in nanoseconds since the epoch, as the clock stands now."""
    since_boot = started * 10**9 // os.sysconf("SC_CLK_TCK")
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot


def zombie_status(pid: int, started: int) -> int | None:
    """The wait status of a process that is dead and not reaped yet (field 52 of /proc/PID/stat, proc(5)), else None.

    `started` is its `start_time`.
    """
    try:
        fields = stat(pid)
    except ProcessLookupError:
        return None
    same = int(fields[22 - STATE]) == started
    return int(fields[52 - STATE]) if same and fields[0] == b"Z" else None


def stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; before it comes a name that may hold anything.

    Raises ProcessLookupError.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(errno.ESRCH, "no such process", str(pid)) from None
    return text[text.rindex(b")") + 2 :].split()


def handles(pid: int, signum: int) -> bool:
    """Whether the process has a handler for a signal or ignores it (SigCgt and SigIgn in /proc/PID/status, proc(5)).

    Raises ProcessLookupError.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(errno.ESRCH, "no such process", str(pid)) from None
    masks = {name: value for name, _, value in (line.partition(":") for line in status.splitlines())}
    bit = 1 << (signum - 1)
    return any(int(masks.get(name, "0"), 16) & bit for name in ("SigCgt", "SigIgn"))
