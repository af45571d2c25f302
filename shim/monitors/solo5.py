"""Solo5's tenders `spt` and `hvt`: one grammar, two ways to isolate (Solo5, tenders/).

solo5-spt --mem=MB --net:NAME=@FD --net-mac:NAME=MAC --block:NAME=PATH KERNEL WORDS…

A tender opens each disk for writing, whatever for (Solo5, tenders/common/block_attach.c), and cannot be told otherwise.
Its sectors have 512 bytes, and so must the disk be long: `--block-sector-size` is left alone, which is not known before
0.8, and which no kernel's manifest asks for.
"""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Literal

from shim import log
from shim.errors import InvalidRequest, Unsupported
from shim.monitors.base import Disk, Launch, Machine, Nic, Run
from shim.monitors.binary import identity, locate, shares
from shim.monitors.version import says

_log = log.get(__name__)

# From this version on a tap's descriptor is refused ("Could not attach interface: @3"): its MTU is left unset.
_BY_NAME = (0, 10)


def refuses_descriptor(text: str) -> bool:
    """Whether a tender whose `--version` wrote `text` needs its taps by name.

    That works with every tender, so it is also the answer for one that does not name a release: built between two
    ("v0.9.3-12-g0123456"), or without tags.
    """
    found = re.search(r"version v?(\d+)\.(\d+)(?:\.\d+)*\s", text + "\n")
    return found is None or (int(found[1]), int(found[2])) >= _BY_NAME


def arguments(program: Path, machine: Machine, by_name: bool) -> tuple[str, ...]:
    """The tender's command line. Raises InvalidRequest for a disk that it cannot express."""
    found = [str(program), f"--mem={machine.memory}"]
    for nic in machine.nics:
        found += [f"--net:{nic.device}={_tap(nic, by_name)}", f"--net-mac:{nic.device}={nic.mac}"]
    found += [_block(disk) for disk in machine.disks]
    return (*found, "--", str(machine.kernel), *machine.words)


def _tap(nic: Nic, by_name: bool) -> str:
    return nic.tap if by_name else f"@{nic.fd}"


def _block(disk: Disk) -> str:
    if not disk.device:
        raise InvalidRequest(
            "a disk of a Solo5 guest's goes by a name of the kernel's manifest, and this one has none",
            subject=str(disk.path),
            remedy="name the device, or leave the disk out",
        )
    # The tender reads the path with scanf's %s, which ends at white space.
    if len(str(disk.path).split()) != 1:
        raise InvalidRequest("a tender takes no path with white space in it", subject=str(disk.path))
    return f"--block:{disk.device}={disk.path}"


class Solo5:
    """One tender. Its version is asked once for each program file."""

    settle: float = 0.02
    # A tender reads and writes bare frames (Solo5, docs/architecture.md).
    vnet_hdr: bool = False
    # Nothing in Solo5's interface tells a guest to end (Solo5, include/solo5.h).
    powerdown: float = 0.0
    console: str = ""
    cpus: int = 1
    shares_directories: bool = False
    writes_disks: bool = True

    def __init__(self, name: Literal["spt", "hvt"], path: str, run: Run) -> None:
        self.name: str = name
        self._path = path
        self._run = run
        self._devices = (Path("/dev/kvm"),) if name == "hvt" else ()
        self._known: dict[str, bool] = {}

    def overhead(self, memory: int) -> int:
        """A tender itself was seen to need less than 1 MiB; the rest are page tables, an entry of 8 bytes for each page
        of 4 KiB, and KVM's own of them, which may be several (docs/runtimeclass.md)."""
        return 8 + math.ceil(memory / (128 if self.name == "hvt" else 512))

    async def attaches_by_name(self) -> bool:
        """Whether this tender is of the versions that refuse a descriptor."""
        return await self._by_name(await asyncio.to_thread(locate, self._path, self.name))

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """None: a tender moves its packets itself."""
        return ()

    async def _by_name(self, program: Path) -> bool:
        key = await asyncio.to_thread(identity, program)
        if key not in self._known:
            said = await says(program, "the tender", self._run)
            self._known[key] = refuses_descriptor(said)
            _log.info("tender found", program=str(program), by_name=self._known[key], says=said.partition("\n")[0])
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

    async def power_down(self, directory: Path) -> None:
        """Refused: a tender takes no commands."""
        raise Unsupported("a tender cannot ask its guest to power down", subject=self.name)
