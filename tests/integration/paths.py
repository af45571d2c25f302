"""Where `make` put what the integration tests need, and the temporary directory they keep their own things in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("UNIKERNEL_SHIM_CACHE", ROOT / ".cache"))
BIN = ROOT / ".venv" / "bin"
#: Unix socket paths end at 107 bytes (unix(7)), and containerd puts long names below its state: keep it short.
TEMPORARY = Path("/tmp")

COURIER = BIN / "containerd-shim-unikernel-v2"
DAEMON = BIN / "unikernel-shim"


class NotSetUp(Exception):
    """The set-up has not run, or not for this."""


def cached(*parts: str) -> Path:
    """A path of the cache that must exist. Raises NotSetUp with the step that makes it."""
    path = CACHE.joinpath(*parts)
    if not path.exists():
        raise NotSetUp(f"{path} is missing; run tests/setup/setup.sh {parts[0]}")
    return path


def program(name: str) -> str:
    """The absolute path of a program of the machine. Raises NotSetUp."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NotSetUp(f"{name} is not installed; run tests/setup/setup.sh packages")
    return found
