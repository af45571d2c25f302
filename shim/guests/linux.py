"""A Linux kernel as a guest: everything it is told is on its command line.

Grammar: Documentation/admin-guide/kernel-parameters.rst. Words are read by next_arg() (lib/cmdline.c): double quotes
protect white space, and nothing protects a double quote. What init is given is collected in init/main.c: unknown
NAME=VALUE words become its environment, everything behind `--` its arguments, and `init=` names it. The words for the
network are in linux_network.py, those for the root and volumes in linux_storage.py.

Where the container's root file system is the guest's, its process is the guest's init, as it would be the first process
of an ordinary container: the first argument names the program, and all of the environment is meant for it.
"""

from __future__ import annotations

import re

from shim.errors import InvalidRequest
from shim.guests import linux_network, linux_storage
from shim.guests.base import GuestSpec

# COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h) counts the final NUL; what is longer is cut off silently. The monitor
# may have a parameter of its own to add, for which room is left.
_LIMIT = 2048 - 64
# CONFIG_INIT_ENV_ARG_LIMIT, and one (init/main.c, unknown_bootoption()); the kernel panics beyond it. HOME and TERM,
# and init's own name, are counted.
_ENVIRONMENT_LIMIT = 33 - 2
_ARGUMENT_LIMIT = 32 - 1
# The console is the monitor's stdout; a guest that ends or panics ends its monitor, which does not reboot.
_ALWAYS = ("quiet", "panic=-1", "reboot=t")
# What the kernel gives every init; told anew they take no further place.
_KERNELS_OWN = ("HOME", "TERM")
# They describe the container's process on the node, and say nothing of the guest's user space.
_NOT_THE_GUESTS = ("PATH", "HOME", "TERM", "HOSTNAME")
#: The word by which a kernel that cannot measure it is told its processor's rate, in kHz (arch/x86/kernel/tsc.c).
CLOCK = "tsc_early_khz"
# Words that the kernel takes for itself; as names of environment variables they would change the machine, not init.
_RESERVED = (
    *("console", "ifname", "init", "initrd", "ip", "mem", "nameserver", "nfsaddrs", "noinitrd", "panic", "quiet"),
    *("rdinit", "reboot", "ro", "root", "rootdelay", "rootflags", "rootfstype", "rootwait", "rw", CLOCK),
)
_SUBJECT = "io.unikernel.cmdline"
# isspace() of lib/ctype.c, which knows Latin-1 and not UTF-8: its no-break space is half of many a letter.
_SPACES = b" \t\n\v\f\r\xa0"


class Linux:
    """Kernel parameters, environment, the image's own words, then after `--` what is init's."""

    name = "linux"
    versions = frozenset((4, 6))
    roots: tuple[str, ...] = (*linux_storage.FORMATS, linux_storage.INITRD)
    mounts: tuple[str, ...] = linux_storage.FORMATS
    # A kernel is unpacked at 16 MiB (arch/x86/Kconfig, PHYSICAL_START) and needs more than its own size around it.
    minimum: int = 32

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value the grammar cannot express, or too much of anything."""
        root = linux_storage.root_of(spec.volumes)
        network = linux_network.words(spec.interfaces, spec.hostname, spec.dns)
        storage = [*(linux_storage.root_words(root) if root else ()), *linux_storage.mount_words(spec.volumes)]
        words = [f"console={spec.console}", *_ALWAYS, *network, *(_quoted(word, "volumes") for word in storage)]
        dropped = () if root else _NOT_THE_GUESTS
        environment = {name: value for name, value in spec.environment.items() if name not in dropped}
        # A kernel that does not know these words gives them to init, all of one name in one variable.
        room = _ENVIRONMENT_LIMIT - len({word.partition("=")[0] for word in network})
        _check_count(len(environment.keys() - _KERNELS_OWN), room, "env", "set enableServiceLinks: false, or use fewer")
        words += [_variable(name, value) for name, value in environment.items()]
        own = _words_of(spec.cmdline)
        arguments = spec.arguments
        if root and arguments and not _names_init(own):
            words.append(_init("rdinit" if root.format == linux_storage.INITRD else "init", arguments[0]))
            arguments = arguments[1:]
        words += own
        if arguments:
            if "--" not in own:
                words.append("--")
            _check_count(len(arguments), _ARGUMENT_LIMIT, "args", "use fewer")
            words += [_argument(argument) for argument in arguments]
        length = len(" ".join(words).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the kernel's command line has {length} bytes, Linux takes fewer than {_LIMIT}",
                subject="args and env",
                remedy="put long settings into the initrd",
            )
        return tuple(words)


def _names_init(own: list[str]) -> bool:
    """Whether the user's words for the kernel say what its first process is."""
    kernels = own[: own.index("--")] if "--" in own else own
    return any(word.lstrip('"').startswith(("init=", "rdinit=")) for word in kernels)


def _init(word: str, program: str) -> str:
    """The word that names the first process, which the kernel looks for on no path."""
    if not program.startswith("/"):
        raise InvalidRequest(
            f"the guest's first process is {program!r}, and Linux starts an absolute path only",
            subject="args",
            remedy=f"name the program's whole path in the image, or give the guest a shell: /bin/sh -c {program!r}",
        )
    return _quoted(f"{word}={program}", "args")


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
