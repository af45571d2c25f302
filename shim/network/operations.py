"""The steps of plumbing, as values.

An operation says in words what it does and either encodes itself as netlink requests or runs in the namespace. It
holds all it needs, so that a plan can be written down, read back by another process, and undone. Which operation
undoes which is decided where the layout is known (`bridge`), except for those whose inverse follows from themselves.
"""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import ClassVar

import msgspec

from shim.errors import Bug
from shim.network import rtnetlink as rt
from shim.network.layout import Address, Route
from shim.network.netlink import Request
from shim.network.rtnetlink import Family, Flag, Ifa, Ifla, Kind, Nda, Rta

_SYSCTL = Path("/proc/sys")
_PRESENT = frozenset({errno.EEXIST})
_ABSENT = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL})


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


class AddAddress(NetlinkOperation, frozen=True):
    """Put an address back exactly as it was read.

    One that is still there is taken away first: addresses are ordered by when they came, and the order decides which
    is primary and which is a packet's source.
    """

    settled = _PRESENT | _ABSENT
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

    settled = _ABSENT
    address: Address

    def describe(self) -> str:
        return f"remove address {self.address} from {self.link}"

    def encode(self) -> tuple[Request, ...]:
        # Lifetimes and flags play no part in finding it; the label does, and is the same.
        return (Request(Kind.DELADDR, 0, self.address.raw, self.describe()),)


class AddRoute(NetlinkOperation, frozen=True):
    """Put a route back exactly as it was read."""

    settled = _PRESENT
    route: Route

    def describe(self) -> str:
        return f"add route {self.route} on {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.NEWROUTE, Flag.CREATE | Flag.APPEND, _settable_route(self.route.raw), self.describe()),)


class DelRoute(NetlinkOperation, frozen=True):
    """Take a route away."""

    settled = _ABSENT
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
        body = _neighbour(self.index, self.address, rt.NUD_PERMANENT) + rt.attribute(
            Nda.LLADDR, _mac_bytes(self.mac, self.describe())
        )
        return (Request(Kind.NEWNEIGH, Flag.CREATE | Flag.REPLACE, body, self.describe()),)


class AnswerFor(NetlinkOperation, frozen=True):
    """Permanent neighbour entries for every host of `network` but `own`, all with one MAC; `mac` is empty until
    `next_hop` has been resolved (`Plan.resolved`)."""

    index: int
    network: str
    own: str
    mac: str = ""
    next_hop: str = ""

    def describe(self) -> str:
        others = f"every host of {self.network} but {self.own}"
        return f"answer for {others} on {self.link} with {_mac_text(self.mac, self.next_hop)}"

    def encode(self) -> tuple[Request, ...]:
        mac = rt.attribute(Nda.LLADDR, _mac_bytes(self.mac, self.describe()))
        words = self.describe()
        return tuple(
            Request(
                Kind.NEWNEIGH,
                Flag.CREATE | Flag.REPLACE,
                _neighbour(self.index, host, rt.NUD_PERMANENT) + mac,
                words,
            )
            for host in map(str, IPv4Network(self.network).hosts())
            if host != self.own
        )


class DelNeighbour(NetlinkOperation, frozen=True):
    """Remove a neighbour entry."""

    settled = _ABSENT
    index: int
    address: str

    def describe(self) -> str:
        return f"forget neighbour {self.address} on {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELNEIGH, 0, _neighbour(self.index, self.address, 0), self.describe()),)


class AddForwarding(NetlinkOperation, frozen=True):
    """A static forwarding entry of a bridge: frames for `mac` leave by the port `link`."""

    index: int
    mac: str = ""
    next_hop: str = ""

    def describe(self) -> str:
        return f"forward frames for {_mac_text(self.mac, self.next_hop)} to {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.NEIGHBOUR.pack(Family.BRIDGE, self.index, rt.NUD_NOARP, rt.NTF_MASTER, 0)
        body += rt.attribute(Nda.LLADDR, _mac_bytes(self.mac, self.describe()))
        return (Request(Kind.NEWNEIGH, Flag.CREATE | Flag.REPLACE, body, self.describe()),)


