"""The contract between the shim and one unikernel family: what its command line says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from shim.errors import NetworkFault
from shim.network.view import GuestInterface


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is to mount, or to find.

    `target` is the absolute path in the guest, "/" for its root, "" for a bare device that the guest looks for itself.
    `format` is the file system's name (iso9660, ext4, squashfs, erofs, …), "" for a device whose content is not known,
    9p or virtiofs for a directory of the node that the monitor shares. `disk` is its number among the machine's disks,
    from 0, None for a shared directory. `device` is the name by which a kernel's manifest calls the disk, or the tag
    of a shared directory.
    """

    target: str
    format: str
    disk: int | None = None
    device: str = ""
    read_only: bool = True


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    """How the guest finds names, as resolv.conf(5) has it; servers are IP addresses."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a guest may be told.

    `arguments` are the container's own process arguments after the kernel's path was taken off; `environment` maps
    names to values; `cmdline` is the image's or pod's verbatim addition (`io.unikernel.cmdline`); `interfaces` are in
    the pod's order; `volumes` in the order of the machine's disks, the root first where there is one. `version` is what
    the image says of its family's version ("" where it does not), `console` the name of the machine's serial console as
    Linux calls it. `program` is the name that the guest's main() finds as argv[0] ("" where the family's own will do),
    `cwd` the absolute path where it starts ("" where that does not matter), `devices` what the kernel's manifest calls
    its NICs, in the order of `interfaces` (none where it has no manifest).
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    hostname: str = ""
    cmdline: str = ""
    interfaces: tuple[GuestInterface, ...] = ()
    dns: Dns = Dns()
    volumes: tuple[Volume, ...] = ()
    version: str = ""
    console: str = "ttyS0"
    program: str = ""
    cwd: str = ""
    devices: tuple[str, ...] = ()


class Guest(Protocol):
    """One unikernel family's grammar."""

    name: str
    #: The versions of IP that it can be told an address of: 4, 6.
    versions: frozenset[int]
    #: The formats of volumes that it can mount as its root file system, the best first; none where it takes no root.
    roots: tuple[str, ...]
    #: The formats of volumes that it can be told to mount elsewhere, the best first.
    mounts: tuple[str, ...]
    #: The least memory that any guest of the family starts with, in MiB.
    minimum: int

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The guest's command line as words, quoted in its own grammar; a monitor that takes one string joins them with
        spaces.

        Raises InvalidRequest where the grammar cannot express a value, naming the value.
        """
        ...


def check_versions(guest: Guest, interface: GuestInterface) -> str:
    """What of an interface's addresses the guest will not have, as a sentence, or "".

    Raises NetworkFault where it would have none of them.
    """
    have = {4: interface.address, 6: interface.address6}
    missing = [
        f"{interface.name}'s {address.ip}"
        for version, address in have.items()
        if address is not None and version not in guest.versions
    ]
    speaks = " and ".join(f"IPv{version}" for version in sorted(guest.versions))
    if missing and not any(have[version] for version in guest.versions):
        raise NetworkFault(
            f"{guest.name} guests can be told {speaks} addresses only, and {interface.name} has none",
            subject=interface.name,
            remedy="give the pod one, or run it as another guest; io.unikernel.nics can leave an interface out",
        )
    return f"{guest.name} guests cannot be told of {' and '.join(missing)}: they speak {speaks}" if missing else ""
