"""Who starts processes and who hears of their end.

The daemon is a child subreaper: a container's init, forked by the engine, becomes the daemon's child when the engine
exits. So one place collects every child and hands each exit to whoever watches that pid. A watched child is noticed by
its pidfd; SIGCHLD tells of those that nobody watches: orphans, and an init that dies before its pid is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from shim import log
from shim.process import pidfd

_log = log.get(__name__)

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_SIGSET, _SIGINFO = 128, 128  # sizeof(sigset_t), sizeof(struct signalfd_siginfo) (signalfd(2))
_libc = ctypes.CDLL(None, use_errno=True)

#: containerd reports this where the true exit code cannot be known (containerd's UnknownExitStatus).
UNKNOWN_STATUS = 255


class Exit(msgspec.Struct, frozen=True):
    """How a process ended: `status` as containerd reports it (128 + signal if killed), `at` in ns since the epoch."""

    status: int
    at: int


def _decode(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _be_subreaper(on: bool) -> None:
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl(PR_SET_CHILD_SUBREAPER)")


def _signalfd(signum: int) -> int:
    """A descriptor that is readable when `signum`, which must be blocked, has come."""
    mask = (1 << (signum - 1)).to_bytes(_SIGSET, "little")
    descriptor = int(_libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "signalfd")
    return descriptor


class Reaper:
    """Collects the exits of all children of this process; one per event loop."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[asyncio.Future[Exit], int]] = {}
        self._early: list[dict[int, Exit]] = []
        self._signals = -1

    def start(self) -> None:
        """Become the subreaper and listen for SIGCHLD; raises OSError where the kernel refuses.

        To be called before any thread is started: SIGCHLD is blocked and read from a signalfd (uvloop keeps the signal
        for itself otherwise), and only threads made later block it too.
        """
        _be_subreaper(True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._signals = _signalfd(signal.SIGCHLD)
        asyncio.get_running_loop().add_reader(self._signals, self._notice)

    def stop(self) -> None:
        """Stop listening, and leave orphans to others; the inverse of `start`."""
        asyncio.get_running_loop().remove_reader(self._signals)
        os.close(self._signals)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # Whoever is a subreaper and does not collect what it is given keeps it as zombies.
        _be_subreaper(False)

    def _notice(self) -> None:
        # A thread that a library made before us may have had the signal.
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, _SIGINFO)
        self._collect()

    @contextmanager
    def early_exits(self) -> Iterator[dict[int, Exit]]:
        """Keep, while the context is open, the exits of processes that nobody watches yet.

        A container's init can die before its pid is known to us; whoever learns the pid inside the context passes
        the mapping to `watch`.
        """
        exits: dict[int, Exit] = {}
        self._early.append(exits)
        try:
            yield exits
        finally:
            # By identity: two empty mappings are equal, and removing the wrong one would lose an exit.
            self._early = [kept for kept in self._early if kept is not exits]

    def watch(self, pid: int, early: dict[int, Exit] | None = None) -> asyncio.Future[Exit]:
        """A future for the exit of the child `pid`; already done if it is in `early`."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        if early and pid in early:
            future.set_result(early.pop(pid))
            return future
        # Ours and not yet collected, so there is such a process, dead or alive.
        descriptor = pidfd.open_pidfd(pid)
        self._watched[pid] = future, descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._collect_one, pid)
        return future

    def adopt(self, pid: int, started: int) -> asyncio.Future[Exit]:
        """A future for the exit of a process that is not our child, as after the daemon was restarted.

        `started` is its `start_time`; a pid that now means another process counts as long dead. The exit code is
        the true one where the kernel tells, else UNKNOWN_STATUS.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Exit] = loop.create_future()
        try:
            descriptor = pidfd.open_pidfd(pid)
        except ProcessLookupError:
            future.set_result(Exit(UNKNOWN_STATUS, time.time_ns()))
            return future
        try:
            same = pidfd.start_time(pid) == started
        except ProcessLookupError:
            same = False
        if not same:
            os.close(descriptor)
            future.set_result(Exit(UNKNOWN_STATUS, time.time_ns()))
            return future

        def ended() -> None:
            loop.remove_reader(descriptor)
            # Dead is not reaped: its parent, who is somebody else, may do that before, between or after these.
            status = pidfd.exit_status(descriptor)
            if status is None:
                status = pidfd.zombie_status(pid, started)
            if status is None:
                status = pidfd.exit_status(descriptor)
            os.close(descriptor)
            if not future.done():
                future.set_result(Exit(UNKNOWN_STATUS if status is None else _decode(status), time.time_ns()))

        loop.add_reader(descriptor, ended)
        return future

    def _collect_one(self, pid: int) -> None:
        try:
            collected, wait_status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # Somebody else in this process waited for it.
            self._deliver(pid, Exit(UNKNOWN_STATUS, time.time_ns()))
            return
        if collected:
            self._deliver(pid, Exit(_decode(wait_status), time.time_ns()))

    def _collect(self) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._deliver(pid, Exit(_decode(wait_status), time.time_ns()))

    def _deliver(self, pid: int, ended: Exit) -> None:
        watched = self._watched.pop(pid, None)
        if watched is None:
            for exits in self._early:
                exits[pid] = ended
            return
        future, descriptor = watched
        future.get_loop().remove_reader(descriptor)
        os.close(descriptor)
        if not future.done():
            future.set_result(ended)
