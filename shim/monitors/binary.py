"""Finding a monitor's program, and what of the node it needs to see to start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shim.errors import NodeFault

# Where a dynamically linked program finds its loader and libraries (ld.so(8)), and QEMU its firmware. On a merged-/usr
# node all but the first and last are links, which the bundle has anyway.
_LIBRARIES = tuple(Path(name) for name in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache"))


class NotInstalled(NodeFault):
    """A monitor's program is not on the node."""


def locate(wanted: str, monitor: str) -> Path:
    """The program's absolute path. Raises NotInstalled naming what was looked for and the remedy."""
    found = shutil.which(wanted)
    if found is None:
        raise NotInstalled(
            f"the monitor {monitor} is not installed ({wanted} was not found)",
            subject=monitor,
            remedy=f"install it, or set monitors.{monitor}.path in the configuration",
        )
    return Path(found).resolve()


def shares(program: Path) -> tuple[Path, ...]:
    """What to bind into the monitor's root: the libraries, and the program where they do not hold it."""
    found = [path for path in _LIBRARIES if path.exists() and not path.is_symlink()]
    if not any(program.is_relative_to(path) for path in found):
        found.append(program)
    return tuple(found)


def identity(program: Path) -> str:
    """A name for this very file: it changes when the program is replaced."""
    status = program.stat()
    return f"{os.fspath(program)}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
