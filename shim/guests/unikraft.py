"""Unikraft: kernel parameters, `--`, the application's arguments.

The command line is split by uk_argnparse() (unikraft/unikraft, lib/ukargparse/argparse.c): white space splits, single
and double quotes protect it and are taken away, an empty word is lost. Releases from 0.13 know a backslash, older ones
do not; inside single quotes it has never meant anything, so those are what words are quoted with. The first word is
argv[0] (plat/kvm/x86/setup.c hands ukplat_entry_argp() none of its own) and the rest goes to uk_libparam_parse()
(lib/uklibparam/parser.c) up to `--`, which is looked for only where something stands before it (lib/ukboot/boot.c).
QEMU puts the kernel's path before the command line of a multiboot kernel; our first word is then one that the parser
passes over, as it does with all that has no dot.

An array's elements are given by repeating `PREFIX.NAME=VALUE`. The list that the documentation shows, `[ A B ]`, would
end at the first element whose last byte is `]`.

What changed, and when (lib/uknetdev/netdev.c; lib/vfscore/rootfs.c, since 0.14 automount.c):

| release | network | root |
|---|---|---|
| to 0.13 | `netdev.ipv4_addr`, `netdev.ipv4_subnet_mask`, `netdev.ipv4_gw_addr` | `vfs.rootfs`, `vfs.rootdev` |
| 0.14 to 0.16.0 | the same; 0.16.0 adds `netdev.ipv4_dns0_addr` | `vfs.fstab`, driver `initrd` |
| from 0.16.1 | `netdev.ip=ADDRESS/PREFIX:GATEWAY:DNS0:DNS1:HOSTNAME:DOMAIN` | `vfs.fstab`, driver `extract` |

`env.vars` is there from 0.13 (lib/posix-environ/environ.c).
"""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_address

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.network.view import GuestInterface

_Release = tuple[int, int, int]
_NEWEST: _Release = (99, 0, 0)
_ENVIRONMENT: _Release = (0, 13, 0)
_FSTAB: _Release = (0, 14, 0)
_DNS: _Release = (0, 16, 0)
_MAKES_MOUNT_POINTS: _Release = (0, 16, 0)
_NEW: _Release = (0, 16, 1)
# LIBUKBOOT_MAXNBARGS (lib/ukboot/Config.uk), unless the image was built with another: words beyond it are cut off
# silently, and with a `--` among them every parameter becomes an argument. One word may be QEMU's.
_WORDS_LIMIT = 60 - 1
_READ_ONLY = "1"  # MNT_RDONLY (lib/vfscore/include/vfscore/mount.h)
_SUBJECT = "io.unikernel.cmdline"


class Unikraft:
    """argv[0], network, volumes, environment, the image's own words, then after `--` what is the application's."""

    name = "unikraft"
    versions = frozenset((4,))  # lib/uknetdev/netdev.c: "TODO: ip6"
    #: cpio is the machine's initrd; 9p a directory that the monitor shares. There is no driver for a disk.
    roots: tuple[str, ...] = ("cpio", "9p")
    mounts: tuple[str, ...] = ("9p",)
    #: unikraft/eurosys21-artifacts measured it for a hello (experiments/fig_11_compare-min-mem).
    minimum: int = 2

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value that the image's release cannot express, or too much."""
        release = _release(spec.version)
        parameters = [
            *(_network(spec) if release >= _NEW else _old_network(spec, release)),
            *(word for volume in spec.volumes if volume.target for word in _volume(volume, release)),
            *_environment(spec, release),
        ]
        own = _words_of(spec.cmdline)
        program = _quoted(spec.program or self.name, "program")
        before = [*(_quoted(parameter, parameter.partition("=")[0]) for parameter in parameters), *own]
        if not before or before[0] == "--":
            before.insert(0, program)
        if "--" not in own:
            before.append("--")
        words = (program, *before, *(_quoted(argument, "args") for argument in spec.arguments))
        if len(words) > _WORDS_LIMIT:
            raise InvalidRequest(
                f"{len(words)} words are more than the {_WORDS_LIMIT} of a Unikraft command line",
                subject="args and env",
                remedy="set enableServiceLinks: false, or use fewer",
            )
        return words


def _release(version: str) -> _Release:
    """What is not a release ("stable", a commit) counts as the newest, as it does for urunc
    (pkg/unikontainers/unikernels/unikraft.go)."""
    found = re.match(r"(?:v|RELEASE-)?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)", version)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else _NEWEST


def _network(spec: GuestSpec) -> list[str]:
    """One `netdev.ip` for each NIC, by position, up to the last that has an address."""
    addressed = [position for position, interface in enumerate(spec.interfaces) if interface.address is not None]
    if not addressed:
        return []
    domain = spec.dns.searches[0] if spec.dns.searches else ""
    names = [_named(spec.hostname, "hostname"), _named(domain, "dns")]
    servers = _servers(spec)[:2]
    words = []
    for position, interface in enumerate(spec.interfaces[: addressed[-1] + 1]):
        fields = [str(interface.address or ""), str(interface.gateway or "")]
        if position == addressed[0]:
            fields += [*servers, *("" for _ in range(2 - len(servers))), *names]
        words.append("netdev.ip=" + ":".join(fields).rstrip(":"))
    return words


