"""Solo5's tenders `spt` and `hvt`: one grammar, two ways to isolate (Solo5, tenders/).

solo5-spt --mem=MB --net:NAME=@FD --net-mac:NAME=MAC KERNEL WORDS…
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Literal

from shim.errors import NodeFault
from shim.monitors.base import Launch, Machine, Nic, Run
from shim.monitors.binary import identity, locate, shares

_VERSION_TIMEOUT = 5.0  # seconds
# From this version on a tap's descriptor is refused ("Could not attach interface: @3"): its MTU is left unset.
_BY_NAME = (0, 10)


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor out of a tender's `--version`, None where it does not say."""
    found = re.search(r"version v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def arguments(program: Path, machine: Machine, by_name: bool) -> tuple[str, ...]:
    """The tender's command line."""
    found = [str(program), f"--mem={machine.memory}"]
    for nic in machine.nics:
        found += [f"--net:{nic.device}={_tap(nic, by_name)}", f"--net-mac:{nic.device}={nic.mac}"]
    return (*found, "--", str(machine.kernel), *machine.words)


def _tap(nic: Nic, by_name: bool) -> str:
    return nic.tap if by_name else f"@{nic.fd}"


class Solo5:
    """One tender. Its version is asked once for each program file."""

    overhead: int = 8
    settle: float = 0.02

    def __init__(self, name: Literal["spt", "hvt"], path: str, run: Run) -> None:
        self.name: str = name
        self._path = path
        self._run = run
        self._devices = (Path("/dev/kvm"),) if name == "hvt" else ()
        self._known: dict[str, bool] = {}

    async def attaches_by_name(self) -> bool:
        """Whether this tender is of the versions that refuse a descriptor."""
        return await self._by_name(await asyncio.to_thread(locate, self._path, self.name))

    async def _by_name(self, program: Path) -> bool:
        key = await asyncio.to_thread(identity, program)
        if key not in self._known:
            done = await self._run([str(program), "--version"], timeout=_VERSION_TIMEOUT)
            version = parse_version((done.stdout + done.stderr).decode(errors="replace"))
            if version is None:
                raise NodeFault(
                    "the tender does not say its version", subject=str(program), remedy="install a Solo5 tender"
                )
            self._known[key] = version >= _BY_NAME
        return self._known[key]

    async def launch(self, machine: Machine) -> Launch:
        """The tender's command line for `machine`."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        by_name = await self._by_name(program)
        attached = by_name and bool(machine.nics)
        return Launch(
            argv=arguments(program, machine, by_name),
            devices=(*self._devices, *((Path("/dev/net/tun"),) if attached else ())),
            shares=await asyncio.to_thread(shares, program),
            by_name=attached,
        )
