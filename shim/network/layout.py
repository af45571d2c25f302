"""What a CNI plugin left in a pod's namespace, read whole and judged by nobody here.

`read` asks the kernel; `from_messages` is pure. All values are plain text and numbers, so a layout is JSON as it
stands. Addresses and routes also keep the kernel's own encoding (`raw`), because only that brings back everything
they carry: lifetimes, labels, metrics, encapsulations, attributes that this program has never heard of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import msgspec

from shim.errors import NetworkFault
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.namespace import Namespace
from shim.network.kernel.netlink import Netlink, NetlinkError
from shim.network.kernel.rtnetlink import Family, Fra, Ifa, Ifla, Kind, Message, Nda, Rta, Tca

_SYSCTL = Path("/proc/sys")
#: How many addresses and networks are kept parsed: pods of a node share most of theirs, and one pod's come up often.
_REMEMBERED = 1024
#: Settings of an interface that plumbing touches and undoing must know, below net/ipv6/conf/NAME.
_IPV6_SETTINGS = ("addr_gen_mode", "disable_ipv6")


@lru_cache(_REMEMBERED)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One interface. `kind` is the driver's name ("veth", "bridge"; empty for hardware) and `mode` its way of working
    where it has several ("l3" of ipvlan); `flags` are IFF_*; `hardware` is ARPHRD_*; `parent` and `master` are
    interface indexes, 0 for none; `filters` is the queueing discipline that carries filters, if there is one."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    flags: int
    hardware: int
    master: int = 0
    parent: int = 0
    alias: str = ""
    mode: str = ""
    filters: str = ""

    @property
    def up(self) -> bool:
        """Administratively up."""
        return bool(self.flags & rt.IFF_UP)

    @property
    def carrier(self) -> bool:
        """Whether there is anything at its other end: a veth's peer that is up, a process that has a tap open."""
        return bool(self.flags & rt.IFF_LOWER_UP)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One address on the interface `link` (an index). `flags` are IFA_F_*; `raw` is the kernel's own message body."""

    link: int
    address: str
    prefix: int
    peer: str = ""
    scope: int = 0
    flags: int = 0
    metric: int = 0
    raw: bytes = b""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        peer = f" peer {self.peer}" if self.peer else ""
        return f"{self.address}{peer}/{self.prefix}"

    def network(self) -> IPv4Network | IPv6Network:
        """The prefix it stands for: the peer's, where there is one."""
        return _network(f"{self.peer or self.address}/{self.prefix}")


class NextHop(msgspec.Struct, frozen=True, kw_only=True):
    """One of a route's several next hops: the interface's index and the gateway, which may be empty."""

    link: int
    gateway: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route out of the interface `link` (an index, 0 where the route names none).

    `kind` is the type ("unicast", "local", "blackhole", …), `gateway` the next hop or empty, which may be of the other
    family (`via inet6`), `mtu` 0 where the route sets none; `hops` are several next hops; `raw` is the kernel's own
    message body.
    """

    link: int
    destination: str
    kind: str
    table: int
    protocol: int
    scope: int
    gateway: str = ""
    source: str = ""
    metric: int = 0
    mtu: int = 0
    flags: int = 0
    hops: tuple[NextHop, ...] = ()
    raw: bytes = b""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.destination else 4

    def through(self, link: int) -> bool:
        """Whether any of its next hops is the interface `link`."""
        return self.link == link or any(hop.link == link for hop in self.hops)

    @property
    def default(self) -> bool:
        """Whether it covers everything."""
        return self.destination.endswith("/0")

    def network(self) -> IPv4Network | IPv6Network:
        """The destination."""
        return _network(self.destination)

    def __str__(self) -> str:
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.default else self.destination)
        if self.gateway:
            words += ["via", self.gateway]
        if self.hops:
            words.append("via several next hops")
        if self.metric:
            words += ["metric", str(self.metric)]
        if self.table != rt.RT_TABLE_MAIN:
            words += ["table", str(self.table)]
        return " ".join(words)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One policy rule (ip-rule(8)): packets from `source` ("" for any) look `table` up, lower `priority` first.

    `narrow` says that it asks for more than the source (a mark, an interface, a port, …); `refuses` that it forbids.
    """

    version: int
    priority: int
    source: str = ""
    table: int = 0
    narrow: bool = False
    refuses: bool = False

    def __str__(self) -> str:
        return f"{self.priority}: from {self.source or 'all'} lookup {self.table}"


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """One neighbour entry on the interface `link` (an index). `state` is NUD_*; `mac` is empty while unresolved."""

    link: int
    address: str
    mac: str
    state: int

    @property
    def permanent(self) -> bool:
        """Put there by somebody, not learned."""
        return bool(self.state & rt.NUD_PERMANENT)

    @property
    def valid(self) -> bool:
        """Whether the kernel would use the address it has."""
        return bool(self.state & rt.NUD_VALID) and bool(self.mac)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A whole namespace: all interfaces, both families. Lists are in the kernel's order, which undoing relies on."""

    links: tuple[Link, ...]
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    rules: tuple[Rule, ...] = ()
    sysctls: dict[str, str] = {}

    def link(self, name: str) -> Link | None:
        """The interface of that name."""
        return next((link for link in self.links if link.name == name), None)


