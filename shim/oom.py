"""Whom the kernel killed for want of memory, told by the kernel: nothing here asks again and again, or needs a thread.

The kernel counts its kills in a file of the cgroup (`oom_kill`), and says when to look: under v2 the file is modified
(Documentation/admin-guide/cgroup-v2.rst), which inotify tells, one descriptor for all; under v1 an eventfd that was
registered for it becomes readable (cgroup-v1/memory.rst, 10. OOM Control), one for each cgroup.

The count alone decides. v1 speaks also where a cgroup above was short of memory and somebody else was killed, and when
the cgroup is removed; and it speaks before it kills.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from shim import log, stats
from shim.errors import NotFound

_log = log.get(__name__)

_V1, _V2 = "memory.oom_control", "memory.events"
_IN_MODIFY, _IN_Q_OVERFLOW, _IN_IGNORED = 0x2, 0x4000, 0x8000  # include/uapi/linux/inotify.h
_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len; then len bytes of a name
_READ = 1 << 14  # bytes; a watched file's events have no name
# Seconds after v1's notice at which the count is looked at: the killing takes the kernel as long as it takes to look
# through the tasks and to log them.
_LOOKS = (0.0, 0.05, 0.2, 1.0)

_libc = ctypes.CDLL(None, use_errno=True)


def counter_of(pid: int) -> Path | None:
    """The file that counts the kills in a process's cgroup; None where no cgroup of its own limits its memory, or it
    is gone; blocks."""
    try:
        paths = stats.cgroup_of(pid)
    except (NotFound, OSError):
        return None
    counter = paths.v1["memory"] / _V1 if "memory" in paths.v1 else paths.v2 / _V2 if paths.v2 is not None else None
    # A hierarchy's root counts for the whole node.
    if counter is None or kills(counter) is None or counter.parent.is_mount():
        return None
    return counter


def kills(counter: Path) -> int | None:
    """The count; None where the cgroup is gone, or the kernel does not count."""
    return stats.table(counter).get("oom_kill")


class Watch:
    """The count of one cgroup. `report` is called on the loop with the new count whenever it has grown."""

    def __init__(self, counter: Path, known: int, report: Callable[[int], None]) -> None:
        """`known` is the count that need not be reported again."""
        self.counter = counter
        self._known = known
        self._report = report

    def look(self) -> int | None:
        """Report what is new; the count, None where it is gone."""
        found = kills(self.counter)
        if found is not None and found > self._known:
            self._known = found
            self._report(found)
        return found

    def end(self) -> None:
        """Look for the last time, and let go; harmless twice."""
        self.look()


class _Eventfd(Watch):
    """v1."""

    def __init__(self, counter: Path, known: int, report: Callable[[int], None]) -> None:
        super().__init__(counter, known, report)
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._later: list[asyncio.TimerHandle] = []
        self._unseen = False
        """Whether the kernel spoke of a kill that it had not counted when it was last looked at."""
        try:
            control = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
            try:
                (counter.parent / "cgroup.event_control").write_text(f"{self._descriptor} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(self._descriptor)
            raise
        self._loop.add_reader(self._descriptor, self._told)

    def _told(self) -> None:
        os.eventfd_read(self._descriptor)
        if kills(self.counter) is None:
            return  # the cgroup was removed
        self._unseen = True
        self._forget_later()
        self._later = [self._loop.call_later(delay, self.look) for delay in _LOOKS]

    def look(self) -> int | None:
        before = self._known
        found = super().look()
        if self._known != before:
            self._unseen = False
            self._forget_later()
        return found

    def _forget_later(self) -> None:
        for handle in self._later:
            handle.cancel()
        self._later = []

    def end(self) -> None:
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        # systemd may have removed the cgroup by now: then what the kernel said has to do.
        if self.look() is None and self._unseen:
            self._report(self._known + 1)
        self._forget_later()


class _Inotify(Watch):
    """v2."""

    def __init__(self, counter: Path, known: int, report: Callable[[int], None], watcher: Watcher) -> None:
        super().__init__(counter, known, report)
        self._watcher = watcher
        self._watcher.add(self)

    def end(self) -> None:
        self._watcher.remove(self)
        self.look()


class Watcher:
    """All watches of the daemon, on the running loop."""

    def __init__(self) -> None:
        self._inotify = -1
        self._watched: dict[int, list[Watch]] = {}

    def watch(self, counter: Path, known: int, report: Callable[[int], None]) -> Watch:
        """Watch what `counter_of` gave; what was counted beyond `known` is reported at once.

        Where the kernel will not tell, the count is still looked at in the end.
        """
        made: Watch
        try:
            v1 = counter.name == _V1
            made = _Eventfd(counter, known, report) if v1 else _Inotify(counter, known, report, self)
        except OSError as error:
            _log.warning("kills for want of memory are told late", counter=os.fspath(counter), error=str(error))
            made = Watch(counter, known, report)
        made.look()
        return made

    def close(self) -> None:
        """Let go of inotify; v1's watches are each its owner's to end."""
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
        self._watched.clear()

    def add(self, watch: Watch) -> None:
        """Have `watch` look whenever its file is modified. Raises OSError."""
        if self._inotify < 0:
            self._inotify = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            asyncio.get_running_loop().add_reader(self._inotify, self._modified)
        path = os.fsencode(watch.counter)
        # Two containers in one cgroup have one number.
        number = _checked(_libc.inotify_add_watch(self._inotify, path, _IN_MODIFY))
        self._watched.setdefault(number, []).append(watch)

    def remove(self, watch: Watch) -> None:
        """The inverse of `add`; harmless twice, and where the file is gone."""
        for number, held in list(self._watched.items()):
            if watch in held:
                held.remove(watch)
                if not held:
                    del self._watched[number]
                    _libc.inotify_rm_watch(self._inotify, number)

    def _modified(self) -> None:
        try:
            data = os.read(self._inotify, _READ)
        except BlockingIOError:
            return
        numbers: set[int] = set()
        while data:
            number, mask, _, length = _EVENT.unpack_from(data)
            data = data[_EVENT.size + length :]
            if mask & _IN_Q_OVERFLOW:
                numbers.update(self._watched)
            elif mask & _IN_IGNORED:
                self._watched.pop(number, None)  # the file is gone, and its number may come to mean another
            else:
                numbers.add(number)
        for number in numbers:
            for watch in list(self._watched.get(number, ())):
                watch.look()


def _checked(answer: int) -> int:
    """What a system call returned. Raises OSError for -1."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
