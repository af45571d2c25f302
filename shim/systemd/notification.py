"""What systemd is told of us: the protocol of sd_notify(3), a datagram of NAME=VALUE lines.

Only the process that systemd itself started may speak. A daemon that a courier started has containerd's environment,
and what it said would be said in containerd's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping

from shim import log

_log = log.get(__name__)

#: What says which process systemd started: the first since systemd 248 (systemd.exec(5)), the others before that, where
#: a unit has a watchdog or a socket.
_WHOSE = ("SYSTEMD_EXEC_PID", "WATCHDOG_PID", "LISTEN_PID")


class Notifier:
    """Whom to tell. What cannot be said is logged: the service is no worse for it."""

    def __init__(self, address: str, watchdog: float | None) -> None:
        """`address` is a socket's path, or with @ in front an abstract name; `watchdog` the seconds without a sign of
        life after which we are ended, None for ever."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = watchdog

    def tell(self, *lines: str) -> None:
        """Say all of `lines` at once."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("systemd cannot be told", lines=lines, error=error.strerror)


def from_environment(environment: MutableMapping[str, str], pid: int) -> Notifier | None:
    """The notifier of the process `pid`, which is ours; None where nobody asks for one.

    The variables that programs of ours could act on are removed: an engine would pass NOTIFY_SOCKET on to containers.
    """
    ours = any(environment.get(name) == str(pid) for name in _WHOSE)
    meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    address, microseconds = environment.pop("NOTIFY_SOCKET", ""), environment.pop("WATCHDOG_USEC", "")
    environment.pop("WATCHDOG_PID", None)
    if not ours or not address:
        return None
    if address[0] not in "/@":
        _log.warning("NOTIFY_SOCKET is neither a path nor an abstract name, so systemd is told nothing", value=address)
        return None
    watched = meant and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
    return Notifier(address, int(microseconds) / 1e6 if watched else None)


@contextlib.asynccontextmanager
async def told(notifier: Notifier | None, status: Callable[[], str]) -> AsyncIterator[None]:
    """Say that we are ready, while the body runs that we live, then that we stop. `status` is a line for people.

    That we live is said by the loop, so a loop that is blocked says nothing, and systemd starts us anew.
    """
    if notifier is None:
        yield
        return
    notifier.tell("READY=1", f"STATUS={status()}")
    beating = asyncio.create_task(_beat(notifier, status))
    try:
        yield
    finally:
        beating.cancel()
        notifier.tell("STOPPING=1", "STATUS=stopping")


async def _beat(notifier: Notifier, status: Callable[[], str]) -> None:
    while notifier.watchdog is not None:
        notifier.tell("WATCHDOG=1", f"STATUS={status()}")
        await asyncio.sleep(notifier.watchdog / 2)  # what sd_watchdog_enabled(3) advises
