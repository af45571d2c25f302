"""A Linux kernel as a guest: everything it is told is on its command line.

Grammar: Documentation/admin-guide/kernel-parameters.rst and nfs/nfsroot.rst (`ip=`). Words are read by next_arg()
(lib/cmdline.c): double quotes protect white space, and nothing protects a double quote. What init is given is collected
in init/main.c: unknown NAME=VALUE words become its environment, everything behind `--` its arguments.

One IPv4 address is what the kernel's own `ip=` can say. More NICs and IPv6 are said in the grammar of dracut.cmdline(7)
and systemd-network-generator(8), of which the kernel's is a part; the guest's user space reads that from /proc/cmdline.
A kernel with CONFIG_IP_PNP reads those words too, as if each were its own: it splits them at every colon, and what is
not empty overwrites what an earlier word said (net/ipv4/ipconfig.c, ip_auto_config_setup()). So the first NIC's IPv4 is
the last `ip=`, and behind it stands all of it again as `nfsaddrs=`, with the zeros that make the kernel forget: its
other name for `ip=` (nfs/nfsroot.rst), which nobody else reads.
"""

from __future__ import annotations

import re

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec
from shim.network.view import GuestInterface

# COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h) counts the final NUL; what is longer is cut off silently. The monitor
# may have a parameter of its own to add, for which room is left.
_LIMIT = 2048 - 64
# CONFIG_INIT_ENV_ARG_LIMIT, and one (init/main.c, unknown_bootoption()); the kernel panics beyond it. HOME and TERM,
# and init's own name, are counted.
_ENVIRONMENT_LIMIT = 33 - 2
_ARGUMENT_LIMIT = 32 - 1
# The console is the monitor's stdout; a guest that ends or panics ends its monitor, which does not reboot.
_ALWAYS = ("console=ttyS0", "quiet", "panic=-1", "reboot=t")
# They describe the container's process on the node, and say nothing of the guest's user space.
_NOT_THE_GUESTS = ("PATH", "HOME", "TERM", "HOSTNAME")
# Words that the kernel takes for itself; as names of environment variables they would change the machine, not init.
_RESERVED = (
    *("console", "ifname", "init", "initrd", "ip", "nfsaddrs", "panic", "quiet"),
    *("rdinit", "reboot", "root", "tsc_early_khz"),
)
_ZERO = "0.0.0.0"  # noqa: S104 - to ipconfig.c it is "none"; an empty field is "as before"
_SUBJECT = "io.unikernel.cmdline"
# isspace() of lib/ctype.c, which knows Latin-1 and not UTF-8: its no-break space is half of many a letter.
_SPACES = b" \t\n\v\f\r\xa0"


class Linux:
    """Kernel parameters, environment, the image's own words, then after `--` what is init's."""

    name = "linux"
    versions = frozenset((4, 6))
    roots: tuple[str, ...] = ("squashfs", "erofs", "ext4", "iso9660")
    mounts: tuple[str, ...] = ()
    minimum: int = 32

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value the grammar cannot express, or too much of anything."""
        network = _network(spec.interfaces, spec.hostname)
        words = [*_ALWAYS, *network]
        environment = {name: value for name, value in spec.environment.items() if name not in _NOT_THE_GUESTS}
        # A kernel that does not know these words gives them to init, all of one name in one variable.
        room = _ENVIRONMENT_LIMIT - len({word.partition("=")[0] for word in network})
        _check_count(len(environment), room, "env", "set enableServiceLinks: false, or use fewer")
        words += [_variable(name, value) for name, value in environment.items()]
        own = _words_of(spec.cmdline)
        words += own
        if spec.arguments:
            if "--" not in own:
                words.append("--")
            _check_count(len(spec.arguments), _ARGUMENT_LIMIT, "args", "use fewer")
            words += [_argument(argument) for argument in spec.arguments]
        length = len(" ".join(words).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the kernel's command line has {length} bytes, Linux takes fewer than {_LIMIT}",
                subject="args and env",
                remedy="put long settings into the initrd",
            )
        return tuple(words)


def _network(interfaces: tuple[GuestInterface, ...], hostname: str) -> list[str]:
    """Names, addresses and gateways. A NIC without an address is not spoken of: it is there all the same."""
    if not interfaces:
        return []
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", hostname):
        raise InvalidRequest(f"the hostname {hostname!r} cannot be told to a Linux kernel", subject="hostname")
    others: list[str] = []
    for position, interface in enumerate(interfaces):
        # What the first NIC's own word has no field for; the device says its MTU too (virtio, VIRTIO_NET_F_MTU).
        rest = f"{hostname if position == 0 else ''}:eth{position}:none:{interface.mtu}"
        if interface.address6 is not None:
            gateway = f"[{interface.gateway6}]" if interface.gateway6 and _leads_everywhere(interface, 6) else ""
            address, prefix = interface.address6.ip, interface.address6.network.prefixlen
            others.append(f"ip=[{address}]::{gateway}:{prefix}:{rest}")
        if interface.address is not None and position > 0:
            others.append(f"ip={_address4(interface)}:{rest}")
        others += _routes(interface, f"eth{position}")
    # Names follow MACs, in whatever order the guest finds its NICs.
    names = [f"ifname=eth{position}:{interface.mac}" for position, interface in enumerate(interfaces)]
    words = [*(names if len(names) > 1 else ()), *others]
    first = interfaces[0]
    if first.address is not None:
        words.append(f"ip={_address4(first)}:{hostname}:eth0:off")
    if others:
        words.append(f"nfsaddrs={_again(first, hostname)}")
    return words


def _leads_everywhere(interface: GuestInterface, version: int) -> bool:
    """Whether the gateway of that version of IP is the way to everything, and not to `routes` only."""
    return not any(route.version == version for route in interface.routes)


def _routes(interface: GuestInterface, device: str) -> list[str]:
    """`rd.route=network:gateway:device`, which the kernel takes for a module's parameter and leaves alone."""
    words = []
    for route in interface.routes:
        gateway = interface.gateway if route.version == 4 else interface.gateway6
        if gateway is not None:
            network, via = (str(route), str(gateway)) if route.version == 4 else (f"[{route}]", f"[{gateway}]")
            words.append(f"rd.route={network}:{via}:{device}")
    return words


