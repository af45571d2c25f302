"""Cgroups that no engine looks after: a pod's, and a container's whose engine was killed half way and forgot it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from shim import log, stats, telemetry
from shim.errors import NodeFault
from shim.oci.engine import uses_systemd
from shim.telemetry import Leftover, Tally

_log = log.get(__name__)

_DYING = 5.0  # seconds in which processes that were killed leave their cgroup
_AGAIN = 0.005


def parent_path(parent: str) -> str:
    """The path of a pod's cgroup, which CRI names by its path, or by its slice's name where systemd made it.

    A slice is inside those that its name begins with: a-b.slice is /a.slice/a-b.slice (systemd.slice(5)).
    """
    if parent.startswith("/") or not parent.endswith(".slice"):
        return f"/{parent.strip('/')}"
    words = parent.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1))


def sweep(path: str) -> None:
    """Kill what is in the cgroup `path` (a configuration's cgroupsPath) and remove it; blocks.

    A cgroup of the systemd driver is a unit of systemd's, which removes it with its last process. Raises NodeFault
    where it cannot be removed.
    """
    if not path.startswith("/") or path.strip("/") == "" or uses_systemd(path):
        return
    found = stats.cgroup_at(path)
    for directory in {*found.v1.values(), *([found.v2] if found.v2 is not None else [])}:
        if directory.is_dir():
            _log.warning("removing the cgroup of an engine that did not", cgroup=os.fspath(directory))
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                _remove(directory)
                telemetry.count(Tally.LEFTOVER, Leftover.CGROUP)


def _remove(top: Path) -> None:
    deadline = time.monotonic() + _DYING
    # The deepest first: a cgroup that has others below it cannot be removed (cgroups(7)).
    for directory in sorted((top, *(each for each in top.rglob("*") if each.is_dir())), reverse=True):
        while True:
            _kill(directory)
            try:
                directory.rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise NodeFault(
                        f"the cgroup cannot be removed: {os.strerror(error.errno or 0)}", subject=os.fspath(directory)
                    ) from error
                time.sleep(_AGAIN)
            else:
                break


def _kill(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
