"""Unix sockets that only root can open."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from shim import log
from shim.errors import InvalidRequest, NodeFault

_log = log.get(__name__)

_PATH_LIMIT = 107  # bytes: sun_path less its terminating NUL (unix(7))
_UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7))
_DRAFT = "s"  # a socket's name until it is moved into place
_BACKLOG = 4096  # connections that wait to be accepted; net.core.somaxconn's default since Linux 5.4


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
    """Whether somebody listens at `path`. Raises OSError where that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            # A full backlog (unix(7), EAGAIN): somebody listens, who is slow to accept.
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def _clear(path: Path) -> None:
    """Remove a dead socket at `path`. Raises NodeFault for anything else that is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise NodeFault("there is something here that is no socket", subject=os.fspath(path), remedy="move it away")
    if answers(path):
        raise NodeFault(
            "another service answers here", subject=os.fspath(path), remedy="stop it first, or set another run_dir"
        )
    path.unlink(missing_ok=True)


@contextmanager
def claim(path: Path) -> Iterator[Path]:
    """Take `path` for a socket that the body binds, and listens on, at the path it is given.

    That one is in a new directory of mode 0700. Afterwards the socket gets mode 0600 and is moved into place: nobody
    can meet it with a wider mode, and the process's umask, which all threads share, is left alone. The parent directory
    is locked meanwhile, so of two who find the same dead socket only one replaces it.

    Raises InvalidRequest for a path that is too long, NodeFault when a live service has it or it cannot be made.
    """
    check_path(path)
    try:
        with _locked(path.parent):
            _clear(path)
            draft = Path(tempfile.mkdtemp(prefix=".", dir=path.parent)) / _DRAFT
            try:
                check_path(draft)
                yield draft
                draft.chmod(0o600)
                draft.rename(path)
            finally:
                draft.unlink(missing_ok=True)
                draft.parent.rmdir()
    except OSError as error:
        raise NodeFault(f"the socket cannot be made: {error.strerror or error}", subject=os.fspath(path)) from error


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def listen(path: Path, backlog: int = _BACKLOG) -> socket.socket:
    """A listening socket at `path`, mode 0600. Raises NodeFault, InvalidRequest."""
    with claim(path) as draft, ExitStack() as undo:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        undo.callback(listening.close)
        listening.bind(os.fspath(draft))
        listening.listen(backlog)
        undo.pop_all()
    return listening


async def serve(protocol: Callable[[], asyncio.BaseProtocol], listening: socket.socket) -> asyncio.Server:
    """Accept at a socket that listens, and never remove its path: it may not be ours, and if so `release` does it.

    That is `create_server`: from Python 3.13 on `create_unix_server` removes what it was given.
    """
    return await asyncio.get_running_loop().create_server(protocol, sock=listening, backlog=_BACKLOG)


def release(path: Path, inode: int) -> None:
    """Remove the socket at `path` if it is still the one of `inode`: a successor may have put its own there."""
    with suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end when it connected (SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def trusted(connection: socket.socket) -> bool:
    """Whether root, or whoever we are, is at the other end. Anybody else is logged."""
    pid, uid = peer(connection)
    if uid in (0, os.geteuid()):
        return True
    _log.warning("a peer that is not root was turned away", peer_uid=uid, peer_pid=pid)
    return False