def _address4(interface: GuestInterface) -> str:
    """`client:server:gateway:netmask`."""
    assert interface.address is not None
    gateway = interface.gateway if interface.gateway and _leads_everywhere(interface, 4) else ""
    return f"{interface.address.ip}::{gateway}:{interface.address.netmask}"


def _again(first: GuestInterface, hostname: str) -> str:
    """What the kernel itself is to know in the end. It has no word for a gateway that does not lead everywhere."""
    if first.address is None:
        return "off"
    gateway = first.gateway or _ZERO
    return f"{first.address.ip}:{_ZERO}:{gateway}:{first.address.netmask}:{hostname or 'localhost'}:eth0:off"


def _check_count(count: int, limit: int, subject: str, remedy: str) -> None:
    if count > limit:
        raise InvalidRequest(f"{count} are more than the {limit} Linux gives its init", subject=subject, remedy=remedy)


def _words_of(cmdline: str) -> list[str]:
    """The user's words, verbatim, split where the kernel splits them. Raises InvalidRequest for an open quote."""
    _check_characters(cmdline, _SUBJECT)
    if cmdline.count('"') % 2:
        raise InvalidRequest("a double quote is not closed", subject=_SUBJECT, remedy="close it")
    return re.findall(r'(?:"[^"]*"|[^" \t\v\f])+', cmdline)


def _variable(name: str, value: str) -> str:
    subject = f"env {name}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # A dot makes the kernel take it for a module's parameter; init would never see it.
        raise InvalidRequest(
            "this name of an environment variable cannot be told to Linux's init",
            subject=subject,
            remedy="use letters, digits and _",
        )
    if name in _RESERVED:
        raise InvalidRequest(
            "the kernel would take this environment variable for a parameter of its own",
            subject=subject,
            remedy=f"rename it, or set it in {_SUBJECT} if that is meant",
        )
    return _quoted(f"{name}={value}", subject)


def _argument(argument: str) -> str:
    if argument == "--":
        raise InvalidRequest(
            "Linux ends init's arguments at a second --", subject="args", remedy="have init read it from elsewhere"
        )
    return _quoted(argument, "args")


def _check_characters(text: str, subject: str) -> None:
    if any(character in text for character in "\0\n\r"):
        raise InvalidRequest("a kernel command line cannot hold a line break or NUL", subject=subject)


def _quoted(word: str, subject: str) -> str:
    """`word` so that the kernel reads it as one."""
    _check_characters(word, subject)
    if '"' in word:
        raise InvalidRequest(f"a kernel command line cannot express a double quote ({word!r})", subject=subject)
    if word and not _spaced(word):
        return word
    name, equals, value = word.partition("=")
    return f'{name}="{value}"' if name and equals and not _spaced(name) else f'"{word}"'


def _spaced(text: str) -> bool:
    return any(byte in _SPACES for byte in text.encode())