async def read(namespace: Namespace) -> Layout:
    """The namespace's layout. Raises NetworkFault if the kernel does not say."""
    try:
        return await namespace.run(lambda: _read(namespace.netlink))
    except NetlinkError as error:
        raise NetworkFault(f"the namespace cannot be read: {error.strerror}", subject=str(namespace.path)) from error
    except OSError as error:
        raise NetworkFault(f"the namespace cannot be entered: {error.strerror}", subject=str(namespace.path)) from error


def _read(netlink: Netlink) -> Layout:
    """Runs in the namespace."""
    return with_settings(from_messages(take_dumps(netlink)))


def take_dumps(netlink: Netlink) -> Dumps:
    """All that the kernel lists; blocks. Raises NetlinkError."""
    return Dumps(
        links=netlink.dump(Kind.GETLINK, link_request(), "list interfaces"),
        addresses=netlink.dump(Kind.GETADDR, rt.ADDRESS.pack(0, 0, 0, 0, 0), "list addresses"),
        routes=netlink.dump(Kind.GETROUTE, rt.ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "list routes"),
        neighbours=netlink.dump(Kind.GETNEIGH, rt.NEIGHBOUR.pack(0, 0, 0, 0, 0), "list neighbours"),
        rules=netlink.dump(Kind.GETRULE, rt.RULE.pack(0, 0, 0, 0, 0, 0, 0), "list policy rules"),
        disciplines=netlink.dump(Kind.GETQDISC, rt.TRAFFIC.pack(0, 0, 0, 0, 0), "list queueing disciplines"),
    )


def link_request(index: int = 0) -> bytes:
    """What to ask for one interface, or for all of them, without the counters that nobody reads."""
    return rt.LINK.pack(0, 0, index, 0, 0) + rt.u32(Ifla.EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS)


def with_settings(layout: Layout) -> Layout:
    """The layout with its interfaces' settings; runs in the namespace."""
    names = tuple(link.name for link in layout.links if not link.flags & rt.IFF_LOOPBACK)
    return msgspec.structs.replace(layout, sysctls=_read_settings(names))


