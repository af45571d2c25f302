"""QEMU's command line for a machine (qemu(1)). Pure."""

from __future__ import annotations

from pathlib import Path

from shim.errors import InvalidRequest
from shim.monitors.acceleration import Acceleration
from shim.monitors.base import Disk, Machine, Nic, SharedDirectory
from shim.monitors.machines import Kind

#: What no machine of ours has, and a guest that restarts ends.
BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
# The guest is asked to do what these forbid by nobody; QEMU's own seccomp filter (qemu(1), -sandbox).
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_TAG = 31  # bytes of a mount tag (QEMU, hw/9pfs/9p.h, MAX_TAG_LEN, less its NUL)
# MiB of translated code that TCG keeps, which is memory of the monitor's. What QEMU would take by itself, up to 1 GiB
# (QEMU, accel/tcg/region.c), no memory limit would leave room for.
_TRANSLATED = 32


def machine_type(kind: Kind, accel: str) -> tuple[str, ...]:
    """Machine, accelerator and processor."""
    # Pointer authentication as the architecture has it is dear to emulate (QEMU, docs/system/arm/cpu-features.rst).
    emulated = "max,pauth-impdef=on" if kind.architecture == "aarch64" else "max"
    return (
        *("-M", ",".join((kind.name, *kind.options))),
        *("-accel", "kvm" if accel == "kvm" else f"tcg,tb-size={_TRANSLATED}"),
        *("-cpu", "host" if accel == "kvm" else emulated),
    )


def arguments(program: Path, machine: Machine, kind: Kind, acceleration: Acceleration) -> tuple[str, ...]:
    """The whole. Raises InvalidRequest for more devices than the machine has room for, and for too long a tag."""
    count = len(machine.nics) + len(machine.disks) + len(machine.directories)
    if count > kind.devices:
        raise InvalidRequest(
            f"{count} NICs, disks and directories are more than the {kind.devices} that {kind.name} has room for",
            subject=kind.name,
            remedy="give the guest fewer",
        )
    found = [
        str(program),
        *machine_type(kind, acceleration.accel),
        *BARE,
        *("-sandbox", _SANDBOX),
        *("-m", str(machine.memory)),
        *("-smp", str(machine.cpus)),
        # The console is the process's own stdin and stdout; Ctrl-C there is the guest's, not QEMU's.
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *("-kernel", str(machine.kernel)),
        *("-append", " ".join((*_clock(machine, acceleration), *machine.words))),
    ]
    if machine.initrd is not None:
        found += ["-initrd", str(machine.initrd)]
    for position, nic in enumerate(machine.nics):
        found += _nic(nic, position, kind)
    # A guest finds them in the order in which they stand here, on either bus.
    for position, disk in enumerate(machine.disks):
        found += _disk(disk, position, kind)
    for position, directory in enumerate(machine.directories):
        found += _directory(directory, position, kind)
    if machine.control is not None:
        found += [
            *("-chardev", f"socket,id=control,fd={machine.control},server=on,wait=off"),
            *("-mon", "chardev=control,mode=control"),
        ]
    return tuple(found)


def _clock(machine: Machine, acceleration: Acceleration) -> tuple[str, ...]:
    """Comes first: what is behind a "--" among the words is not the kernel's."""
    return (f"{machine.clock}={acceleration.khz}",) if machine.clock and acceleration.khz is not None else ()


def _nic(nic: Nic, position: int, kind: Kind) -> list[str]:
    # QEMU asks the descriptor whether its frames have virtio-net headers (TUNGETIFF), and offers offloads accordingly.
    vhost = "" if nic.vhost is None else f",vhost=on,vhostfd={nic.vhost}"
    # On a PCI bus it has a ROM to boot from, for which there need be no file; nothing is booted from the network.
    rom = ",romfile=" if kind.transport == "pci" else ""
    return [
        *("-netdev", f"tap,id=net{position},fd={nic.fd}{vhost}"),
        *("-device", f"virtio-net-{kind.transport},netdev=net{position},mac={nic.mac},host_mtu={nic.mtu}{rom}"),
    ]


def _disk(disk: Disk, position: int, kind: Kind) -> list[str]:
    """A disk, which names itself by its serial number.

    `-drive` and not `-blockdev`, because it finds out itself whether the path is a file or a device of the node. Files
    are read and written through the node's page cache: pods that share an image share what was read of it, an image
    may lie on any file system, and a guest's flush is an fsync. QEMU locks what it opens, readers together: that
    another pod writes to an image is refused, and not found out by its loss.
    """
    access = "read-only=on" if disk.read_only else "discard=unmap"
    return [
        *("-drive", f"if=none,id=disk{position},format=raw,{access},file={_value(disk.path)}"),
        *("-device", f"virtio-blk-{kind.transport},drive=disk{position},serial=disk{position}"),
    ]


def _directory(directory: SharedDirectory, position: int, kind: Kind) -> list[str]:
    """A directory by 9p. What the guest makes there belongs to the user that QEMU runs as, whoever the guest says: an
    owner that is kept beside the file (mapped) is seen by nobody else in the pod, and to set a real one takes root."""
    if len(directory.tag.encode()) > _TAG:
        raise InvalidRequest(f"a shared directory's tag has at most {_TAG} bytes", subject=directory.tag)
    access = ",readonly=on" if directory.read_only else ""
    # A directory may hold mounts of several file systems, whose inode numbers must not be taken for one another's.
    local = f"local,id=directory{position},path={_value(directory.path)},security_model=none,multidevs=remap{access}"
    return [
        *("-fsdev", local),
        *("-device", f"virtio-9p-{kind.transport},fsdev=directory{position},mount_tag={_value(directory.tag)}"),
    ]


def _value(text: object) -> str:
    """As the value of an option: a comma is doubled (qemu(1), -drive file)."""
    return str(text).replace(",", ",,")
