"""The programs that make file systems: how they are found, run, and what it means when they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from shim.errors import NodeFault
from shim.process.spawn import Completed

#: Seconds that one run may take: an image of some GiB on a slow disk, and no more than a stuck one is waited for.
TIMEOUT = 600.0
# Administrators' programs, which a service's PATH may lack (Debian's is without them for users).
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_WORDS = 300  # characters of a tool's own words in an error


class Run(Protocol):
    """How a tool is run: argv[0] absolute, with `env` and no other variables, killed after `timeout` seconds with
    TimedOut, and when the caller is cancelled."""

    def __call__(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None
    ) -> Awaitable[Completed]:
        """The tool's end and output."""
        ...


class Tools:
    """The node's tools, each looked for until it was found once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._found: dict[str, Path] = {}

    def locate(self, name: str, package: str) -> Path:
        """The absolute path of the program `name`. Raises NodeFault with the package that it is in."""
        known = self._found.get(name)
        if known is not None and known.exists():
            return known
        found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES)))
        if found is None:
            raise NodeFault(
                "is not installed, and images of this format are made by it",
                subject=name,
                remedy=f"install the package {package}",
            )
        self._found[name] = Path(found).resolve()
        return self._found[name]

    def identity(self, name: str, package: str) -> str:
        """A name for this very program: it changes when it is replaced, since another one makes another image."""
        path = self.locate(name, package)
        status = path.stat()
        return f"{path}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"

    async def run(self, program: Path, *words: str, env: Mapping[str, str] | None = None) -> None:
        """Run a tool to its end. Raises NodeFault with its last words where it fails, TimedOut."""
        ended = await self._run(
            (os.fspath(program), *words), timeout=TIMEOUT, env={"LC_ALL": "C", "TZ": "UTC", **(env or {})}
        )
        if ended.status != 0:
            raise NodeFault(f"cannot make an image (status {ended.status}): {_last_words(ended)}", subject=program.name)


def _last_words(ended: Completed) -> str:
    output = ended.stderr.strip() or ended.stdout.strip()
    lines = [line.strip() for line in output.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-_WORDS:] or "it said nothing"
