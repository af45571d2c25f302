"""What a signal for a container's init does; for a unikernel, how it is brought to its end.

An ordinary container's process has every signal as it is. A unikernel's process is its monitor, which ends its guest
on the spot. So of a guest that can be asked,

    the first signal that asks a program to end   is passed on as a request to power down, and
    a guest that has not gone when its time is up,
    one that cannot be asked, and a second signal  mean SIGTERM (or that second signal) for the monitor;
    SIGKILL                                        waits for nothing.

Nobody waits here for the guest: a signal is sent and that is all, as with any process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal

from shim import log
from shim.errors import ShimError
from shim.process import pidfd
from shim.process.reaper import Exit
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord

_log = log.get(__name__)

# Signals whose default action ends a process (signal(7)); the rest stop it, continue it, or are ignored.
_FATAL = frozenset(
    set(range(1, signal.SIGRTMAX + 1))
    - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    - {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH}
)
# By which programs are asked to end, and images say so (STOPSIGNAL): the last one is an init's, to halt (systemd(1)).
_ASKING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGRTMIN + 3})
# On which a monitor that has a handler ends, and its guest with it (QEMU, os-posix.c; Solo5, tenders/hvt/hvt_main.c).
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# Seconds until a guest is asked again, doubled each time: one that is booting does not hear (seen with Linux, whose
# button is a driver), and one that is powering down takes no notice.
_AGAIN = 1.0
_HANGING_UP = 0.5  # seconds in which a monitor that does not answer any more may turn out to have ended by itself
_MARGIN = 1.0  # seconds between SIGTERM and containerd's SIGKILL: the monitor flushes what it has of the guest's disks


def patience(usual: float, grace: int | None) -> float:
    """Seconds a guest is given to power down: `usual` where the pod has no grace period of its own.

    A pod's is the time until SIGKILL, and SIGTERM is to come before that. 0, for a monitor that cannot ask, stays 0.
    """
    if grace is None or not usual:
        return usual
    return grace - min(_MARGIN, grace / 2)


class Stopping:
    """The signals of one container's init."""

    def __init__(self, node: Node, record: ContainerRecord) -> None:
        self._node = node
        self._record = record
        self._asking: asyncio.Task[None] | None = None
        #: The exits that are another signal's doing than they say: by status, the status to tell.
        self._meaning: dict[int, int] = {}

    def signal(self, signum: int, ended: asyncio.Future[Exit]) -> None:
        """Signal the init, whose end is `ended`; a guest that can be asked to end is asked, once.

        Raises ProcessLookupError once it is gone, OSError with EINVAL where there is no such signal.
        """
        if signum in _ASKING and self._record.powerdown and self._asking is None:
            self._asking = asking = asyncio.ensure_future(self._power_down(ended))
            # Whatever is still being said to a monitor that has ended concerns nobody.
            ended.add_done_callback(lambda _: asking.cancel())
            return
        self._send(signum)

    def seen_by_callers(self, ended: Exit) -> Exit:
        """The exit as the signals that were sent explain it.

        A monitor calls it no failure when a signal ends it (QEMU exits with 0); but its guest was cut off, and whoever
        runs it to its end, as a Job, must not take it for done.
        """
        return Exit(self._meaning.get(ended.status, ended.status), ended.at)

    async def _power_down(self, ended: asyncio.Future[Exit]) -> None:
        monitor, own = self._node.monitors[self._record.monitor], self._record.own_bundle
        assert own is not None, "a unikernel has a bundle of ours"
        _log.info("asking the guest to power down", container=self._record.container, within=self._record.powerdown)
        try:
            async with asyncio.timeout(self._record.powerdown):
                for times in itertools.count():
                    await monitor.power_down(own)
                    await asyncio.wait([ended], timeout=_AGAIN * 2**times)
        except TimeoutError:
            reason = "its time is up"
        except (ShimError, OSError) as error:
            reason = str(error)
            await asyncio.wait([ended], timeout=_HANGING_UP)
        _log.warning("the guest does not power down: SIGTERM", container=self._record.container, reason=reason)
        with contextlib.suppress(ProcessLookupError):
            self._send(signal.SIGTERM)

    def _send(self, signum: int) -> None:
        descriptor = pidfd.open_pidfd(self._record.pid)
        try:
            pidfd.send(descriptor, self._effective(signum))
        finally:
            os.close(descriptor)

    def _effective(self, signum: int) -> int:
        """The signal that has the effect `signum` has on any process.

        A monitor is the first process of its pid namespace, and the kernel drops a signal for such a one that it
        has no handler for (pid_namespaces(7)); a Solo5 tender has none. It dies as it would elsewhere, and the exit
        is told as that signal's.
        """
        if not self._record.unikernel or signum not in _FATAL:
            return signum
        if pidfd.handles(self._record.pid, signum):
            if signum in _ENDING:
                self._meaning[0] = 128 + signum
            return signum
        self._meaning[128 + signal.SIGKILL] = 128 + signum
        return signal.SIGKILL
