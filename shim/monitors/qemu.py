"""QEMU's `microvm`: a machine with virtio-mmio devices and a serial console, and little else.

KVM is used where a guest was seen to run under it; a /dev/kvm that is there proves nothing (nested and paravirtual
KVMs run some guests and hang on QEMU's firmware).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

from shim import log
from shim.errors import NodeFault, TimedOut
from shim.monitors import probe
from shim.monitors.base import Launch, Machine, Nic, Run
from shim.monitors.binary import identity, locate, shares

_log = log.get(__name__)

_PROBE_TIMEOUT = 3.0  # seconds; the probe guest is done in a tenth of that where it runs at all
_KVM = Path("/dev/kvm")
_BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
# The guest is asked to do what these forbid by nobody; QEMU's own seccomp filter (qemu(1), -sandbox).
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def machine_type(accel: str) -> tuple[str, ...]:
    """Machine and processor for an accelerator."""
    cpu = "host" if accel == "kvm" else "max"
    return ("-M", f"microvm,accel={accel},acpi=off,rtc=on,auto-kernel-cmdline=on", "-cpu", cpu)


def arguments(program: Path, machine: Machine, accel: str) -> tuple[str, ...]:
    """QEMU's command line."""
    found = [
        str(program),
        *machine_type(accel),
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
        " ".join(machine.words),
    ]
    if machine.initrd is not None:
        found += ["-initrd", str(machine.initrd)]
    for position, nic in enumerate(machine.nics):
        found += _nic(nic, position)
    return tuple(found)


def _nic(nic: Nic, position: int) -> list[str]:
    return [
        "-netdev",
        f"tap,id=net{position},fd={nic.fd}",
        "-device",
        f"virtio-net-device,netdev=net{position},mac={nic.mac},host_mtu={nic.mtu}",
    ]


class Qemu:
    """QEMU, with the accelerator found by trying it once."""

    name: str = "qemu"
    overhead: int = 64
    settle: float = 0.15

    def __init__(self, path: str, accel: Literal["auto", "kvm", "tcg"], run: Run, state: Path) -> None:
        """`state` is a directory for what was found out, which holds until the machine is restarted."""
        self._path = path
        self._wanted = accel
        self._run = run
        self._state = state
        self._probing = asyncio.Lock()
        self._known: dict[str, str] = {}

    async def attaches_by_name(self) -> bool:
        """QEMU takes a descriptor."""
        await asyncio.to_thread(locate, self._path, self.name)
        return False

    async def launch(self, machine: Machine) -> Launch:
        """QEMU's command line for `machine`."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        accel = await self.accelerator(program)
        return Launch(
            argv=arguments(program, machine, accel),
            devices=(_KVM,) if accel == "kvm" else (),
            shares=await asyncio.to_thread(shares, program),
        )

    async def accelerator(self, program: Path) -> str:
        """`kvm` or `tcg`. Tried once for each program file and boot of the machine, whatever many pods ask at once.

        Raises NodeFault when KVM is demanded and does not work.
        """
        if self._wanted == "tcg":
            return "tcg"
        key = await asyncio.to_thread(identity, program)
        async with self._probing:
            if key not in self._known:
                self._known[key] = await self._remembered(key) or await self._try_kvm(program, key)
        found = self._known[key]
        if self._wanted == "kvm" and found != "kvm":
            raise NodeFault(
                "KVM does not run a guest here", subject=str(_KVM), remedy="set monitors.qemu.accel to auto or tcg"
            )
        return found

    def _memory(self) -> Path:
        return self._state / "accelerator"

    async def _remembered(self, key: str) -> str:
        def read() -> str:
            try:
                known, _, found = self._memory().read_text().rpartition("\n")
            except OSError:
                return ""
            return found if known == key else ""

        return await asyncio.to_thread(read)

    async def _try_kvm(self, program: Path, key: str) -> str:
        found = "kvm" if await asyncio.to_thread(_KVM.exists) and await self.runs(program, "kvm") else "tcg"
        _log.info("accelerator found", program=str(program), accelerator=found)

        def remember() -> None:
            draft = self._memory().with_suffix(".draft")
            draft.write_text(f"{key}\n{found}")
            draft.replace(self._memory())

        await asyncio.to_thread(remember)
        return found

    async def runs(self, program: Path, accel: str) -> bool:
        """Whether a guest runs to its end under `accel`, seen by running one."""
        path = self._state / f"probe-{os.getpid()}"
        await asyncio.to_thread(path.write_bytes, probe.kernel())
        argv = [str(program), *machine_type(accel), *_BARE, "-m", "32", "-device", probe.DEVICE, "-kernel", str(path)]
        try:
            return (await self._run(argv, timeout=_PROBE_TIMEOUT)).status == probe.STATUS
        except TimedOut:
            return False
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
