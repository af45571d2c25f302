"""A Linux kernel as a guest: everything it is told is on its command line.

Grammar: Documentation/admin-guide/kernel-parameters.rst and nfs/nfsroot.rst (`ip=`); quoting as next_arg() in
lib/cmdline.c reads it: double quotes protect spaces, and nothing protects a double quote.
"""

from __future__ import annotations

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec
from shim.network.view import GuestInterface

_LIMIT = 2048  # COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h)
# The console is the monitor's stdout; a guest that ends or panics ends its monitor, which does not reboot.
_ALWAYS = ("console=ttyS0", "quiet", "panic=-1", "reboot=t")
_DEVICE = "eth0"


class Linux:
    """Kernel parameters, then the image's own, then after `--` what is init's."""

    name = "linux"

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value the grammar cannot express, or one too long."""
        words = [*_ALWAYS]
        words += [_ip(interface, spec.hostname) for interface in spec.interfaces[:1]]
        if spec.cmdline:
            _check(spec.cmdline, "io.unikernel.cmdline")
            words.append(spec.cmdline)
        words += [
            _quoted(f"{name}={value}", name)
            for name, value in spec.environment.items()
            # A dot makes the kernel take it for a module's parameter and init never sees it.
            if name not in ("PATH", "HOME", "TERM", "HOSTNAME") and "." not in name
        ]
        if spec.arguments:
            words.append("--")
            words += [_quoted(argument, "args") for argument in spec.arguments]
        length = len(" ".join(words).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the kernel's command line has {length} bytes, Linux takes fewer than {_LIMIT}",
                subject="args and env",
                remedy="put long settings into the initrd",
            )
        return tuple(words)


def _ip(interface: GuestInterface, hostname: str) -> str:
    """`ip=client:server:gateway:netmask:hostname:device:autoconf`."""
    if interface.address is None:
        return f"ip=:::::{_DEVICE}:off"
    gateway = interface.gateway or ""
    return f"ip={interface.address.ip}::{gateway}:{interface.address.netmask}:{hostname}:{_DEVICE}:off"


def _check(text: str, subject: str) -> None:
    if any(character in text for character in "\0\n\r"):
        raise InvalidRequest("a kernel command line cannot hold a line break or NUL", subject=subject)


def _quoted(word: str, subject: str) -> str:
    """`word` so that the kernel reads it as one."""
    _check(word, subject)
    if '"' in word:
        raise InvalidRequest("a kernel command line cannot express a double quote", subject=subject)
    if word and not any(character.isspace() for character in word):
        return word
    name, equals, value = word.partition("=")
    return f'{name}="{value}"' if equals and not any(c.isspace() for c in name) else f'"{word}"'