class SetMac(NetlinkOperation, frozen=True):
    """Change an interface's link-layer address."""

    index: int
    mac: str

    def describe(self) -> str:
        return f"set {self.link} to MAC {self.mac}"

    def encode(self) -> tuple[Request, ...]:
        body = _link(self.index) + rt.attribute(Ifla.ADDRESS, _mac_bytes(self.mac, self.describe()))
        return (Request(Kind.SETLINK, 0, body, self.describe()),)


class SetMtu(NetlinkOperation, frozen=True):
    """Change an interface's MTU, in bytes."""

    index: int
    mtu: int

    def describe(self) -> str:
        return f"set {self.link} to MTU {self.mtu}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, _link(self.index) + rt.u32(Ifla.MTU, self.mtu), self.describe()),)


class SetUp(NetlinkOperation, frozen=True):
    """Bring an interface up."""

    index: int

    def describe(self) -> str:
        return f"bring {self.link} up"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(0, 0, self.index, rt.IFF_UP, rt.IFF_UP)
        return (Request(Kind.NEWLINK, 0, body, self.describe()),)


class CreateBridge(NetlinkOperation, frozen=True):
    """Make a bridge with that interface index: down, not snooping multicast, with `alias` as its mark."""

    index: int
    mac: str
    mtu: int
    alias: str

    def describe(self) -> str:
        return f"create bridge {self.link} with MAC {self.mac} and MTU {self.mtu}"

    def encode(self) -> tuple[Request, ...]:
        body = b"".join(
            (
                _link(self.index),
                rt.text(Ifla.IFNAME, self.link),
                rt.u32(Ifla.MTU, self.mtu),
                rt.attribute(Ifla.ADDRESS, _mac_bytes(self.mac, self.describe())),
                rt.nested(
                    Ifla.LINKINFO,
                    rt.text(Ifla.INFO_KIND, "bridge"),
                    rt.nested(Ifla.INFO_DATA, rt.u8(Ifla.BR_MCAST_SNOOPING, 0)),
                ),
            )
        )
        # An alias given at creation is ignored (rtnl_create_link does not look at it), so it takes a second request.
        alias = _link(self.index) + rt.text(Ifla.IFALIAS, self.alias)
        return (
            Request(Kind.NEWLINK, Flag.CREATE | Flag.EXCL, body, self.describe()),
            Request(Kind.SETLINK, 0, alias, f"mark {self.link} as {self.alias}"),
        )


class DelLink(NetlinkOperation, frozen=True):
    """Remove an interface, found by name: its index may belong to another by now."""

    settled = _ABSENT

    def describe(self) -> str:
        return f"remove {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELLINK, 0, _link(0) + rt.text(Ifla.IFNAME, self.link), self.describe()),)


class Enslave(NetlinkOperation, frozen=True):
    """Make an interface a port of a bridge."""

    index: int
    master: int
    bridge: str

    def describe(self) -> str:
        return f"make {self.link} a port of {self.bridge}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, _link(self.index) + rt.u32(Ifla.MASTER, self.master), self.describe()),)


class Release(NetlinkOperation, frozen=True):
    """Take an interface out of its bridge; nothing happens where it is in none."""

    index: int

    def describe(self) -> str:
        return f"take {self.link} out of its bridge"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, _link(self.index) + rt.u32(Ifla.MASTER, 0), self.describe()),)


class StopLearning(NetlinkOperation, frozen=True):
    """Keep a bridge from learning MACs at this port (IFLA_BRPORT_LEARNING); what is unknown is flooded all the same.

    A CNI plugin's own bridge may send the pod's broadcasts back to it (`hairpinMode`). Learnt there, the guest's MAC
    would be behind the pod's interface, and no frame from there would reach the guest any more.
    """

    index: int

    def describe(self) -> str:
        return f"learn no MACs from {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(Family.BRIDGE, 0, self.index, 0, 0)
        body += rt.nested(Ifla.PROTINFO, rt.u8(Ifla.BRPORT_LEARNING, 0))
        return (Request(Kind.SETLINK, 0, body, self.describe()),)


class AnswerArp(NetlinkOperation, frozen=True):
    """Let a bridge answer ARP for what it knows to be behind this port, from its own neighbour table.

    That is IFLA_BRPORT_NEIGH_SUPPRESS (bridge(8)). IFLA_BRPORT_PROXYARP on the port of the asking side also answers,
    but no broadcast reaches such a port any more (br_flood), so a router that forgot the guest could not ask for it.
    """

    index: int

    def describe(self) -> str:
        return f"answer ARP for what is behind {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(Family.BRIDGE, 0, self.index, 0, 0)
        body += rt.nested(Ifla.PROTINFO, rt.u8(Ifla.BRPORT_NEIGH_SUPPRESS, 1))
        return (Request(Kind.SETLINK, 0, body, self.describe()),)