def _old_network(spec: GuestSpec, release: _Release) -> list[str]:
    """Three parameters; for several NICs each is a list in one word, in which no place can be left empty."""
    interfaces = spec.interfaces
    addresses = [interface.address for interface in interfaces if interface.address is not None]
    if not addresses:
        return []
    if len(addresses) < len(interfaces):
        raise InvalidRequest(
            "before 0.16.1 Unikraft cannot be told the addresses of some of its NICs only",
            subject=", ".join(interface.name for interface in interfaces if interface.address is None),
            remedy="leave the others out with io.unikernel.nics",
        )
    words = [
        "netdev.ipv4_addr=" + " ".join(str(address.ip) for address in addresses),
        "netdev.ipv4_subnet_mask=" + " ".join(str(address.netmask) for address in addresses),
    ]
    if any(interface.gateway for interface in interfaces):
        words.append("netdev.ipv4_gw_addr=" + " ".join(_gateway(interface) for interface in interfaces))
    if release >= _DNS:
        words += [f"netdev.ipv4_dns0_addr={server}" for server in _servers(spec)[:1]]
    return words


def _gateway(interface: GuestInterface) -> str:
    return str(interface.gateway) if interface.gateway else "0.0.0.0"  # noqa: S104 - lwIP's "none"


def _servers(spec: GuestSpec) -> list[str]:
    return [server for server in spec.dns.servers if ip_address(server).version == 4]


def _named(name: str, subject: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", name):
        raise InvalidRequest(f"{name!r} cannot be told to a Unikraft guest", subject=subject)
    return name


def _volume(volume: Volume, release: _Release) -> list[str]:
    if volume.format not in Unikraft.roots or volume.disk is not None:
        raise InvalidRequest(
            f"Unikraft mounts cpio (its initrd) or 9p, not {volume.format or 'a disk'}", subject=volume.target
        )
    if volume.format == "cpio" and volume.target != "/":
        raise InvalidRequest("Unikraft's initrd is its root file system", subject=volume.target)
    if release < _FSTAB:
        return _old_root(volume)
    if volume.format == "cpio":
        # From 0.17 nothing is mounted under the archive's files but on demand (ramfs=2: unless the image was built to);
        # 0.16 looks at no option of `extract`.
        return ["vfs.fstab=initrd0:/:extract::ramfs=2" if release >= _NEW else "vfs.fstab=initrd0:/:initrd"]
    if ":" in volume.target or ":" in volume.device:
        raise InvalidRequest(
            f"Unikraft's table of volumes cannot express a colon ({volume.device!r}, {volume.target!r})",
            subject=volume.target,
        )
    makes = volume.target != "/" and release >= _MAKES_MOUNT_POINTS
    fields = (volume.device, volume.target, "9pfs", _READ_ONLY if volume.read_only else "", "", "mkmp" if makes else "")
    return ["vfs.fstab=" + ":".join(fields).rstrip(":")]


def _old_root(volume: Volume) -> list[str]:
    if volume.target != "/":
        raise InvalidRequest("before 0.14 Unikraft mounts its root and nothing else", subject=volume.target)
    return ["vfs.rootfs=initrd"] if volume.format == "cpio" else ["vfs.rootfs=9pfs", f"vfs.rootdev={volume.device}"]


def _environment(spec: GuestSpec, release: _Release) -> list[str]:
    if release < _ENVIRONMENT:
        return []
    for name in spec.environment:
        if not name or "=" in name or name.startswith("["):
            raise InvalidRequest(f"{name!r} cannot be a Unikraft guest's variable", subject=f"env {name}")
    return [f"env.vars={name}={value}" for name, value in spec.environment.items()]


def _words_of(cmdline: str) -> list[str]:
    """The user's words, verbatim, split where uk_argnparse() splits them. Raises InvalidRequest for an open quote."""
    word = r"""(?:[^'" \r\n\t\v\\\0]|\\[^\0]|'[^'\0]*'|"(?:[^"\\\0]|\\[^\0])*")+"""
    space = r"[ \r\n\t\v]"
    if not re.fullmatch(rf"{space}*(?:{word}(?:{space}+|$))*", cmdline, re.DOTALL):
        raise InvalidRequest("a quote is not closed", subject=_SUBJECT, remedy="close it")
    return re.findall(word, cmdline, re.DOTALL)


def _quoted(word: str, subject: str) -> str:
    """`word` so that uk_argnparse() of every release reads it as one: as a shell would want it."""
    if not word or "\0" in word:
        raise InvalidRequest(f"a Unikraft command line cannot express an empty word or NUL ({word!r})", subject=subject)
    return shlex.quote(word)
