"""Addresses, routes and neighbours: taken away, and put back exactly as they were read."""

from __future__ import annotations

from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.netlink import Request
from shim.network.kernel.rtnetlink import Flag, Ifa, Kind, Nda, Rta
from shim.network.layout import Address, Route
from shim.network.operations.base import ABSENT, PRESENT, NetlinkOperation, mac_bytes, neighbour_message


class AddAddress(NetlinkOperation, frozen=True):
    """Put an address back exactly as it was read.

    One that is still there is taken away first: addresses are ordered by when they came, and the order decides which
    is primary and which is a packet's source.
    """

    settled = PRESENT | ABSENT
    address: Address

    def describe(self) -> str:
        return f"add address {self.address} to {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = self.address.raw
        create = Flag.CREATE | Flag.EXCL
        away = Request(Kind.DELADDR, 0, body, f"make room for {self.address} on {self.link}")
        if self.address.version == 4 or self.address.flags & rt.IFA_F_NODAD:
            return away, Request(Kind.NEWADDR, create, body, self.describe())
        # The address was in use a moment ago, so nobody else has it: without this it would be tentative for a
        # second. Replacing the flags afterwards leaves it as it was found.
        quiet = _with_address_flags(body, self.address.flags | rt.IFA_F_NODAD)
        return (
            away,
            Request(Kind.NEWADDR, create, quiet, self.describe()),
            Request(Kind.NEWADDR, Flag.REPLACE, body, f"restore the flags of {self.address} on {self.link}"),
        )


class DelAddress(NetlinkOperation, frozen=True):
    """Take an address away."""

    settled = ABSENT
    address: Address

    def describe(self) -> str:
        return f"remove address {self.address} from {self.link}"

    def encode(self) -> tuple[Request, ...]:
        # Lifetimes and flags play no part in finding it; the label does, and is the same.
        return (Request(Kind.DELADDR, 0, self.address.raw, self.describe()),)


class AddRoute(NetlinkOperation, frozen=True):
    """Put a route back exactly as it was read."""

    settled = PRESENT
    route: Route

    def describe(self) -> str:
        return f"add route {self.route} on {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.NEWROUTE, Flag.CREATE | Flag.APPEND, _settable_route(self.route.raw), self.describe()),)


class DelRoute(NetlinkOperation, frozen=True):
    """Take a route away."""

    settled = ABSENT
    route: Route

    def describe(self) -> str:
        return f"remove route {self.route} from {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELROUTE, 0, _settable_route(self.route.raw), self.describe()),)


class AddNeighbour(NetlinkOperation, frozen=True):
    """A permanent neighbour entry."""

    index: int
    address: str
    mac: str

    def describe(self) -> str:
        return f"add permanent neighbour {self.address} with MAC {self.mac} on {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = neighbour_message(self.index, self.address, rt.NUD_PERMANENT) + rt.attribute(
            Nda.LLADDR, mac_bytes(self.mac, self.describe())
        )
        return (Request(Kind.NEWNEIGH, Flag.CREATE | Flag.REPLACE, body, self.describe()),)


class DelNeighbour(NetlinkOperation, frozen=True):
    """Remove a neighbour entry."""

    settled = ABSENT
    index: int
    address: str

    def describe(self) -> str:
        return f"forget neighbour {self.address} on {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELNEIGH, 0, neighbour_message(self.index, self.address, 0), self.describe()),)


def _with_address_flags(body: bytes, flags: int) -> bytes:
    family, prefix, _flags, scope, index = rt.ADDRESS.unpack_from(body)
    out = rt.ADDRESS.pack(family, prefix, flags & 0xFF, scope, index)
    for kind, value in rt.attributes(body, rt.ADDRESS.size):
        if kind != Ifa.FLAGS:
            out += rt.attribute(kind, value)
    return out + rt.u32(Ifa.FLAGS, flags)


def _settable_route(body: bytes) -> bytes:
    """A dumped route without what only the kernel may say: state flags, usage counters, a next-hop object's content.

    How long it has yet to live (a router's advertisement said) is told among the counters, and set apart from them.
    """
    *head, flags = rt.ROUTE.unpack_from(body)
    out = rt.ROUTE.pack(*head, flags & rt.RTNH_SETTABLE)
    found = list(rt.attributes(body, rt.ROUTE.size))
    dropped = {int(Rta.CACHEINFO)}
    if any(kind == Rta.NH_ID for kind, _ in found):
        dropped |= {int(Rta.OIF), int(Rta.GATEWAY), int(Rta.VIA), int(Rta.MULTIPATH)}
    for kind, value in found:
        if kind == Rta.CACHEINFO:
            out += _expiry(value)
        if kind in dropped:
            continue
        out += rt.attribute(kind, _settable_hops(value) if kind == Rta.MULTIPATH else value)
    return out


def _expiry(counters: bytes) -> bytes:
    expires: int = rt.ROUTE_CACHE.unpack_from(counters)[2] if len(counters) >= rt.ROUTE_CACHE.size else 0
    return rt.u32(Rta.EXPIRES, max(expires // rt.USER_HZ, 1)) if expires > 0 else b""


def _settable_hops(value: bytes) -> bytes:
    out = bytearray(value)
    offset = 0
    while offset + rt.NEXT_HOP.size <= len(value):
        length, flags, hops, index = rt.NEXT_HOP.unpack_from(value, offset)
        if length < rt.NEXT_HOP.size:
            break
        rt.NEXT_HOP.pack_into(out, offset, length, flags & rt.RTNH_SETTABLE, hops, index)
        offset += (length + 3) & ~3
    return bytes(out)
