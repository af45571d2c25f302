"""Namespaces that outlive any process, for ordinary containers of a pod that has no pause container.

Such containers expect to share IPC objects and a host name. A thread makes both namespaces for itself and binds them
to files; nothing runs in them until a container joins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path

from shim.errors import NodeFault
from shim.oci.rootfs import bind, unmount_all

# include/uapi/linux/sched.h
_CLONE_NEWUTS, _CLONE_NEWIPC = 0x04000000, 0x08000000
_KINDS = ("ipc", "uts")


def pin(directory: Path, hostname: str) -> dict[str, str]:
    """Make an IPC and a UTS namespace and pin them under `directory`; returns their paths by kind; blocks.

    Raises NodeFault, and then leaves nothing. `unpin` is the inverse.
    """
    failure: list[BaseException] = []

    def work() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWUTS | _CLONE_NEWIPC):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "unshare")
            if hostname:
                socket.sethostname(hostname)
            for kind in _KINDS:
                target = directory / kind
                target.touch()
                bind(Path(f"/proc/thread-self/ns/{kind}"), target)
        except BaseException as error:  # carried over to the thread that waits
            failure.append(error)

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A thread of its own, so that the namespaces die with it unless they were pinned.
    thread = threading.Thread(target=work, name="pin-namespaces")
    thread.start()
    thread.join()
    if failure:
        unpin(directory)
        raise NodeFault(
            f"the pod's namespaces cannot be made: {failure[0]}", subject=os.fspath(directory)
        ) from failure[0]
    return {kind: os.fspath(directory / kind) for kind in _KINDS}


def pinned(directory: Path) -> dict[str, str] | None:
    """The paths that `pin` returned for `directory`, None where it did not come to its end; blocks."""
    paths = {kind: directory / kind for kind in _KINDS}
    # A pinned namespace is a file of nsfs, so on a device other than its directory's.
    if all(path.exists() and path.stat().st_dev != directory.stat().st_dev for path in paths.values()):
        return {kind: os.fspath(path) for kind, path in paths.items()}
    unpin(directory)
    return None


def unpin(directory: Path) -> None:
    """Let the namespaces go; harmless when there are none; blocks."""
    for kind in _KINDS:
        target = directory / kind
        if target.exists():
            unmount_all(target)
            # On a file system that is read-only by now the empty file stays, and goes with its directory.
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