class CreateTap(LocalOperation, frozen=True):
    """Make a tap with that interface index; see `tap.create_tap` for the options."""

    index: int
    link: str
    vnet_hdr: bool = False
    persistent: bool = False
    owner: int | None = None
    group: int | None = None

    def describe(self) -> str:
        extras = [word for word, on in (("vnet headers", self.vnet_hdr), ("persistent", self.persistent)) if on]
        return f"create tap {self.link}{' (' + ', '.join(extras) + ')' if extras else ''}"

    def run(self) -> int | None:
        # Imported here: what only plans or prints needs no device.
        from shim.network.tap import create_tap

        return create_tap(
            self.link,
            self.index,
            vnet_hdr=self.vnet_hdr,
            persistent=self.persistent,
            owner=self.owner,
            group=self.group,
        )


class SetSysctl(LocalOperation, frozen=True):
    """Write a setting; `key` is its path below /proc/sys."""

    settled = frozenset({errno.ENOENT})
    key: str
    value: str

    def describe(self) -> str:
        return f"set {self.key} to {self.value}"

    def run(self) -> int | None:
        descriptor = os.open(_SYSCTL / self.key, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, self.value.encode())
        finally:
            os.close(descriptor)
        return None


Operation = (
    AddAddress
    | DelAddress
    | AddRoute
    | DelRoute
    | AddNeighbour
    | AnswerFor
    | DelNeighbour
    | AddForwarding
    | SetMac
    | SetMtu
    | SetUp
    | CreateBridge
    | DelLink
    | Enslave
    | Release
    | StopLearning
    | AnswerArp
    | CreateTap
    | SetSysctl
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An operation and what undoes it, in the order in which that must be done. Empty where `lapses` says with what
    else the effect goes away."""

    do: Operation
    undo: tuple[Operation, ...] = ()
    lapses: str = ""


def _link(index: int) -> bytes:
    return rt.LINK.pack(0, 0, index, 0, 0)


def _neighbour(index: int, address: str, state: int) -> bytes:
    ip = ip_address(address)
    family = Family.INET if ip.version == 4 else Family.INET6
    return rt.NEIGHBOUR.pack(family, index, state, 0, 0) + rt.attribute(Nda.DST, ip.packed)


def _mac_bytes(mac: str, operation: str) -> bytes:
    value = bytes.fromhex(mac.replace(":", ""))
    if len(value) != 6:
        raise Bug(f"an operation without a MAC was about to be carried out: {operation}")
    return value


def _mac_text(mac: str, next_hop: str) -> str:
    if not next_hop:
        return mac
    return f"{next_hop}'s MAC ({mac or 'resolved when applied'})"


def _with_address_flags(body: bytes, flags: int) -> bytes:
    family, prefix, _flags, scope, index = rt.ADDRESS.unpack_from(body)
    out = rt.ADDRESS.pack(family, prefix, flags & 0xFF, scope, index)
    for kind, value in rt.attributes(body, rt.ADDRESS.size):
        if kind != Ifa.FLAGS:
            out += rt.attribute(kind, value)
    return out + rt.u32(Ifa.FLAGS, flags)


def _settable_route(body: bytes) -> bytes:
    """A dumped route without what only the kernel may say: state flags, usage counters, a next-hop object's content."""
    *head, flags = rt.ROUTE.unpack_from(body)
    out = rt.ROUTE.pack(*head, flags & rt.RTNH_SETTABLE)
    found = list(rt.attributes(body, rt.ROUTE.size))
    dropped = {int(Rta.CACHEINFO)}
    if any(kind == Rta.NH_ID for kind, _ in found):
        dropped |= {int(Rta.OIF), int(Rta.GATEWAY), int(Rta.VIA), int(Rta.MULTIPATH)}
    for kind, value in found:
        if kind in dropped:
            continue
        out += rt.attribute(kind, _settable_hops(value) if kind == Rta.MULTIPATH else value)
    return out


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
