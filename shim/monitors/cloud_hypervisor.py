"""Cloud Hypervisor: a machine of virtio-pci devices with ACPI, told over its API.

    cloud-hypervisor --seccomp=true --api-socket=fd=3
    GET /api/v1/vm.info       what there is of the machine
    PUT /api/v1/vm.create     all of it but the NICs
    PUT /api/v1/vm.add-net    a NIC, its tap as a descriptor beside the request
    PUT /api/v1/vm.boot

The socket is made by the daemon and inherited. Of a machine that is not running, vm.create and vm.add-net only write
down what it will be (vmm/src/lib.rs), and vm.info tells what is written: whoever finds a monitor half told goes on from
there. A tap comes as a descriptor beside its vm.add-net or not at all: of a vm.create they are dropped
(vmm/src/api/http/http_endpoint.rs). The monitor keeps it as long as the machine, through the guest's reboots.

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
from typing import Any

import msgspec

from shim import config
from shim.errors import InvalidRequest, NodeFault, Unsupported
from shim.monitors import control, http, limits
from shim.monitors.base import Disk, Launch, Machine, OpenTap, Run
from shim.monitors.binary import locate, shares
from shim.monitors.version import Version, Versions

# The first that loads a bzImage (release-notes.md, v39.0): from there on it takes the kernels that QEMU takes. Its API
# takes descriptors since long before.
_OLDEST = (39, 0)
# Since then an MTU that cannot be asked for is no error.
_ASKS_NO_MTU = (52, 0)
# Since then a disk's format can be said (release-notes.md, v51.0). Before, it is read off the disk's content, which is
# the guest's to write: a disk with another format's header may name files of the node.
_TAKES_FORMAT = (51, 0)
_ROOM = 0x10000 if os.uname().machine == "x86_64" else 2048  # arch/src/*/layout.rs, CMDLINE_MAX_SIZE
_BODY = 51200  # bytes of a request's (micro-http, src/server.rs, MAX_PAYLOAD_SIZE)
_MIB = 1 << 20
_API = "/api/v1/"  # vmm/src/api/openapi/cloud-hypervisor.yaml
# What a machine is called that has not come to run (vmm/src/vm.rs, VmState).
_CREATED = "Created"


class _Nic(msgspec.Struct, frozen=True, kw_only=True):
    tap: str
    mac: str


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is told over the API: the machine as vm.create takes it, and its NICs in order."""

    machine: msgspec.Raw
    nics: tuple[_Nic, ...] = ()


class _Net(msgspec.Struct, frozen=True):
    mac: str = ""


class _Config(msgspec.Struct, frozen=True):
    net: tuple[_Net, ...] | None = None


class _Info(msgspec.Struct, frozen=True):
    """Of vm.info's answer what is asked for."""

    state: str
    config: _Config


def description(machine: Machine, version: Version) -> dict[str, Any]:
    """The machine but for its NICs (vmm/src/vm_config.rs, `VmConfig`). Raises InvalidRequest, and Unsupported for a
    disk that it cannot have safely."""
    payload = {
        "kernel": str(machine.kernel),
        "cmdline": limits.command_line(machine, CloudHypervisor.name, _ROOM),
    }
    if machine.initrd is not None:
        payload["initramfs"] = str(machine.initrd)
    found: dict[str, Any] = {
        "payload": payload,
        "cpus": {"boot_vcpus": machine.cpus, "max_vcpus": machine.cpus},
        "memory": {"size": machine.memory * _MIB},
        # The serial console is stdin and stdout; the paravirtual one, on unless told otherwise, would share them.
        "serial": {"mode": "Tty"},
        "console": {"mode": "Off"},
    }
    if machine.disks:
        found["disks"] = [_disk(disk, version) for disk in machine.disks]
    return found


