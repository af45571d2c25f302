"""Sockets that systemd opened for us: the receiving side of sd_listen_fds(3).

They are told apart by the path they are bound to, not by LISTEN_FDNAMES: all sockets of one unit have the same name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, MutableMapping
from pathlib import Path

from shim import log

_log = log.get(__name__)

_FIRST = 3  # SD_LISTEN_FDS_START (systemd/sd-daemon.h)
_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def take(environment: MutableMapping[str, str], pid: int, paths: Collection[Path]) -> dict[Path, socket.socket]:
    """The listening stream sockets at `paths` that were opened for the process `pid`, which is ours.

    They are closed on exec and are systemd's to remove. Whatever else was passed on is closed, with a warning: for its
    path we open a socket of our own. The variables are removed, so that no program of ours takes them for its.
    """
    told = {name: environment.pop(name, "") for name in _VARIABLES}
    if told["LISTEN_PID"] != str(pid):
        return {}  # meant for a parent of ours, as containerd is a courier's
    try:
        count = int(told["LISTEN_FDS"])
    except ValueError:
        _log.warning("LISTEN_FDS is no number, so no socket is taken from it", value=told["LISTEN_FDS"])
        return {}
    taken: dict[Path, socket.socket] = {}
    for descriptor in range(_FIRST, _FIRST + count):
        listening = _listening(descriptor)
        path = Path(listening.getsockname()) if listening is not None else None
        if listening is None or path is None or path not in paths or path in taken or not path.is_socket():
            _log.warning("a descriptor that was passed on is no socket of ours", descriptor=descriptor, path=str(path))
            _close(descriptor, listening)
            continue
        taken[path] = listening
    return taken


def _listening(descriptor: int) -> socket.socket | None:
    """The unix stream socket that listens at a path; None for anything else."""
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    if (
        found.family == socket.AF_UNIX
        and found.type == socket.SOCK_STREAM
        and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        and isinstance(found.getsockname(), str)  # an abstract one's are bytes
    ):
        found.setblocking(False)
        return found
    found.detach()
    return None


def _close(descriptor: int, listening: socket.socket | None) -> None:
    if listening is not None:
        listening.close()
        return
    try:
        os.close(descriptor)
    except OSError:
        return  # it was never open
