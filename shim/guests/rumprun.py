"""Rumprun on Solo5, which is what Nabla's images are: one word of JSON is the whole command line.

Read by rumprun_config() of nabla-containers/rumprun (lib/librumprun_base/config.c) with jsmn (lib/libbmk_core/jsmn.c),
which finds where a string ends and undoes no escape in it: what stands between the quotes is what the guest gets. A
value is therefore expressible where jsmn takes it for one string as it stands: no double quote, and no backslash but
in front of what JSON lets be escaped. `cmdline` alone is read a second time, by rumprun_parseargs() (parseargs.c of the
same directory): white space splits, both kinds of quotes protect it, a backslash takes the meaning from the next byte.
Together they leave no way to write a single quote.

Keys are read in their order and may be repeated (`env`, `net`). The names are those of runnc
(llruntimes/nabla/runnc-cont/rumprun.go): the NIC `ukvmif0`, which has to be created (`cloner`), and the disk `etfs`
`/dev/ld0a`. The kernel has one of each, `tap` and `rootfs` in its manifest (platform/solo5/manifest.json), whatever
they are called.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.network.view import GuestInterface

_LIMIT = 8192  # bytes, with the final NUL (platform/solo5/boot.c, SOLO5_CMDLINE_SIZE)
# Found anywhere in the command line, it makes the guest look for its configuration on a disk (config.c, ROOTCFG).
_ELSEWHERE = "_RUMPRUN_ROOTFSCFG="
# What jsmn_parse_string() reads over without ending the string or refusing it.
_PLAIN = r'(?:[^"\\\0]|\\["/\\bfnrt]|\\u[0-9A-Fa-f]{4})*'


class Rumprun:
    """`cmdline`, `hostname`, `net` for each version of IP, `blk`, `env` for each variable, `cwd`."""

    name = "rumprun"
    versions = frozenset((4, 6))
    #: mount_blk() tries LFS, ISO 9660, FFS and ext2 in this order; its ext2 is of before ext4's extents.
    roots: tuple[str, ...] = ("iso9660", "ext2")
    mounts: tuple[str, ...] = ("iso9660", "ext2")
    #: unikraft/eurosys21-artifacts measured it for a hello on Solo5 (experiments/fig_11_compare-min-mem).
    minimum: int = 8

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The JSON. Raises InvalidRequest for a value that it cannot express, a second NIC or disk, or too much."""
        command = " ".join(map(_argument, (spec.program or self.name, *spec.arguments)))
        members = [("cmdline", _string(command))]
        if spec.hostname:
            members.append(("hostname", _string(_checked(spec.hostname, "hostname"))))
        members += [("net", net) for net in _network(spec.interfaces)]
        disk = _disk(spec.volumes)
        if disk is not None:
            members.append(("blk", _block(disk)))
        members += [("env", _string(_variable(name, value))) for name, value in spec.environment.items()]
        # The guest ends where it cannot change there, and without a disk it has no directory of the image's.
        if disk is not None and spec.cwd not in ("", "/"):
            members.append(("cwd", _string(_checked(spec.cwd, "cwd"))))
        word = _object(members)
        length = len(word.encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the configuration has {length} bytes, a rumprun guest on Solo5 takes fewer than {_LIMIT}",
                subject="args and env",
                remedy="put long settings into a file of the image, or set enableServiceLinks: false",
            )
        return (word,)


def _argument(argument: str) -> str:
    """`argument` so that rumprun_parseargs() makes one word of it, and jsmn no end of the string."""
    _check_place(argument, "args")
    if "'" in argument or "\0" in argument:
        raise InvalidRequest(
            f"a rumprun command line cannot express a single quote or NUL ({argument!r})", subject="args"
        )
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return escaped if re.fullmatch(r"[^ \t\n]+", argument) else f"'{escaped}'"


def _variable(name: str, value: str) -> str:
    subject = f"env {name}"
    if not name or "=" in name:
        raise InvalidRequest(f"{name!r} cannot be an environment variable's name", subject=subject)
    return _checked(f"{name}={value}", subject)


def _check_place(value: str, subject: str) -> None:
    if _ELSEWHERE in value:
        raise InvalidRequest(
            f"a rumprun guest would take what follows {_ELSEWHERE} for its configuration", subject=subject
        )


def _checked(value: str, subject: str) -> str:
    _check_place(value, subject)
    if not re.fullmatch(_PLAIN, value, re.DOTALL):
        raise InvalidRequest(
            f"rumprun's configuration cannot express a double quote, NUL or lone backslash ({value!r})", subject=subject
        )
    return value


def _network(interfaces: tuple[GuestInterface, ...]) -> list[str]:
    if len(interfaces) > 1:
        raise InvalidRequest(
            "a rumprun guest on Solo5 has one NIC",
            subject=", ".join(interface.name for interface in interfaces),
            remedy="choose one with io.unikernel.nics",
        )
    found: list[str] = []
    for interface in interfaces:
        if interface.address is not None:
            found.append(_net("inet", interface.address, interface.gateway, first=True))
        if interface.address6 is not None:
            gateway = interface.gateway6
            # rump_netconfig_ipv6_gw() takes no interface, without which a link-local address is no way to anywhere.
            via = gateway if gateway is not None and not gateway.is_link_local else None
            found.append(_net("inet6", interface.address6, via, first=not found))
    return found


def _net(
    family: str, address: IPv4Interface | IPv6Interface, gateway: IPv4Address | IPv6Address | None, *, first: bool
) -> str:
    members = {
        "if": "ukvmif0",
        # Creating the interface a second time would be the guest's end.
        **({"cloner": "True"} if first else {}),
        "type": family,
        "method": "static",
        "addr": str(address.ip),
        "mask": str(address.network.prefixlen),
        **({"gw": str(gateway)} if gateway is not None else {}),
    }
    return _object([(name, _string(value)) for name, value in members.items()])


def _disk(volumes: tuple[Volume, ...]) -> Volume | None:
    """The one volume that is to be mounted."""
    mounted = [volume for volume in volumes if volume.target]
    for volume in mounted:
        if volume.format not in Rumprun.roots or volume.disk is None:
            raise InvalidRequest(
                f"a rumprun guest mounts {' or '.join(Rumprun.roots)} from a disk, not {volume.format or 'this'}",
                subject=volume.target,
            )
    if len(mounted) > 1:
        raise InvalidRequest(
            "a rumprun guest on Solo5 has one disk", subject=", ".join(volume.target for volume in mounted)
        )
    return mounted[0] if mounted else None


def _block(volume: Volume) -> str:
    target = _checked(volume.target, "mount")
    members = {"source": "etfs", "path": "/dev/ld0a", "fstype": "blk", "mountpoint": target}
    return _object([(name, _string(value)) for name, value in members.items()])


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"


def _string(raw: str) -> str:
    return f'"{raw}"'
