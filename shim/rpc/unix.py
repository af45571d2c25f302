"""Unix sockets that only root can open."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from shim.errors import InvalidRequest, NodeFault

_PATH_LIMIT = 107  # bytes: sun_path less its terminating NUL (unix(7))
_UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7))


def check_path(path: Path) -> None:
    """Raise InvalidRequest when `path` is too long for a socket."""
    length = len(os.fsencode(path))
    if length > _PATH_LIMIT:
        raise InvalidRequest(
            f"a unix socket's path has {_PATH_LIMIT} bytes at most, this one has {length}",
            subject=os.fspath(path),
            remedy="set a shorter run_dir",
        )


def answers(path: Path) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def clear(path: Path) -> None:
    """Make room for a socket at `path`: a dead one is removed. Raises NodeFault when a live service has it."""
    check_path(path)
    if answers(path):
        raise NodeFault(
            "another service answers here", subject=os.fspath(path), remedy="stop it first, or set another run_dir"
        )
    path.unlink(missing_ok=True)


def listen(path: Path, backlog: int = 4096) -> socket.socket:
    """A listening socket at `path`, mode 0600. Raises NodeFault, InvalidRequest.

    It is bound under another name and moved into place once its mode is set: nobody can meet it with a wider one, and
    the process's umask, which all threads share, is left alone.
    """
    clear(path)
    draft = path.with_name(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listening.bind(os.fspath(draft))
        draft.chmod(0o600)
        listening.listen(backlog)
        draft.rename(path)
    except OSError as error:
        listening.close()
        draft.unlink(missing_ok=True)
        raise NodeFault(f"the socket cannot be made: {error.strerror}", subject=os.fspath(path)) from error
    return listening


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end when it connected (SO_PEERCRED)."""
    return int(_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1])
