"""Hermit: the kernel is Hermit's loader, the application with its library OS is the initrd.

Facts are from hermit-os/kernel of August 2026. The loader hands the kernel's command line on unread (hermit-os/loader,
src/arch/x86_64/platform/linux/mod.rs: as the device tree's `bootargs`). src/env/mod.rs splits it as a POSIX shell
splits words (the crate shlex; before July 2026 shell-words, which agrees about quoted words) and knows `-ip`, `-mask`,
`-gateway` and `env=NAME=VALUE`; everything behind `--` is the application's. Others it logs, and goes on.

One NIC has one IPv4 address (src/executor/device.rs). The environment also has what no option is for: HERMIT_MTU,
HERMIT_DNS1 and HERMIT_DNS2 (the last two in a kernel with its feature `dns`). A kernel with its feature `dhcpv4`, which
is on by default, keeps to the address until a DHCP server answers, and in a pod there is none; up to 0.13.2 such a
kernel heeded no address at all. Nothing tells it a hostname. It mounts virtio-fs only, at the path that is the device's
tag (src/fs/virtio_fs.rs, init()).
"""

from __future__ import annotations

import shlex

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.network import name_servers
from shim.network.view import GuestInterface

_SUBJECT = "io.unikernel.cmdline"
_SERVERS = ("HERMIT_DNS1", "HERMIT_DNS2")


class Hermit:
    """Environment, the kernel's own options, the image's words, then after `--` the arguments: shell words all."""

    name = "hermit"
    versions = frozenset((4,))
    roots: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ("virtiofs",)
    # Two large pages and page tables are set aside before the heap (src/mm/mod.rs, init()), beside the kernel itself.
    minimum: int = 8

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value the grammar or the stack cannot express."""
        for volume in spec.volumes:
            _check_mount(volume)
        words = [_variable(name, value) for name, value in {**_settings(spec), **spec.environment}.items()]
        # Behind the environment, where the same settings could stand: the last one counts.
        words += _network(spec.interfaces)
        own = _words_of(spec.cmdline)
        words += [_word(word, _SUBJECT) for word in own]
        if spec.arguments:
            if "--" not in own:
                words.append("--")
            words += [_word(argument, "args") for argument in spec.arguments]
        return tuple(words)


def _settings(spec: GuestSpec) -> dict[str, str]:
    """What only the environment has a name for; the container's own variables stand above it."""
    if not spec.interfaces:
        return {}
    return {"HERMIT_MTU": str(spec.interfaces[0].mtu), **dict(zip(_SERVERS, name_servers(spec.dns, 4), strict=False))}


def _network(interfaces: tuple[GuestInterface, ...]) -> list[str]:
    for further in interfaces[1:]:
        raise InvalidRequest(
            "a Hermit guest has one NIC",
            subject=further.name,
            remedy="io.unikernel.nics can leave an interface out",
        )
    if not interfaces or interfaces[0].address is None:
        return []
    address = interfaces[0].address
    # Without one it would take 10.0.5.1, which may be somebody; nobody answers for the guest's own address.
    gateway = interfaces[0].gateway or address.ip
    return ["-ip", str(address.ip), "-mask", str(address.netmask), "-gateway", str(gateway)]


def _check_mount(volume: Volume) -> None:
    """Raise InvalidRequest for a volume that the guest will not have where it is wanted."""
    if not volume.target:
        return
    if volume.format != "virtiofs":
        raise InvalidRequest(
            "a Hermit guest mounts no disks",
            subject=volume.target,
            remedy="build the files into the application, or leave the volume out",
        )
    if volume.device != volume.target:
        raise InvalidRequest(
            f"a Hermit guest mounts a shared directory where its tag says, at {volume.device!r}",
            subject=volume.target,
            remedy="make the path the tag",
        )


def _variable(name: str, value: str) -> str:
    subject = f"env {name}"
    if not name or "=" in name:
        raise InvalidRequest("an environment variable's name is not empty and has no =", subject=subject)
    return _word(f"env={name}={value}", subject)


def _words_of(cmdline: str) -> list[str]:
    """The user's words, in shell quoting. Raises InvalidRequest for an open quote."""
    try:
        return shlex.split(cmdline)
    except ValueError as error:
        raise InvalidRequest(f"these are no shell words: {error}", subject=_SUBJECT) from error


def _word(word: str, subject: str) -> str:
    """`word` so that the kernel reads it as one."""
    if "\0" in word:
        raise InvalidRequest("a command line cannot hold a NUL", subject=subject)
    return shlex.quote(word)
