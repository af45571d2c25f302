"""MirageOS on Solo5: the options that its devices register, then the container's own arguments.

The tender's words come joined by spaces; mirage-bootvar puts "mirage" before them as argv[0] and splits them with
Parse_argv (mirage/parse-argv, src/parse_argv.ml): only a space splits, double quotes protect it, a backslash takes the
meaning from the next byte inside and outside of quotes, and an empty word is lost. cmdliner reads the result, and a
guest that is given an option it does not have ends with 64 (mirage/mirage, lib_runtime/functoria/functoria_runtime.ml).

Options are those of lib_runtime/mirage_runtime_network.ml (before 4.5 of lib/mirage/mirage_key.ml): `ipv4`,
`ipv4-gateway`, `ipv6`, `ipv6-gateway`, before each `GROUP-` where the device was configured in a group. A kernel does
not say its groups; `service` is default_network's device (lib/devices/network.ml), which has none.
"""

from __future__ import annotations

import re

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec
from shim.network.view import GuestInterface

_LIMIT = 8192  # bytes, with the final NUL (Solo5, HVT_CMDLINE_SIZE, SPT_CMDLINE_SIZE)
_DEFAULT_DEVICE = "service"
_NAMED = (4, 10)  # the release from which every unikernel knows `--name` (CHANGES.md)


class Mirage:
    """Addresses and gateways, then the container's arguments, which may be options as well."""

    name = "mirage"
    versions = frozenset((4, 6))
    # A unikernel asks for its block devices by their names in its manifest; it is told nothing of them.
    roots: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    #: A bound, measured by nobody: Solo5 loads kernels at 1 MiB (bindings/spt/solo5_spt.lds), and these fill another.
    minimum: int = 2

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The command line. Raises InvalidRequest for a value that it cannot express, or too much of it."""
        for volume in spec.volumes:
            if volume.target:
                raise InvalidRequest(
                    "a Mirage guest mounts nothing: it asks for its devices by name", subject=volume.target
                )
        # cmdliner takes an option once; what image or pod say themselves is what they want.
        said = {word.partition("=")[0] for word in spec.arguments}
        words = [
            *(f"{option}={value}" for option, value in (*_network(spec), *_name(spec)) if option not in said),
            *(_quoted(argument) for argument in spec.arguments),
        ]
        length = len(" ".join(words).encode())
        if length >= _LIMIT:
            raise InvalidRequest(
                f"the arguments have {length} bytes, a Solo5 guest takes fewer than {_LIMIT}", subject="args"
            )
        return tuple(words)


def _network(spec: GuestSpec) -> list[tuple[str, str]]:
    if len(spec.interfaces) > 1 and len(spec.devices) != len(spec.interfaces):
        raise InvalidRequest(
            "a Mirage guest's NICs are told apart by their devices' names, and none are known",
            subject=", ".join(interface.name for interface in spec.interfaces),
            remedy="choose one with io.unikernel.nics",
        )
    if len(spec.interfaces) == 1:
        return _interface("--", spec.interfaces[0])
    options: list[tuple[str, str]] = []
    for interface, device in zip(spec.interfaces, spec.devices, strict=False):
        options += _interface("--" if device == _DEFAULT_DEVICE else f"--{device}-", interface)
    return options


def _interface(prefix: str, interface: GuestInterface) -> list[tuple[str, str]]:
    have = (
        ("ipv4", interface.address),
        ("ipv4-gateway", interface.gateway),
        ("ipv6", interface.address6),
        ("ipv6-gateway", interface.gateway6),
    )
    return [(f"{prefix}{option}", str(value)) for option, value in have if value is not None]


def _name(spec: GuestSpec) -> list[tuple[str, str]]:
    """The hostname, for a unikernel that is known to take one: another would end."""
    release = re.match(r"v?(\d+)\.(\d+)", spec.version)
    if not spec.hostname or release is None or (int(release[1]), int(release[2])) < _NAMED:
        return []
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", spec.hostname):
        raise InvalidRequest(f"{spec.hostname!r} is not a hostname", subject="hostname")
    return [("--name", spec.hostname)]


def _quoted(argument: str) -> str:
    """`argument` so that Parse_argv makes one word of it."""
    if not argument or "\0" in argument:
        raise InvalidRequest(
            f"a Mirage command line cannot express an empty word or NUL ({argument!r})", subject="args"
        )
    if not re.search(r'[ "\\]', argument):
        return argument
    escaped = re.sub(r'(["\\])', r"\\\1", argument)
    return f'"{escaped}"'
