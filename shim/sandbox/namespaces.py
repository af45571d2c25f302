"""Namespaces that outlive any process, for ordinary containers of a pod that has no pause container.

Such containers expect to share IPC objects and a host name. A thread makes the namespaces for itself and binds them to
files; nothing runs in them until a container joins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from shim.errors import InvalidRequest, NodeFault
from shim.oci.rootfs import bind, unmount_all
from shim.sandbox import sysctls
from shim.sandbox.record import Pod

#: The kinds that can be pinned, with their flags (include/uapi/linux/sched.h).
_FLAGS = {"ipc": 0x08000000, "uts": 0x04000000}


def of_pod(directory: Path, pod: Pod) -> dict[str, str]:
    """The namespaces of the pod's own, pinned under `directory`, as paths by kind; without those that are the node's.

    Made with the pod's host name and sysctls, unless a former daemon has: containers may be in them. Blocks. Raises
    InvalidRequest for a sysctl that cannot be set, NodeFault for anything else, and then leaves nothing. `unpin` is the
    inverse.
    """
    paths = {}
    if not pod.host_ipc:
        paths["ipc"] = directory / "ipc"
    if pod.netns:
        paths["uts"] = directory / "uts"
    if not _pinned(directory, paths.values()):
        _pin(directory, paths, pod)
    return {kind: os.fspath(path) for kind, path in paths.items()}


def _pinned(directory: Path, paths: Iterable[Path]) -> bool:
    # A pinned namespace is a file of nsfs, so on a device other than its directory's.
    if all(path.exists() and path.stat().st_dev != directory.stat().st_dev for path in paths):
        return True
    unpin(directory)
    return False


def _pin(directory: Path, paths: dict[str, Path], pod: Pod) -> None:
    failure: list[BaseException] = []

    def work() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(sum(_FLAGS[kind] for kind in paths)):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "unshare")
            if pod.hostname and "uts" in paths:
                socket.sethostname(pod.hostname)
            sysctls.write(sysctls.of_kinds(pod, *paths))
            for kind, target in paths.items():
                target.touch()
                bind(Path(f"/proc/thread-self/ns/{kind}"), target)
        except BaseException as error:  # carried over to the thread that waits
            failure.append(error)

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A thread of its own, so that the namespaces die with it unless they were pinned.
    thread = threading.Thread(target=work, name="pin-namespaces")
    thread.start()
    thread.join()
    if not failure:
        return
    unpin(directory)
    if isinstance(failure[0], InvalidRequest):
        raise failure[0]
    raise NodeFault(f"the pod's namespaces cannot be made: {failure[0]}", subject=os.fspath(directory)) from failure[0]


def unpin(directory: Path) -> None:
    """Let the namespaces go; harmless when there are none; blocks."""
    for kind in _FLAGS:
        target = directory / kind
        if target.exists():
            unmount_all(target)
            # On a file system that is read-only by now the empty file stays, and goes with its directory.
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
