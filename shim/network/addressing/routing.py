"""Where a pod's own stack would send what leaves by one interface: policy rules and tables, flattened. Pure.

A guest knows none of that. It is told one gateway, and the rest must be true behind it, so all that matters of routes,
rules, metrics and several next hops comes down to a list of *ways*: a network, and the next hop for it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

import msgspec

from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, Link, Route

Network = TypeVar("Network", IPv4Network, IPv6Network)

_REFUSING = ("blackhole", "unreachable", "prohibit")
#: The metric of the routes by which IPv6 says that there is no route (IP6_RT_PRIO_..., net/ipv6/route.c).
_NO_ROUTE = 0xFFFFFFFF


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """To `network` by the next hop `gateway` ("" where it is on the link), or not at all where it `refuses`. `mtu` is
    the route's own, 0 where it sets none."""

    network: str
    gateway: str = ""
    refuses: bool = False
    mtu: int = 0

    @property
    def default(self) -> bool:
        """Whether it leads everywhere."""
        return self.network.endswith("/0")

    def destination(self) -> IPv4Network | IPv6Network:
        """The network."""
        return ip_network(self.network)


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """All ways of one family out of one interface, the longest network first; `notes` say what was left out."""

    ways: tuple[Way, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def default(self) -> Way | None:
        """The way to everywhere, where there is one that does not refuse."""
        return next((way for way in self.ways if way.default and not way.refuses), None)

    def on_link(self, network: Network) -> Network | None:
        """The network, if the ways say that all of it is on the link."""
        specific = [(way, type(network)(way.network)) for way in self.ways if not way.default]
        connected = any(
            network.subnet_of(destination) for way, destination in specific if not way.gateway and not way.refuses
        )
        contradicted = any(
            destination.subnet_of(network) for way, destination in specific if way.gateway or way.refuses
        )
        return network if connected and not contradicted else None

    @property
    def gateways(self) -> tuple[str, ...]:
        """All next hops, the default's first."""
        first = [self.default.gateway] if self.default and self.default.gateway else []
        return tuple(dict.fromkeys(first + [way.gateway for way in self.ways if way.gateway]))


def ways(layout: Layout, link: Link, source: str) -> Ways:
    """The ways of packets from `source` (an address of the interface) out of the interface."""
    version = ip_address(source).version
    notes: list[str] = []
    found: list[Way] = []
    for table in _tables(layout, link, source, version, notes):
        before = [way.destination() for way in found]
        for way in _of_table(layout, link, version, table, notes):
            destination = way.destination()
            if not any(destination.subnet_of(earlier) for earlier in before):  # type: ignore[arg-type]  # one family
                found.append(way)
    found.sort(key=lambda way: -way.destination().prefixlen)
    return Ways(ways=tuple(found), notes=tuple(notes))


def _tables(layout: Layout, link: Link, source: str, version: int, notes: list[str]) -> list[int]:
    """The tables that are asked for packets from `source`, in that order; a rule that refuses ends the list."""
    rules = sorted((rule for rule in layout.rules if rule.version == version), key=lambda rule: rule.priority)
    if not rules:
        return [rt.RT_TABLE_MAIN]
    address, tables = ip_address(source), list[int]()
    for rule in rules:
        if rule.table == rt.RT_TABLE_LOCAL and not rule.refuses:
            continue
        if rule.source and address not in ip_network(rule.source):
            continue
        if rule.narrow:
            if any(route.table == rule.table and route.through(link.index) for route in layout.routes):
                notes.append(f"rule {rule} is not the guest's: it asks for more than a source")
            continue
        if rule.refuses:
            notes.append(f"rule {rule.priority} refuses what no earlier table has a route for")
            break
        if rule.table not in tables:
            tables.append(rule.table)
    return tables


def _of_table(layout: Layout, link: Link, version: int, table: int, notes: list[str]) -> list[Way]:
    best: dict[str, Route] = {}
    for route in layout.routes:
        if route.version != version or route.table != table or route.metric == _NO_ROUTE:
            continue
        if route.kind not in _REFUSING and not (route.kind == "unicast" and route.through(link.index)):
            continue
        rival = best.get(route.destination)
        if rival is None or route.metric < rival.metric:
            best[route.destination] = route
        if rival is not None:
            spare = route if route.metric >= rival.metric else rival
            notes.append(f"route {spare} is a spare one that the guest does not have")
    return [_way(route, link, notes) for route in best.values() if not _link_local(route)]


def _way(route: Route, link: Link, notes: list[str]) -> Way:
    gateway = route.gateway
    if route.hops:
        gateway = next(hop.gateway for hop in route.hops if hop.link == link.index)
        notes.append(f"route {route}: of several next hops the guest's packets take {gateway or 'the link'}")
    return Way(network=route.destination, gateway=gateway, refuses=route.kind in _REFUSING, mtu=route.mtu)


def _link_local(route: Route) -> bool:
    """What every IPv6 stack knows by itself."""
    network = route.network()
    return network.version == 6 and (network.is_link_local or network.is_multicast)
