"""The run directory: what of it a daemon makes, who has it, and its end.

The node's stays. A pod's (`grouping = "pod"`) is `pods/HASH` in the node's, and goes with its daemon. Two files in it
are locked. `pod`, which says which pod it is (in the node's directory `serving`, with the daemon's pid), by the daemon
for its life: of two, one at a time touches what is there. `lock` by a courier while it starts a daemon, and by a daemon
that ends: a courier which comes too late for it waits, finds that lock gone, and starts the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from shim import log
from shim.errors import NodeFault

_log = log.get(__name__)

#: Parents first.
_DIRECTORIES = ("engine", "engine/calls", "containers", "sandboxes", "tty", "ns", "streams", "journal", "journal/pods")
#: What is in these is for the length of one call.
_PASSING = ("engine/calls", "tty")
_SUCCESSION = 10.0  # seconds for a daemon that was told to stop to let its successor in
_LOOK = 0.05


def make(directory: Path) -> None:
    """Make what is missing of it, 0700. Raises NodeFault."""
    with refused(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _DIRECTORIES:
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        for name in _PASSING:
            for leftover in (directory / name).iterdir():  # of calls that a former daemon died in
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def refused(directory: Path) -> Iterator[None]:
    """The body makes what is to be in the directory. Raises NodeFault where the kernel does not let it."""
    try:
        yield
    except OSError as error:
        raise NodeFault(
            f"the run directory cannot be made: {os.strerror(error.errno or 0)}",
            subject=os.fspath(directory),
            remedy="run as root, or set run_dir",
        ) from error


def doors(node: Path) -> list[Path]:
    """The gRPC sockets below the node's run directory: its daemon's, then the pods', whether or not they answer."""
    return [node / "shim.sock", *sorted(node.glob("pods/*/shim.sock"))]


class PodDirectory:
    """A pod's run directory, which this process has. `of_pod` makes one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def hold(self) -> bool:
        """Keep couriers from starting a daemon here; False while one is about to."""
        try:
            if self._held is None:
                self._held = _locked(self._path / "lock")
        except FileNotFoundError:
            return True  # the directory was taken away, and nobody finds us here any more
        return self._held is not None

    def let_go(self) -> None:
        """Let couriers start daemons again; harmless when they may."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def remove(self) -> None:
        """Remove it. It stays where the pod is not gone, and its lock where a courier waits for the next daemon."""
        if self._clear() and self.hold():
            (self._path / "lock").unlink(missing_ok=True)
            # A courier may have put a lock of its own there: then the directory is the next daemon's.
            _rmdir(self._path)

    def _clear(self) -> bool:
        """Remove all but the lock; whether nothing of the pod is left.

        It takes away what it knows and nothing else: below `containers` may be mounts of the node's own files.
        """
        if any(self._path.glob("journal/**/*.json")):
            return False
        # Names that sockets have until they are moved into place; a daemon may have been killed meanwhile.
        for draft in (each for each in self._path.glob(".*") if each.is_dir()):
            (draft / "s").unlink(missing_ok=True)
            _rmdir(draft)
        for depth in ("engine/*/*", "engine/*"):  # by engine, by containerd's namespace
            for each in self._path.glob(depth):
                _rmdir(each)
        for name in reversed(_DIRECTORIES):
            _rmdir(self._path / name)
        left = [name for name in _DIRECTORIES if (self._path / name).exists()]
        if left:
            _log.error("leftovers keep the pod's run directory", directory=os.fspath(self._path), where=left)
            return False
        for name in ("shim.sock", "shim.ttrpc", "pod"):
            (self._path / name).unlink(missing_ok=True)
        return True


@contextlib.asynccontextmanager
async def of_node(path: Path) -> AsyncIterator[None]:
    """Have the node's directory, made if need be.

    Raises NodeFault where that is impossible, also because another daemon has it that does not end.
    """
    descriptor = await _owned(path, "serving")
    try:
        with refused(path):
            (path / "serving").write_text(f"{os.getpid()}\n")
        yield
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def of_pod(path: Path, pod: str) -> AsyncIterator[PodDirectory]:
    """Have a pod's directory, made if need be; at the end it is removed, if the pod is gone.

    Raises NodeFault where that is impossible, also because another daemon has it that does not end.
    """
    descriptor = await _owned(path, "pod")
    try:
        with refused(path):
            (path / "pod").write_text(f"{pod}\n")
        directory = PodDirectory(path)
        try:
            yield directory
        finally:
            try:
                directory.remove()
            except OSError as error:
                _log.error("the pod's run directory stays", directory=os.fspath(path), error=str(error))
            directory.let_go()
    finally:
        os.close(descriptor)


async def _owned(path: Path, name: str) -> int:
    deadline = time.monotonic() + _SUCCESSION
    while True:
        with refused(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - neither blocks nor walks
            descriptor = _locked(path / name)
        if descriptor is not None:
            return descriptor
        if time.monotonic() > deadline:
            raise NodeFault("another daemon has this run directory", subject=os.fspath(path), remedy="stop it first")
        await asyncio.sleep(_LOOK)


def _locked(path: Path) -> int | None:
    """The file, made if need be and locked; None while somebody else has it.

    It is not open for writing, so that its file system can be made read-only under a daemon.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed it.
        if path.samefile(f"/proc/self/fd/{descriptor}"):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _rmdir(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
