"""Cloud Hypervisor: a machine of virtio-pci devices with ACPI, told by its command line.

    cloud-hypervisor --kernel=KERNEL --cmdline=WORDS --cpus=boot=1 --memory=size=128M
                     --net=fd=3,mac=MAC --api-socket=fd=4

A tap reaches it as an inherited descriptor, with the rest of the machine. Its API takes one as well (`vm.add-net` with
SCM_RIGHTS, docs/api.md), but then the machine would have to be made and booted over the API too, by a daemon that must
live from the container's start until its boot. This way the container's process needs nobody. The API's socket is
handed over for one purpose: the power button.

Up to version 51 it ends where it cannot ask the kernel for its tap's MTU, and the kernel answers by the interface's
name (virtio-devices/src/net.rs). Those run in the pod's network namespace, and tell the guest; newer ones run in an
empty one, and the guest assumes 1500 unless its command line says otherwise.

A guest ends its monitor by switching its power off. One that reboots is booted again, in the same process.
"""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

from shim import config
from shim.errors import InvalidRequest, Unsupported
from shim.monitors import control, http, limits
from shim.monitors.base import Disk, Launch, Machine, Nic, Run
from shim.monitors.binary import locate, shares
from shim.monitors.version import Version, Versions

# The first that loads a bzImage (release-notes.md, v39.0): from there on it takes the kernels that QEMU takes.
_OLDEST = (39, 0)
# Since then an MTU that cannot be asked for is no error.
_ASKS_NO_MTU = (52, 0)
# Since then a disk's format can be said (release-notes.md, v51.0). Before, it is read off the disk's content, which is
# the guest's to write: a disk with another format's header may name files of the node.
_TAKES_FORMAT = (51, 0)
_ROOM = 0x10000 if os.uname().machine == "x86_64" else 2048  # arch/src/*/layout.rs, CMDLINE_MAX_SIZE
# What its grammar of options reads for its own (option_parser/src/lib.rs); how it is quoted differs between versions.
_GRAMMAR = frozenset(',"[]')
_POWER_BUTTON = "/api/v1/vm.power-button"  # vmm/src/api/openapi/cloud-hypervisor.yaml


def arguments(program: Path, machine: Machine, version: Version) -> tuple[str, ...]:
    """Its command line. Raises InvalidRequest, and Unsupported for a disk that it cannot have safely."""
    found = [
        str(program),
        f"--kernel={machine.kernel}",
        f"--cmdline={limits.command_line(machine, CloudHypervisor.name, _ROOM)}",
        f"--cpus=boot={machine.cpus}",
        f"--memory=size={machine.memory}M",
        # The serial console is stdin and stdout; the paravirtual one, on unless told otherwise, would share them.
        "--serial=tty",
        "--console=off",
        "--seccomp=true",
    ]
    if machine.initrd is not None:
        found.append(f"--initramfs={machine.initrd}")
    if machine.disks:
        found += ["--disk", *(_disk(disk, version) for disk in machine.disks)]
    if machine.nics:
        found += ["--net", *(_net(nic) for nic in machine.nics)]
    if machine.control is not None:
        found.append(f"--api-socket=fd={machine.control}")
    return tuple(found)


def _disk(disk: Disk, version: Version) -> str:
    if not _GRAMMAR.isdisjoint(str(disk.path)) or str(disk.path) != str(disk.path).strip():
        raise InvalidRequest("cloud-hypervisor takes no disk with such a name", subject=str(disk.path))
    if version >= _TAKES_FORMAT:
        return f"path={disk.path},readonly={_toggle(disk.read_only)},image_type=raw"
    if not disk.read_only:
        raise Unsupported(
            "this version of cloud-hypervisor takes a disk for what its content says, and the guest writes that",
            subject=str(disk.path),
            remedy="install cloud-hypervisor 51.0 or newer, or make the disk read-only",
        )
    return f"path={disk.path},readonly=on"


def _net(nic: Nic) -> str:
    # No mtu=: that would set the tap's, which is not its to change.
    return f"fd={nic.fd},mac={nic.mac}"


def _toggle(on: bool) -> str:
    return "on" if on else "off"


class CloudHypervisor:
    """Cloud Hypervisor, of whatever version is installed."""

    name: str = "cloud-hypervisor"
    settle: float = 0.15
    vnet_hdr: bool = True
    # Its UART is a PL011 on arm64 (docs/arm64.md).
    console: str = "ttyS0" if os.uname().machine == "x86_64" else "ttyAMA0"
    # arch/src/x86_64/mod.rs, MAX_SUPPORTED_CPUS_LEGACY: all that its interrupt controller can name
    cpus: int = 254
    shares_directories: bool = False
    writes_disks: bool = False

    def __init__(self, settings: config.CloudHypervisor, run: Run) -> None:
        self._path = settings.path
        self.powerdown: float = settings.powerdown
        self._versions = Versions(self.name, _OLDEST, run)

    def overhead(self, memory: int) -> int:
        """Not measured: there is none here. Its own is that of a Rust program with a few threads, twice that; for
        KVM's page tables what was seen of others (docs/runtimeclass.md)."""
        return 48 + math.ceil(memory / 128)

    async def attaches_by_name(self) -> bool:
        """Never: it takes a descriptor."""
        await asyncio.to_thread(locate, self._path, self.name)
        return False

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """None: Cloud Hypervisor moves its packets itself."""
        return ()

    async def launch(self, machine: Machine) -> Launch:
        """Its command line for `machine`."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        version = await self._versions.of(program)
        limits.check(machine, self)
        return Launch(
            argv=arguments(program, machine, version),
            devices=(Path("/dev/kvm"),),
            shares=await asyncio.to_thread(shares, program),
            in_pod=bool(machine.nics) and version < _ASKS_NO_MTU,
        )

    async def power_down(self, directory: Path) -> None:
        """Press the machine's power button. A guest hears of it by ACPI, and ends by itself if it will."""
        await http.put(control.connect(directory), _POWER_BUTTON)
