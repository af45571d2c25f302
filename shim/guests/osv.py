r"""OSv: options for the kernel, then the command that it runs; two grammars on one line.

Facts are from cloudius-systems/osv of August 2026. Options are words that begin with `-`, split at spaces, tabs and
newlines; a backslash protects any character, and quotes are nothing special (core/commands.cc, loader_parse_cmdline();
libc/string/stresep.c). What they are: loader.cc, parse_options(); an unknown one powers the guest off.

The first other word begins the command (core/commands.cc, `struct command`). A word there is in double quotes, with C's
escapes \a \b \f \n \r \t \v \\ \' \", or has no space, `;`, `&` and `!`, which end a command. Its characters are ASCII
(Boost's `ascii::char_`). Then a `$` and all behind it become the environment variable of that name
(expand_environ_vars()), and nothing protects one.

With an address for any NIC there is no DHCP; eth0, eth1, … are numbered in the machine's order (drivers/virtio-net.cc).
There is one default gateway and one name server, and no option for a hostname or an MTU (the device says its own). The
root is the first partition of the first disk, or the first virtio-fs device (loader.cc, do_main_thread()); without
`--rootfs` OSv tries one after the other. `--mount-fs=TYPE,DEVICE,PATH` mounts others (ext: modules/libext/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.mounting import mount_point
from shim.guests.network import name_servers, way_out
from shim.network.view import GuestInterface

# A guest that aborts ends its monitor (since 2014); without it, it would stand still.
_ALWAYS = ("--power-off-on-abort",)
_EXT = ("ext2", "ext3", "ext4")
_ROOTS = {"rofs": "rofs", "zfs": "zfs", "virtiofs": "virtiofs", **dict.fromkeys(_EXT, "ext")}
_MOUNTS = {"virtiofs": "virtiofs", **dict.fromkeys(_EXT, "ext")}
_ESCAPES = str.maketrans({
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
    "\\": r"\\", '"': r"\"",
})  # fmt: skip
_ZERO = "0.0.0.0"  # noqa: S104 - what OSv gives a NIC before it knows better (loader.cc)


class Osv:
    """Options for network, environment and volumes, the image's own words, then the command."""

    name = "osv"
    versions = frozenset((4,))
    roots: tuple[str, ...] = ("rofs", "zfs", "virtiofs")
    mounts: tuple[str, ...] = ("ext4", "virtiofs")
    # OSv's README.md, "Memory Utilization": 11 MiB for its smallest program.
    minimum: int = 11

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value that the grammar cannot express, or no command."""
        options = [*_ALWAYS, *_volumes(spec.volumes), *_network(spec)]
        options += [_variable(name, value) for name, value in spec.environment.items()]
        own = spec.cmdline.strip()
        if not spec.arguments and all(word.startswith("-") for word in own.split()):
            raise InvalidRequest(
                "an OSv guest powers off without a command", subject="args", remedy="name the program in its image"
            )
        command = [_argument(argument) for argument in spec.arguments]
        return (*(_option(option) for option in options), *((own,) if own else ()), *command)


def _network(spec: GuestSpec) -> list[str]:
    if not spec.interfaces:
        return []
    found = [_ip(position, interface) for position, interface in enumerate(spec.interfaces) if interface.address]
    gate = way_out(spec.interfaces)
    if gate is not None:
        found.append(f"--defaultgw={spec.interfaces[gate].gateway}")
    found += [f"--nameserver={server}" for server in name_servers(spec.dns, 4)[:1]]
    # With no address at all it would wait for a DHCP server for ever.
    return found if any(interface.address for interface in spec.interfaces) else [f"--ip=eth0,{_ZERO},255.255.255.0"]


def _ip(position: int, interface: GuestInterface) -> str:
    assert interface.address is not None
    return f"--ip=eth{position},{interface.address.ip},{interface.address.netmask}"


def _volumes(volumes: Sequence[Volume]) -> list[str]:
    """`--rootfs` and `--mount-fs`; a bare device is not spoken of. Raises InvalidRequest for what cannot be mounted."""
    shared = [volume for volume in volumes if volume.format == "virtiofs"]
    found = []
    for volume in volumes:
        if not volume.target:
            continue
        where = f"/dev/virtiofs{shared.index(volume)}" if volume in shared else f"/dev/vblk{volume.disk}"
        if volume.target == "/":
            found += _root(volume, where)
            continue
        kind = _MOUNTS.get(volume.format)
        if kind is None:
            raise InvalidRequest(
                f"an OSv guest cannot mount {volume.format or 'a disk of an unknown format'}",
                subject=volume.target,
                remedy=f"use {' or '.join(Osv.mounts)}",
            )
        found.append(f"--mount-fs={kind},{where},{mount_point(volume, 'OSv', ',')}")
    return found


def _root(volume: Volume, where: str) -> list[str]:
    """Nothing for a disk that says itself what it holds. Raises InvalidRequest for a root where OSv does not look."""
    kind = _ROOTS.get(volume.format)
    if volume.format and kind is None:
        raise InvalidRequest(
            f"an OSv guest cannot have {volume.format} as its root", subject="/", remedy=f"use {', '.join(Osv.roots)}"
        )
    if where not in ("/dev/vblk0", "/dev/virtiofs0"):
        raise InvalidRequest(
            f"an OSv guest looks for its root on the first device, and it is {where}",
            subject="/",
            remedy="put it first",
        )
    return [f"--rootfs={kind}"] if kind else []


def _variable(name: str, value: str) -> str:
    if not name or "=" in name:
        raise InvalidRequest("an environment variable's name is not empty and has no =", subject=f"env {name}")
    if "\0" in name + value:
        raise InvalidRequest("a command line cannot hold a NUL", subject=f"env {name}")
    return f"--env={name}={value}"


def _option(option: str) -> str:
    """`option` so that the loader reads it as one."""
    return re.sub(r"([\\ \t\n])", r"\\\1", option)


def _argument(argument: str) -> str:
    """`argument` so that the command's reader reads it as one. Raises InvalidRequest."""
    for unspeakable, why in (("\0", "a NUL"), ("$", "a $, which begins a variable's name")):
        if unspeakable in argument:
            raise InvalidRequest(f"a command of OSv's cannot hold {why} ({argument!r})", subject="args")
    if not argument.isascii():
        raise InvalidRequest(
            f"a command of OSv's is ASCII, and {argument!r} is not",
            subject="args",
            remedy="put it into an environment variable",
        )
    if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./:,=@%+-]*", argument):
        return argument
    return f'"{argument.translate(_ESCAPES)}"'
