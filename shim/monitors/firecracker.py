"""Firecracker: a minimal machine of virtio-mmio devices, told all at once by one JSON file.

    firecracker --no-api --config-file /unikernel/firecracker.json

It opens its taps itself, by name (src/vmm/src/devices/virtio/net/tap.rs), so it runs in the pod's network namespace.
Nothing of it listens: the metadata service (MMDS) is off unless configured, and so is the API. The API is the only way
to ask a guest to end, by Ctrl+Alt+Del. It would cost a socket that Firecracker makes itself, in a directory that it can
write to, and a thread that answers whoever reaches that; and the request is a keyboard's, on x86 alone, which a
unikernel does not have and a Linux guest hears only with drivers for it. So nobody is asked, and SIGTERM ends the guest
at once.

A guest ends its monitor by a reset: by the keyboard controller or a triple fault (Linux, `reboot=k` and `reboot=t`).
There is no power to switch off: a guest that halts stays.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import msgspec

from shim import config
from shim.errors import InvalidRequest, Unsupported
from shim.monitors import limits
from shim.monitors.base import Disk, Launch, Machine, Nic, Run
from shim.monitors.binary import locate, shares
from shim.monitors.version import Version, Versions

#: Where Firecracker finds its configuration.
CONFIG = Path("/unikernel/firecracker.json")

# Since then its log, which goes to the guest's console, can be kept quiet (src/firecracker/src/main.rs, "level").
_OLDEST = (1, 5)
# Since then a kernel that has a PVH note is started by that (CHANGELOG.md, 1.12.0), before it was by Linux's protocol.
_STARTS_BY_PVH = (1, 12)
# Since then it tells the guest a NIC's MTU (CHANGELOG.md, 1.16.0); older ones refuse a key that they do not know.
_TELLS_MTU = (1, 16)
# Bytes of the command line (src/vmm/src/arch/*/layout.rs, CMDLINE_MAX_SIZE), and of what Firecracker puts there itself:
# "pci=off", and a device's place, as "virtio_mmio.device=4K@0xd0000000:10" (src/vmm/src/devices, builder.rs).
_ROOM, _OWN_WORDS, _PLACE = 2048, 8, 38


def _check_separator(words: tuple[str, ...]) -> None:
    """Raise InvalidRequest where Firecracker would put the places of its devices behind the guest's `--`, among the
    arguments: it looks for one with a space on both sides and outside double quotes (linux-loader, cmdline/mod.rs)."""
    before, found, _ = " ".join(words).partition(" -- ")
    if "--" in words and (not found or before.count('"') % 2):
        raise InvalidRequest(
            "Firecracker does not find the end of the kernel's words in this command line",
            subject="args",
            remedy="give the guest an argument, and have no single double quote in its environment",
        )


def configuration(machine: Machine, version: Version) -> bytes:
    """The configuration file (src/vmm/src/resources.rs, `VmmConfig`). Raises InvalidRequest."""
    _check_separator(machine.words)
    room = _ROOM - _OWN_WORDS - _PLACE * (len(machine.nics) + len(machine.disks))
    boot: dict[str, Any] = {
        "kernel_image_path": str(machine.kernel),
        # Said even when empty: without it Firecracker takes words of its own, for Linux.
        "boot_args": limits.command_line(machine, Firecracker.name, room),
    }
    if machine.initrd is not None:
        boot["initrd_path"] = str(machine.initrd)
    whole = {
        "boot-source": boot,
        "machine-config": {"vcpu_count": machine.cpus, "mem_size_mib": machine.memory},
        "drives": [_drive(disk, position) for position, disk in enumerate(machine.disks)],
        "network-interfaces": [_interface(nic, position, version) for position, nic in enumerate(machine.nics)],
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _drive(disk: Disk, position: int) -> dict[str, Any]:
    # Which disk is the root is the guest's to know: for a root device Firecracker adds Linux's word by itself.
    found: dict[str, Any] = {
        "drive_id": f"disk{position}",
        "is_root_device": False,
        "is_read_only": disk.read_only,
        "path_on_host": str(disk.path),
    }
    if not disk.read_only:
        found["cache_type"] = "Writeback"  # else what the guest flushes is not (docs/api_requests/block-caching.md)
    return found


def _interface(nic: Nic, position: int, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = {"iface_id": f"net{position}", "host_dev_name": nic.tap, "guest_mac": nic.mac}
    if version >= _TELLS_MTU:
        found["mtu"] = nic.mtu
    return found


class Firecracker:
    """Firecracker, of whatever version is installed."""

    name: str = "firecracker"
    settle: float = 0.1
    vnet_hdr: bool = True
    powerdown: float = 0.0
    console: str = "ttyS0"
    # src/vmm/src/vmm_config/machine_config.rs, MAX_SUPPORTED_VCPUS
    cpus: int = 32
    shares_directories: bool = False
    writes_disks: bool = False

    def __init__(self, settings: config.Firecracker, run: Run) -> None:
        self._path = settings.path
        self._versions = Versions(self.name, _OLDEST, run)

    def overhead(self, memory: int) -> int:
        """Measured with 1.12.1: 2 MiB beside 128 MiB of guest, 7 with 32 processors, and 10 beside 2 GiB."""
        return 12 + math.ceil(memory / 128)

    async def attaches_by_name(self) -> bool:
        """Always: it has no other way."""
        await asyncio.to_thread(locate, self._path, self.name)
        return True

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """None: Firecracker moves its packets itself."""
        return ()

    async def launch(self, machine: Machine) -> Launch:
        """Firecracker's command line and its file for `machine`."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        version = await self._versions.of(program)
        limits.check(machine, self)
        if machine.deaf and version >= _STARTS_BY_PVH:
            raise Unsupported(
                f"Firecracker {version[0]}.{version[1]} starts this kernel by PVH, and so it reads no command line: it "
                "would know neither its address nor its arguments",
                subject=str(program),
                remedy="install Firecracker 1.5 to 1.11 for it; it runs on no other monitor",
            )
        attached = bool(machine.nics)
        return Launch(
            # Its log goes to the guest's console; what it cannot do it says on stderr, at whatever level.
            argv=(str(program), "--no-api", "--config-file", str(CONFIG), "--level", "Error"),
            devices=(Path("/dev/kvm"), *((Path("/dev/net/tun"),) if attached else ())),
            shares=await asyncio.to_thread(shares, program),
            by_name=attached,
            files={CONFIG: configuration(machine, version)},
        )

    async def power_down(self, directory: Path) -> None:
        """Refused: nobody listens."""
        raise Unsupported("Firecracker is run without its API, by which a guest could be asked", subject=self.name)