def _disk(disk: Disk, version: Version) -> dict[str, Any]:
    try:
        str(disk.path).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("cloud-hypervisor takes no disk with such a name", subject=repr(str(disk.path))) from error
    if version >= _TAKES_FORMAT:
        return {"path": str(disk.path), "readonly": disk.read_only, "image_type": "Raw"}
    if not disk.read_only:
        raise Unsupported(
            "this version of cloud-hypervisor takes a disk for what its content says, and the guest writes that",
            subject=str(disk.path),
            remedy="install cloud-hypervisor 51.0 or newer, or make the disk read-only",
        )
    return {"path": str(disk.path), "readonly": True}


def told(machine: Machine, version: Version) -> bytes:
    """What `CloudHypervisor.boot` tells the monitor, to be kept until it has. Raises as `description`."""
    body = msgspec.json.encode(description(machine, version))
    if len(body) > _BODY:
        raise InvalidRequest(
            f"the machine's description has {len(body)} bytes, and cloud-hypervisor takes {_BODY}",
            subject="args",
            remedy="give the container fewer arguments and variables",
        )
    nics = tuple(_Nic(tap=nic.tap, mac=nic.mac) for nic in machine.nics)
    return msgspec.json.encode(_Told(machine=msgspec.Raw(body), nics=nics))


class CloudHypervisor:
    """Cloud Hypervisor, of whatever version is installed."""

    name: str = "cloud-hypervisor"
    # None: what it has to say against its kernel it says when it is to boot it.
    settle: float = 0.0
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
        """A bound, not measured: there is none here (docs/runtimeclass.md has the reason)."""
        return 48 + math.ceil(memory / 128)

    async def attaches_by_name(self) -> bool:
        """Never: it is sent a descriptor."""
        await asyncio.to_thread(locate, self._path, self.name)
        return False

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """None: Cloud Hypervisor moves its packets itself."""
        return ()

    async def launch(self, machine: Machine) -> Launch:
        """Its command line, by which it has no machine yet, and what it is told then."""
        program = await asyncio.to_thread(locate, self._path, self.name)
        version = await self._versions.of(program)
        limits.check(machine, self)
        telling = told(machine, version)
        assert machine.control is not None, "it is always handed a control socket"
        return Launch(
            argv=(str(program), "--seccomp=true", f"--api-socket=fd={machine.control}"),
            devices=(Path("/dev/kvm"),),
            shares=await asyncio.to_thread(shares, program),
            in_pod=bool(machine.nics) and version < _ASKS_NO_MTU,
            machine=telling,
        )

    async def boot(self, directory: Path, machine: bytes, open_tap: OpenTap) -> None:
        """Tell it the machine, as far as it has not been told, and boot that."""
        wanted = msgspec.json.decode(machine, type=_Told)
        found = await self._info(directory)
        if found is None:
            await self._put(directory, "vm.create", bytes(wanted.machine))
        elif found.state != _CREATED:
            return
        there = {net.mac for net in (found.config.net or ())} if found is not None else set()
        for nic in wanted.nics:
            if nic.mac in there:
                continue
            tap = await open_tap(nic.tap)
            try:
                # No mtu: that would set the tap's, which is not its to change.
                await self._put(directory, "vm.add-net", msgspec.json.encode({"mac": nic.mac}), tap)
            finally:
                # Off the loop: where the monitor has not taken it, this is the last one.
                await asyncio.to_thread(os.close, tap)
        await self._put(directory, "vm.boot")

    async def _info(self, directory: Path) -> _Info | None:
        """What there is of the machine, None for nothing. Raises Unreachable, NodeFault."""
        try:
            said = await http.get(control.connect(directory), f"{_API}vm.info")
        except NodeFault:
            # There is none: 500 up to version 52, 404 since. What else it refuses it says again, when asked for more.
            return None
        try:
            return msgspec.json.decode(said, type=_Info)
        except (ValueError, RecursionError) as error:
            raise NodeFault(f"the monitor's answer makes no sense: {error}", subject="vm.info") from error

    async def _put(self, directory: Path, action: str, body: bytes = b"", *descriptors: int) -> None:
        await http.put(control.connect(directory), f"{_API}{action}", body, descriptors)

    async def power_down(self, directory: Path) -> None:
        """Press the machine's power button. A guest hears of it by ACPI, and ends by itself if it will."""
        await self._put(directory, "vm.power-button")
