"""What every operation is, and how a link, a neighbour and a MAC are written in a request."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import ClassVar

import msgspec

from shim.errors import Bug
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.netlink import Request
from shim.network.kernel.rtnetlink import Family, Nda

#: errno values that mean: it is there already, and: it is gone already.
PRESENT = frozenset({errno.EEXIST})
ABSENT = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL})


class _Operation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`settled` holds the errno values that mean the state asked for is there already; ENODEV is added when undoing,
    as what has gone with its interface needs no undoing."""

    settled: ClassVar[frozenset[int]] = frozenset()

    def describe(self) -> str:
        """In words, for people."""
        raise NotImplementedError


class NetlinkOperation(_Operation, frozen=True):
    """An operation that is netlink requests about the interface named `link`."""

    link: str

    def encode(self) -> tuple[Request, ...]:
        """The requests, in order."""
        raise NotImplementedError


class LocalOperation(_Operation, frozen=True):
    """An operation that must run in a thread inside the namespace."""

    def run(self) -> int | None:
        """Do it; the open descriptor if that is what it makes. Raises OSError."""
        raise NotImplementedError


def link_message(index: int) -> bytes:
    """The head of a request about the link with that index."""
    return rt.LINK.pack(0, 0, index, 0, 0)


def neighbour_message(index: int, address: str, state: int) -> bytes:
    """The head of a request about a neighbour on the link with that index, its address included."""
    ip = ip_address(address)
    family = Family.INET if ip.version == 4 else Family.INET6
    return rt.NEIGHBOUR.pack(family, index, state, 0, 0) + rt.attribute(Nda.DST, ip.packed)


def mac_bytes(mac: str, operation: str) -> bytes:
    """Six bytes. Raises Bug where `operation` has none."""
    value = bytes.fromhex(mac.replace(":", ""))
    if len(value) != 6:
        raise Bug(f"an operation without a MAC was about to be carried out: {operation}")
    return value
