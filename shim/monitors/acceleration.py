"""How guests run on this node: found out by running one, and remembered.

KVM is used where a guest was seen to run under it, and at a processor's pace; a /dev/kvm that is there proves nothing
(nested and paravirtual KVMs hang on QEMU's firmware, or interpret what they should run).

`microvm` has no timer that Linux can time its processor by, and without KVM nothing else tells it the rate: about half
of all boots hang. So under TCG the rate, measured once by the same probe that tries accelerators, is told to the guest.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from shim import log
from shim.errors import NodeFault, TimedOut
from shim.monitors.base import Run
from shim.monitors.binary import identity
from shim.monitors.version import Version, Versions
from shim.process.boot import boot_id
from shim.process.spawn import Completed

_log = log.get(__name__)

KVM = Path("/dev/kvm")
_TIMEOUT = 4.0  # seconds; the probe guest is done in a tenth of that where it runs as it should
#: The file in which what was found out is kept.
MEMORY = "acceleration.json"


class Acceleration(msgspec.Struct, frozen=True, kw_only=True):
    """How guests run here: `accel` is kvm or tcg; `khz` is the rate of the processor's counter in a guest under TCG,
    None where it is not known or the guest learns it otherwise."""

    accel: Literal["kvm", "tcg"]
    khz: int | None = None


class Probe(Protocol):
    """A guest of a few bytes (`probe_x86`, `probe_arm`)."""

    def kernel(self) -> bytes:
        """What QEMU is given as its kernel."""
        ...

    def passed(self, done: Completed) -> bool:
        """Whether the guest came to its own end."""
        ...

    def rate(self, measured: bytes) -> int | None:
        """The rate of the processor's counter in kHz, out of what the guest wrote."""
        ...


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out, as it is kept on disk. That the program is new enough is found out first, so it is a part."""

    key: str
    acceleration: Acceleration


class Accelerators:
    """What works here: tried once for each program file and boot of the machine, however many pods ask at once."""

    def __init__(self, wanted: Literal["auto", "kvm", "tcg"], oldest: Version, run: Run, state: Path) -> None:
        """`wanted` is the configuration's; `oldest` the first version of QEMU that will do; `state` a directory for
        what was found out, which holds until the machine is restarted."""
        self._wanted = wanted
        self._oldest = oldest
        self._versions = Versions("qemu", oldest, run)
        self._run = run
        self._state = state
        self._probing = asyncio.Lock()
        self._known: dict[str, Acceleration] = {}

    async def find(self, program: Path, probe: Probe, argv: dict[str, tuple[str, ...]]) -> Acceleration:
        """What works for `program`; `argv` is the command line that runs the probe, less its kernel, by accelerator.

        Raises NodeFault when the program is too old, and when KVM is demanded and does not work.
        """
        key = await asyncio.to_thread(self._key, program, probe, argv)
        async with self._probing:
            if key not in self._known:
                found = await asyncio.to_thread(self._remembered, key)
                if found is None:
                    await self._versions.of(program)
                    found = await self._find(program, probe, argv)
                    await asyncio.to_thread(self._remember, key, found)
                self._known[key] = found
        found = self._known[key]
        if self._wanted == "kvm" and found.accel != "kvm":
            raise NodeFault(
                "KVM does not run a guest here", subject=str(KVM), remedy="set monitors.qemu.accel to auto or tcg"
            )
        return found

    async def _find(self, program: Path, probe: Probe, argv: dict[str, tuple[str, ...]]) -> Acceleration:
        found = Acceleration(accel="tcg")
        if (
            self._wanted != "tcg"
            and await asyncio.to_thread(KVM.exists)
            and await self.try_guest(probe, argv["kvm"]) is not None
        ):
            found = Acceleration(accel="kvm")
        elif (output := await self.try_guest(probe, argv["tcg"])) is not None:
            found = Acceleration(accel="tcg", khz=probe.rate(output))
        else:
            _log.warning("no guest ran under TCG, and the rate of its clock is not known", program=str(program))
        _log.info("accelerator found", program=str(program), accelerator=found.accel, khz=found.khz)
        return found

    async def try_guest(self, probe: Probe, argv: tuple[str, ...]) -> bytes | None:
        """Run the probe to its end: what it wrote, None when it did not get there."""
        path = self._state / f"probe-{os.getpid()}"
        await asyncio.to_thread(path.write_bytes, probe.kernel())
        try:
            done = await self._run([*argv, "-kernel", str(path)], timeout=_TIMEOUT)
        except TimedOut:
            return None
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return done.stdout if probe.passed(done) else None

    def _key(self, program: Path, probe: Probe, argv: dict[str, tuple[str, ...]]) -> str:
        """What a finding holds for: this program, this boot, this kernel, what was asked, and how it was found."""
        how = zlib.crc32(probe.kernel() + repr((argv, self._oldest)).encode())
        return f"{identity(program)} {boot_id()} {os.uname().release} {self._wanted} {how:08x}"

    @property
    def _memory(self) -> Path:
        return self._state / MEMORY

    def _remembered(self, key: str) -> Acceleration | None:
        try:
            found = msgspec.json.decode(self._memory.read_bytes(), type=_Finding)
        except (OSError, msgspec.DecodeError):
            return None
        return found.acceleration if found.key == key else None

    def _remember(self, key: str, found: Acceleration) -> None:
        draft = self._memory.with_suffix(f".{os.getpid()}")  # pods' daemons remember in one place
        draft.write_bytes(msgspec.json.encode(_Finding(key=key, acceleration=found)))
        draft.replace(self._memory)
