"""What a monitor's program says of its version, asked once for each program file."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from shim import log
from shim.errors import NodeFault
from shim.monitors.base import Run
from shim.monitors.binary import identity

_log = log.get(__name__)

#: (major, minor).
Version = tuple[int, int]

_TIMEOUT = 5.0  # seconds
_NUMBERS = re.compile(r"\bv?(\d+)\.(\d+)\b")


def parse(text: str) -> Version | None:
    """The first version that `text` names, as in "cloud-hypervisor v51.2-3-g0123456"; None where it names none."""
    found = _NUMBERS.search(text)
    return (int(found[1]), int(found[2])) if found else None


async def says(program: Path, what: str, run: Run) -> str:
    """What the program, called `what` in errors, prints when it is asked for its version.

    Raises NodeFault where it does not start, and TimedOut.
    """
    done = await run([str(program), "--version"], timeout=_TIMEOUT)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.status != 0:
        raise NodeFault(
            f"{what} does not start: {said.strip() or f'exit status {done.status}'}",
            subject=str(program),
            remedy="install it again, with its libraries",
        )
    return said


class Versions:
    """The versions of one monitor's programs, as `--version` prints them; `oldest` is the first that will do."""

    def __init__(self, monitor: str, oldest: Version, run: Run) -> None:
        self._monitor = monitor
        self._oldest = oldest
        self._run = run
        self._known: dict[str, Version] = {}

    async def of(self, program: Path) -> Version:
        """The program's version, by its absolute path.

        Raises NodeFault where it does not start, does not say, or is too old, and TimedOut.
        """
        key = await asyncio.to_thread(identity, program)
        if key not in self._known:
            self._known[key] = found = await self._ask(program)
            _log.info("monitor found", monitor=self._monitor, program=str(program), version=_dotted(found))
        return self._known[key]

    async def _ask(self, program: Path) -> Version:
        said = (await says(program, f"the monitor {self._monitor}", self._run)).strip()
        found = parse(said)
        if found is None:
            raise NodeFault(
                f"the program does not say which version of {self._monitor} it is: {said.partition(chr(10))[0]!r}",
                subject=str(program),
                remedy=f"set monitors.{self._monitor}.path to {self._monitor}'s own program",
            )
        if found < self._oldest:
            raise NodeFault(
                f"{self._monitor} {_dotted(found)} is too old: {_dotted(self._oldest)} or newer is needed",
                subject=str(program),
                remedy="install a newer one",
            )
        return found


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
