"""Nanos: settings that override the manifest in the image, `PATH.TO.SETTING=VALUE`.

Facts are from nanovms/nanos of July 2026. Words are split at spaces, and nothing protects one. What stands before a
word's first `=` is split at its dots, and what it names is set in the manifest's tree, as a string; with no value it is
left as it was (src/kernel/init.c, cmdline_apply() and cmdline_apply_option(), since December 2023).

What is read from that tree: `program` (src/kernel/stage3.c); `arguments.N` and `environment.NAME` (src/unix/exec.c;
arguments replace the manifest's one by one, and what it has beyond them stays); `enN.ipaddr`, `.netmask`, `.gateway`,
`.mtu`, `.default` for the N-th NIC, from 1, which without an address asks for DHCP (src/net/net.c,
init_network_iface()); `mounts.VOLUME=PATH[:ro]`, where VOLUME is a file system's label, or `%N` for the 9p device whose
tag is the number N (src/kernel/storage.c, volume_match(); src/virtio/virtio_9p.c). The root is the disk that has a
partition of Nanos's own. There is nothing for name servers (a program reads the image's /etc/resolv.conf), hostname,
or routes; an IPv6 address could be told, its prefix and gateway could not.

Only a kernel that is started by Linux's 64-bit boot protocol on x86 reads its command line: started by PVH (QEMU,
Cloud Hypervisor, Firecracker from 1.12), from its own boot loader, or on aarch64 it does not
(platform/pc/service.c, init_service() and pvh_start(); src/aarch64/kernel_machine.h).
"""

from __future__ import annotations

from collections.abc import Sequence

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.mounting import mount_point
from shim.guests.network import way_out
from shim.network.view import GuestInterface


class Nanos:
    """The program and its arguments, environment, network and mounts, then the image's own words."""

    name = "nanos"
    versions = frozenset((4,))
    roots: tuple[str, ...] = ("tfs",)
    mounts: tuple[str, ...] = ("tfs", "9p")
    # What the page heap keeps for itself on a small machine, and the least that a balloon leaves (src/config.h,
    # PAGEHEAP_LOWMEM_MEMORY_RESERVE, BALLOON_MEMORY_MINIMUM).
    minimum: int = 20

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value that the grammar cannot express."""
        words = [*_network(spec.interfaces), *_volumes(spec.volumes)]
        words += [_variable(name, value) for name, value in spec.environment.items()]
        words += _arguments(spec.arguments)
        return (*words, *(word for word in spec.cmdline.split(" ") if word))


def _network(interfaces: tuple[GuestInterface, ...]) -> list[str]:
    found = []
    gate = way_out(interfaces)
    for position, interface in enumerate(interfaces):
        device = f"en{position + 1}"
        if interface.address is not None:
            found += [f"{device}.ipaddr={interface.address.ip}", f"{device}.netmask={interface.address.netmask}"]
            if interface.gateway is not None:
                found.append(f"{device}.gateway={interface.gateway}")
        found.append(f"{device}.mtu={interface.mtu}")
        if position == gate and position > 0:
            # Unasked, the first NIC is the way to everything.
            found.append(f"{device}.default=t")
    return found


def _volumes(volumes: Sequence[Volume]) -> list[str]:
    """Mount points; a root and a bare device are not spoken of. Raises InvalidRequest for what cannot be mounted."""
    found = []
    for volume in volumes:
        known = Nanos.roots if volume.target == "/" else Nanos.mounts
        if volume.format and volume.format not in known:
            raise InvalidRequest(
                f"a Nanos guest cannot mount {volume.format} there",
                subject=volume.target,
                remedy=f"use {' or '.join(known)}",
            )
        if volume.target in ("", "/"):
            continue
        where = mount_point(volume, "Nanos", " :\0")
        found.append(f"mounts.{_key(volume)}={where}{':ro' if volume.read_only else ''}")
    return found


def _key(volume: Volume) -> str:
    """What the kernel knows the volume by. Raises InvalidRequest where it cannot know it."""
    if volume.format == "9p":
        if not (volume.device.isascii() and volume.device.isdigit()):
            raise InvalidRequest(
                f"a Nanos guest finds a shared directory by a number, not by {volume.device!r}", subject=volume.target
            )
        return f"%{int(volume.device)}"
    if not volume.device or any(character in volume.device for character in " .=\0"):
        raise InvalidRequest(
            f"a Nanos guest finds a disk by its file system's label, and {volume.device!r} can be none",
            subject=volume.target,
            remedy="name the disk by its label, without spaces, dots and =",
        )
    return volume.device


def _variable(name: str, value: str) -> str:
    subject = f"env {name}"
    if not name or any(character in name for character in " .=\0"):
        raise InvalidRequest(
            "this name of an environment variable cannot be told to Nanos",
            subject=subject,
            remedy="use none with spaces, dots or =",
        )
    return _setting(f"environment.{name}", value, subject)


def _arguments(arguments: tuple[str, ...]) -> list[str]:
    if not arguments:
        return []
    if not arguments[0].startswith("/"):
        raise InvalidRequest(
            f"the first argument is the program that Nanos starts, and {arguments[0]!r} is no absolute path",
            subject="args",
            remedy="begin with the program's path in the guest's own file system, or give no arguments",
        )
    found = [_setting("program", arguments[0], "args")]
    return [*found, *(_setting(f"arguments.{number}", value, "args") for number, value in enumerate(arguments))]


def _setting(name: str, value: str, subject: str) -> str:
    """One word. Raises InvalidRequest for a value that no word can hold."""
    if not value or " " in value or "\0" in value:
        raise InvalidRequest(
            f"Nanos cannot be told {value!r}: its settings are not empty and have no space",
            subject=subject,
            remedy="put it into the manifest of the image",
        )
    return f"{name}={value}"
