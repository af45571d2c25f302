"""QEMU's `microvm`: a machine with virtio-mmio devices and a serial console, and little else.

KVM is used where a guest was seen to run under it, and at a processor's pace; a /dev/kvm that is there proves nothing
(nested and paravirtual KVMs hang on QEMU's firmware, or interpret what they should run).

The machine has ACPI, because distributions' kernels find virtio-mmio devices by nothing else
(CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is mostly off). It has no timer that Linux can time its processor by, and without
KVM nothing else tells it the rate: about half of all boots hang. So under TCG the rate, measured once by the same
probe that tries accelerators, goes onto the kernel's command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zlib
from pathlib import Path
from typing import Literal

import msgspec

from shim import config, log
from shim.errors import NodeFault, TimedOut
from shim.monitors import control, probe, qmp
from shim.monitors.base import Launch, Machine, Nic, Run
from shim.monitors.binary import identity, locate, shares

_log = log.get(__name__)

_PROBE_TIMEOUT = 4.0  # seconds; the probe guest is done in a tenth of that where it runs as it should
_KVM = Path("/dev/kvm")
_VHOST = Path("/dev/vhost-net")  # linux/vhost.h
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
# The guest is asked to do what these forbid by nobody; QEMU's own seccomp filter (qemu(1), -sandbox).
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def machine_type(accel: str) -> tuple[str, ...]:
    """Machine and processor for an accelerator."""
    cpu = "host" if accel == "kvm" else "max"
    return ("-M", f"microvm,accel={accel},rtc=on", "-cpu", cpu)


class Acceleration(msgspec.Struct, frozen=True, kw_only=True):
    """How guests run here: `accel` is kvm or tcg; `khz` is the rate of the processor's counter in a guest under TCG,
    None where it is not known or the guest is told by KVM."""

    accel: Literal["kvm", "tcg"]
    khz: int | None = None


def arguments(program: Path, machine: Machine, acceleration: Acceleration) -> tuple[str, ...]:
    """QEMU's command line."""
    # First, because what comes after a "--" among the words is not the kernel's.
    clock = () if acceleration.khz is None else (f"tsc_early_khz={acceleration.khz}",)
    found = [
        str(program),
        *machine_type(acceleration.accel),
        *_BARE,
        "-sandbox",
        _SANDBOX,
        "-m",
        str(machine.memory),
        "-smp",
        "1",
        # The console is the process's own stdin and stdout; Ctrl-C there is the guest's, not QEMU's.
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-kernel",
        str(machine.kernel),
        "-append",
        " ".join((*clock, *machine.words)),
    ]
    if machine.initrd is not None:
        found += ["-initrd", str(machine.initrd)]
    for position, nic in enumerate(machine.nics):
        found += _nic(nic, position)
    if machine.control is not None:
        found += [
            "-chardev",
            f"socket,id=control,fd={machine.control},server=on,wait=off",
            "-mon",
            "chardev=control,mode=control",
        ]
    return tuple(found)


def _nic(nic: Nic, position: int) -> list[str]:
    # QEMU asks the descriptor whether its frames have virtio-net headers (TUNGETIFF), and offers offloads accordingly.
    vhost = "" if nic.vhost is None else f",vhost=on,vhostfd={nic.vhost}"
    return [
        "-netdev",
        f"tap,id=net{position},fd={nic.fd}{vhost}",
        "-device",
        f"virtio-net-device,netdev=net{position},mac={nic.mac},host_mtu={nic.mtu}",
    ]


def _open_each(path: Path, count: int) -> tuple[int, ...]:
    """`count` descriptors of one device, or none. Raises OSError."""
    found: list[int] = []
    with contextlib.ExitStack() as on_failure:
        for _ in range(count):
            found.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            on_failure.callback(os.close, found[-1])
        on_failure.pop_all()
    return tuple(found)


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out, as it is kept on disk."""

    key: str
    acceleration: Acceleration


class Qemu:
    """QEMU, with the accelerator found by trying it once."""

    name: str = "qemu"
    overhead: int = 64
    settle: float = 0.15
    vnet_hdr: bool = True
    console: str = "ttyS0"
    cpus: int = 1
    shares_directories: bool = False

    def __init__(self, settings: config.Qemu, run: Run, state: Path) -> None:
        """`state` is a directory for what was found out, which holds until the machine is restarted."""
        self._path = settings.path
        self._wanted = settings.accel
        self._vhost = settings.vhost
        self.powerdown: float = settings.powerdown
        self._run = run
        self._state = state
        self._probing = asyncio.Lock()
        self._known: dict[str, Acceleration] = {}

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
        """QEMU's command line for `machine`."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        acceleration = await self.acceleration(program)
        return Launch(
            argv=arguments(program, machine, acceleration),
            devices=(_KVM,) if acceleration.accel == "kvm" else (),
            shares=await asyncio.to_thread(shares, program),
        )

    async def power_down(self, directory: Path) -> None:
        """Press the machine's power button. A Linux guest hears of it by ACPI, and ends by itself if it will."""
        async with qmp.session(control.connect(directory)) as session:
            await session.execute("system_powerdown")

    async def acceleration(self, program: Path) -> Acceleration:
        """What works here: tried once for each program file and boot of the machine, however many pods ask at once.

        Raises NodeFault when KVM is demanded and does not work.
        """
        key = await asyncio.to_thread(self._key, program)
        async with self._probing:
            if key not in self._known:
                found = await asyncio.to_thread(self._remembered, key)
                if found is None:
                    found = await self._find(program)
                    await asyncio.to_thread(self._remember, key, found)
                self._known[key] = found
        found = self._known[key]
        if self._wanted == "kvm" and found.accel != "kvm":
            raise NodeFault(
                "KVM does not run a guest here", subject=str(_KVM), remedy="set monitors.qemu.accel to auto or tcg"
            )
        return found

    async def _find(self, program: Path) -> Acceleration:
        found: Acceleration
        if self._wanted != "tcg" and await asyncio.to_thread(_KVM.exists) and await self.try_guest(program, "kvm"):
            found = Acceleration(accel="kvm")
        else:
            found = Acceleration(accel="tcg", khz=await self.try_guest(program, "tcg"))
            if found.khz is None:
                _log.warning("no guest ran under TCG, and the rate of its clock is not known", program=str(program))
        _log.info("accelerator found", program=str(program), accelerator=found.accel, khz=found.khz)
        return found

    async def try_guest(self, program: Path, accel: str) -> int | None:
        """Run a guest to its end under `accel`: the rate of its counter in kHz, None when it did not get there."""
        path = self._state / f"probe-{os.getpid()}"
        await asyncio.to_thread(path.write_bytes, probe.kernel())
        argv = [str(program), *machine_type(accel), *_BARE, "-m", "32", *probe.DEVICES, "-kernel", str(path)]
        try:
            done = await self._run(argv, timeout=_PROBE_TIMEOUT)
        except TimedOut:
            return None
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return probe.rate(done.stdout) if done.status == probe.STATUS else None

    def _key(self, program: Path) -> str:
        """What a finding holds for: this program, this boot, this kernel, what was asked, and how it was found."""
        asked = f"{self._wanted} {zlib.crc32(probe.kernel()):08x}"
        return f"{identity(program)} {_BOOT.read_text().strip()} {os.uname().release} {asked}"

    @property
    def _memory(self) -> Path:
        return self._state / "acceleration.json"

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
