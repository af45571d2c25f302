"""The socket by which a monitor takes commands.

It is made here, listening, and handed to the monitor as a descriptor, as a tap is: the monitor needs neither the
directory nor any right to make a socket, and a restarted daemon reaches it by its name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shim.errors import Unreachable

_NAME = "control.sock"
_BACKLOG = 4  # one conversation at a time, and a few that a restarted daemon's predecessor left


@contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The socket's address: a container's directory may be longer than the 107 bytes of one (unix(7))."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


def listen(directory: Path) -> int:
    """A listening socket in `directory`, which is made (0700) if need be; its descriptor is the caller's to close.

    Raises OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _NAME).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening, _address(directory) as address:
        listening.bind(address)
        listening.listen(_BACKLOG)
        return listening.detach()


def connect(directory: Path) -> socket.socket:
    """A connection to the monitor whose socket is in `directory`, the caller's to close; it does not block.

    A monitor that is stopped is connected to as well: it has not accepted yet. Raises Unreachable.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _address(directory) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        raise Unreachable(
            f"the monitor's control socket cannot be reached: {os.strerror(error.errno or 0)}",
            subject=os.fspath(directory / _NAME),
        ) from error
    return connection