class Dumps(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel lists of a namespace, as it came."""

    links: list[Message]
    addresses: list[Message] = []
    routes: list[Message] = []
    neighbours: list[Message] = []
    rules: list[Message] = []
    disciplines: list[Message] = []


def from_messages(dumps: Dumps) -> Layout:
    """A layout from the dumps, without settings. Pure. Raises ValueError where a message is not what its type says."""
    filters = dict(found for message in dumps.disciplines if (found := _filter_discipline(message.body)) is not None)
    return Layout(
        links=tuple(
            msgspec.structs.replace(link, filters=filters.get(link.index, ""))
            for link in (parse_link(message.body) for message in dumps.links)
        ),
        addresses=tuple(parse_address(message.body) for message in dumps.addresses if _is_ip(message.body)),
        routes=tuple(
            route
            for message in dumps.routes
            if _is_ip(message.body) and not (route := _route(message.body)).flags & rt.RTM_F_CLONED
        ),
        neighbours=tuple(
            neighbour for message in dumps.neighbours if (neighbour := parse_neighbour(message.body)) is not None
        ),
        rules=tuple(_rule(message.body) for message in dumps.rules if _is_ip(message.body)),
    )


def _read_settings(names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        for setting in _IPV6_SETTINGS:
            key = f"net/ipv6/conf/{name}/{setting}"
            try:
                found[key] = (_SYSCTL / key).read_text().strip()
            except OSError:  # no such interface, or a kernel without IPv6: then there is nothing to keep either
                continue
    return found


def _is_ip(body: bytes) -> bool:
    """Dumps of all families also bring MPLS and multicast routing, whose messages look alike."""
    return body[0] in (Family.INET, Family.INET6)


def _mac(value: bytes) -> str:
    return value.hex(":")


@lru_cache(_REMEMBERED)
def _ip(value: bytes) -> str:
    address: IPv4Address | IPv6Address = ip_address(value)
    return str(address)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0


def parse_link(body: bytes) -> Link:
    """One interface, but for what a discipline says of it."""
    _family, hardware, index, flags, _change = rt.LINK.unpack_from(body)
    found = dict(rt.attributes(body, rt.LINK.size))
    information = dict(rt.attributes(found.get(Ifla.LINKINFO, b"")))
    kind = _string(information.get(Ifla.INFO_KIND, b""))
    return Link(
        index=index,
        name=_string(found.get(Ifla.IFNAME, b"")),
        kind=kind,
        mode=_mode(kind, information.get(Ifla.INFO_DATA, b"")),
        mac=_mac(found.get(Ifla.ADDRESS, b"")),
        mtu=_number(found.get(Ifla.MTU)),
        flags=flags,
        hardware=hardware,
        master=_number(found.get(Ifla.MASTER)),
        parent=_number(found.get(Ifla.LINK)),
        alias=_string(found.get(Ifla.IFALIAS, b"")),
    )


def _mode(kind: str, data: bytes) -> str:
    if kind not in ("ipvlan", "ipvtap"):
        return ""
    number = _number(dict(rt.attributes(data)).get(Ifla.IPVLAN_MODE))
    return rt.IPVLAN_MODES[number] if number < len(rt.IPVLAN_MODES) else str(number)


def _filter_discipline(body: bytes) -> tuple[int, str] | None:
    """An interface's index and the name of its discipline for filters, of all the disciplines it has."""
    _family, index, _handle, parent, _info = rt.TRAFFIC.unpack_from(body)
    if parent != rt.TC_H_CLSACT:
        return None
    return index, _string(dict(rt.attributes(body, rt.TRAFFIC.size)).get(Tca.KIND, b""))


def _rule(body: bytes) -> Rule:
    family, destination, source, tos, table, action, _flags = rt.RULE.unpack_from(body)
    found = dict(rt.attributes(body, rt.RULE.size))
    narrowing = set(found) & {
        Fra.DST,
        Fra.IIFNAME,
        Fra.FWMARK,
        Fra.FLOW,
        Fra.TUN_ID,
        Fra.SUPPRESS_IFGROUP,
        Fra.SUPPRESS_PREFIXLEN,
        Fra.OIFNAME,
        Fra.L3MDEV,
        Fra.UID_RANGE,
        Fra.IP_PROTO,
        Fra.SPORT_RANGE,
        Fra.DPORT_RANGE,
    }
    # A rule that names nothing of a sort may carry that attribute all the same, unset (-1, or zero).
    narrowing = {kind for kind in narrowing if found[kind].strip(b"\xff") and found[kind].strip(b"\0")}
    return Rule(
        version=6 if family == Family.INET6 else 4,
        priority=_number(found.get(Fra.PRIORITY)),
        source=f"{_ip(found[Fra.SRC])}/{source}" if Fra.SRC in found else "",
        table=_number(found[Fra.TABLE]) if Fra.TABLE in found else table,
        narrow=bool(narrowing or destination or tos or action not in (rt.FR_ACT_TO_TBL, *rt.FR_ACT_REFUSING)),
        refuses=action in rt.FR_ACT_REFUSING,
    )


def parse_address(body: bytes) -> Address:
    """One address of either family."""
    _family, prefix, flags, scope, index = rt.ADDRESS.unpack_from(body)
    found = dict(rt.attributes(body, rt.ADDRESS.size))
    # IFA_ADDRESS is the peer's where there is one; IFA_LOCAL is then ours (linux/if_addr.h).
    peer = _ip(found[Ifa.ADDRESS]) if Ifa.ADDRESS in found else ""
    local = _ip(found[Ifa.LOCAL]) if Ifa.LOCAL in found else peer
    return Address(
        link=index,
        address=local,
        prefix=prefix,
        peer="" if peer == local else peer,
        scope=scope,
        flags=_number(found[Ifa.FLAGS]) if Ifa.FLAGS in found else flags,
        metric=_number(found.get(Ifa.RT_PRIORITY)),
        raw=body,
    )


def _route(body: bytes) -> Route:
    family, length, _source, _tos, table, protocol, scope, kind, flags = rt.ROUTE.unpack_from(body)
    found = dict(rt.attributes(body, rt.ROUTE.size))
    metrics = dict(rt.attributes(found.get(Rta.METRICS, b"")))
    anywhere = "::" if family == Family.INET6 else "0.0.0.0"  # noqa: S104 - the default route, not a listener
    return Route(
        link=_number(found.get(Rta.OIF)),
        destination=f"{_ip(found[Rta.DST]) if Rta.DST in found else anywhere}/{length}",
        kind=rt.ROUTE_TYPES[kind] if kind < len(rt.ROUTE_TYPES) else str(kind),
        table=_number(found[Rta.TABLE]) if Rta.TABLE in found else table,
        protocol=protocol,
        scope=scope,
        gateway=_gateway(found),
        source=_ip(found[Rta.PREFSRC]) if Rta.PREFSRC in found else "",
        metric=_number(found.get(Rta.PRIORITY)),
        mtu=_number(metrics.get(Rta.METRIC_MTU)),
        flags=flags,
        hops=tuple(_hops(found.get(Rta.MULTIPATH, b""))),
        raw=body,
    )


def _hops(value: bytes) -> Iterable[NextHop]:
    offset = 0
    while offset + rt.NEXT_HOP.size <= len(value):
        length, _flags, _hops, index = rt.NEXT_HOP.unpack_from(value, offset)
        if length < rt.NEXT_HOP.size:
            raise ValueError(f"next hop of {length} bytes")
        found = dict(rt.attributes(value[offset + rt.NEXT_HOP.size : offset + length]))
        yield NextHop(link=index, gateway=_gateway(found))
        offset += (length + 3) & ~3


def _gateway(found: Mapping[int, bytes]) -> str:
    if Rta.VIA in found:  # struct rtvia: a family, then the address
        return _ip(found[Rta.VIA][2:])
    return _ip(found[Rta.GATEWAY]) if Rta.GATEWAY in found else ""


def parse_neighbour(body: bytes) -> Neighbour | None:
    """One neighbour entry; None for those of other families (a bridge's forwarding entries)."""
    family, index, state, _flags, _kind = rt.NEIGHBOUR.unpack_from(body)
    found = dict(rt.attributes(body, rt.NEIGHBOUR.size))
    if family not in (Family.INET, Family.INET6) or Nda.DST not in found:
        return None
    return Neighbour(link=index, address=_ip(found[Nda.DST]), mac=_mac(found.get(Nda.LLADDR, b"")), state=state)
