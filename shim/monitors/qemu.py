"""QEMU, on nodes of x86-64 and aarch64: which machines there are says `machines`, how it is told `qemu_arguments`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from pathlib import Path

from shim import config
from shim.errors import NodeFault
from shim.monitors import control, limits, probe_arm, probe_x86, qmp
from shim.monitors.acceleration import KVM, Acceleration, Accelerators
from shim.monitors.base import Launch, Machine, Run
from shim.monitors.binary import locate, shares
from shim.monitors.machines import choose
from shim.monitors.qemu_arguments import BARE, arguments, machine_type

_VHOST = Path("/dev/vhost-net")  # linux/vhost.h
_PROBES = {"x86_64": probe_x86, "aarch64": probe_arm}
# The first whose `microvm` has 24 transports, and whose processors can do without the costly pointer authentication.
_OLDEST = (6, 0)


def _open_each(path: Path, count: int) -> tuple[int, ...]:
    """`count` descriptors of one device, or none. Raises OSError."""
    found: list[int] = []
    with contextlib.ExitStack() as on_failure:
        for _ in range(count):
            found.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            on_failure.callback(os.close, found[-1])
        on_failure.pop_all()
    return tuple(found)


class Qemu:
    """QEMU, with the accelerator found by trying it once."""

    name: str = "qemu"
    settle: float = 0.15
    vnet_hdr: bool = True
    # Fewer than any of the machines takes (QEMU, hw/i386/microvm.c, pc_q35.c, hw/arm/virt.c: 288 and 512).
    cpus: int = 64
    shares_directories: bool = True
    writes_disks: bool = False

    def __init__(self, settings: config.Qemu, run: Run, state: Path, architecture: str = os.uname().machine) -> None:
        """`state` is a directory for what was found out, which holds until the machine is restarted; `architecture` the
        node's, as uname(2) says it."""
        self._path = f"qemu-system-{architecture}" if settings.path == "auto" else settings.path
        self._architecture = architecture
        self._vhost = settings.vhost
        self.powerdown: float = settings.powerdown
        self.console: str = "ttyAMA0" if architecture == "aarch64" else "ttyS0"
        self._accelerators = Accelerators(settings.accel, _OLDEST, run, state)

    def overhead(self, memory: int) -> int:
        """Under TCG 67 MiB were seen, 32 of them translated code, and page tables of a 512th; KVM's are in here by what
        a tender's were seen to be (docs/runtimeclass.md)."""
        return 80 + math.ceil(memory / 128)

    async def attaches_by_name(self) -> bool:
        """QEMU takes a descriptor."""
        await asyncio.to_thread(locate, self._path, self.name)
        return False

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """A descriptor for each NIC. Without KVM only on demand: under TCG each signal goes through QEMU anyway."""
        if self._vhost == "off" or not count:
            return ()
        if self._vhost == "auto":
            program = await asyncio.to_thread(locate, self._path, self.name)
            if (await self.acceleration(program)).accel != "kvm":
                return ()
        try:
            return await asyncio.to_thread(_open_each, _VHOST, count)
        except OSError as error:
            if self._vhost == "on":
                raise NodeFault(
                    f"vhost-net is demanded and cannot be opened: {os.strerror(error.errno or 0)}",
                    subject=os.fspath(_VHOST),
                    remedy="load the module vhost_net, or set monitors.qemu.vhost to auto",
                ) from error
            return ()

    async def launch(self, machine: Machine) -> Launch:
        """QEMU's command line for `machine`. Raises InvalidRequest too, where there is no such machine."""
        kind = choose(machine.kind, self._architecture)
        limits.check_cpus(machine, self)
        program = await asyncio.to_thread(locate, self._path, self.name)
        acceleration = await self.acceleration(program)
        return Launch(
            argv=arguments(program, machine, kind, acceleration),
            devices=(KVM,) if acceleration.accel == "kvm" else (),
            shares=await asyncio.to_thread(shares, program),
        )

    async def power_down(self, directory: Path) -> None:
        """Press the machine's power button. A Linux guest hears of it by ACPI, and ends by itself if it will."""
        async with qmp.session(control.connect(directory)) as session:
            await session.execute("system_powerdown")

    async def acceleration(self, program: Path) -> Acceleration:
        """What works here. Raises NodeFault when KVM is demanded and does not work, or the program is too old."""
        if self._architecture not in _PROBES:
            choose("", self._architecture)
        probe = _PROBES[self._architecture]
        kind = choose(probe.MACHINE, self._architecture)
        argv = {
            accel: (str(program), *machine_type(kind, accel), *BARE, "-m", "32", *probe.DEVICES)
            for accel in ("kvm", "tcg")
        }
        return await self._accelerators.find(program, probe, argv)
