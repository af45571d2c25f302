"""Emptying an interface of everything a guest takes over, each step with what brings it back exactly.

The kernel throws away more than it is told to: with the last address go the routes and the permanent neighbours. So
each is removed by name first, in such an order that undoing in reverse meets the kernel's conditions: addresses in
their original order (primaries before secondaries), link routes before routes through gateways.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.rtnetlink import Family, Rta
from shim.network.layout import Address, Layout, Link, Route
from shim.network.operations import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    DelAddress,
    DelNeighbour,
    DelRoute,
    Operation,
    SetSysctl,
    Step,
)

#: IN6_ADDR_GEN_MODE_NONE (linux/if_link.h).
_NO_GENERATED_ADDRESS = "1"


def quiet_ipv6(layout: Layout, link: Link) -> list[Step]:
    """Comes first, so that its undoing comes last: while addresses are put back the kernel must not make its own."""
    key = f"net/ipv6/conf/{link.name}/addr_gen_mode"
    value = layout.sysctls.get(key)
    if not _ipv6_on(layout, link) or value is None or value == _NO_GENERATED_ADDRESS:
        return []
    return [Step(do=SetSysctl(key=key, value=_NO_GENERATED_ADDRESS), undo=(SetSysctl(key=key, value=value),))]


def disable_ipv6(layout: Layout, link: Link) -> list[Step]:
    """Turn IPv6 off on the interface, if it is on."""
    if not _ipv6_on(layout, link):
        return []
    key = f"net/ipv6/conf/{link.name}/disable_ipv6"
    return [Step(do=SetSysctl(key=key, value="1"), undo=(SetSysctl(key=key, value="0"),))]


def vacate(layout: Layout, link: Link) -> list[Step]:
    """Remove neighbours, routes and addresses of the interface."""
    addresses = [address for address in layout.addresses if address.link == link.index]
    steps = [
        Step(
            do=DelNeighbour(index=link.index, link=link.name, address=entry.address),
            undo=(AddNeighbour(index=link.index, link=link.name, address=entry.address, mac=entry.mac),),
        )
        for entry in layout.neighbours
        if entry.link == link.index and entry.permanent and entry.mac
    ]
    steps += [
        Step(do=DelRoute(link=link.name, route=route), undo=(AddRoute(link=link.name, route=route),))
        for route in _in_removal_order(_routes_to_keep(layout, link, addresses))
    ]
    for address in _addresses_in_removal_order(addresses):
        undo: tuple[Operation, ...] = (AddAddress(link=link.name, address=address),)
        unwanted = _prefix_route(address)
        if unwanted is not None and not any(_same(unwanted, route) for route in layout.routes):
            # The CNI plugin took the connected route away (`ptp` and its kin); the kernel will make it again.
            undo += (DelRoute(link=link.name, route=unwanted),)
        steps.append(Step(do=DelAddress(link=link.name, address=address), undo=undo))
    return steps


def _ipv6_on(layout: Layout, link: Link) -> bool:
    return layout.sysctls.get(f"net/ipv6/conf/{link.name}/disable_ipv6") == "0"


def _addresses_in_removal_order(addresses: list[Address]) -> list[Address]:
    # IPv4 appends a new address behind its equals; IPv6 puts it before them (net/ipv6/addrconf.c, ipv6_link_dev_addr).
    fourth = [address for address in addresses if address.version == 4]
    sixth = [address for address in addresses if address.version == 6]
    return sixth + fourth[::-1]


def _routes_to_keep(layout: Layout, link: Link, addresses: list[Address]) -> list[Route]:
    """Routes that vanish with the interface's addresses and that the kernel will not make again by itself."""
    own = {address.address for address in addresses}
    automatic = [route for address in addresses if (route := _prefix_route(address)) is not None]
    kept: list[Route] = []
    for route in layout.routes:
        if not route.through(link.index) and route.source not in own:
            continue
        if route.table == rt.RT_TABLE_LOCAL or (route.protocol == rt.RTPROT_KERNEL and route.kind != "unicast"):
            continue
        if any(_same(route, made) for made in automatic):
            continue
        kept.append(route)
    return kept


def _in_removal_order(routes: list[Route]) -> list[Route]:
    ordered = sorted(routes, key=lambda route: (bool(route.gateway or route.hops), -route.scope))
    return ordered[::-1]


def _prefix_route(address: Address) -> Route | None:
    """The route that the kernel makes for an address (fib_add_ifaddr, addrconf_prefix_route)."""
    if address.flags & rt.IFA_F_NOPREFIXROUTE:
        return None
    network = address.network()
    if isinstance(network, IPv4Network):
        if address.flags & rt.IFA_F_SECONDARY or (network.prefixlen == 32 and not address.peer):
            return None
        family, metric, scope, source = Family.INET, address.metric, rt.RT_SCOPE_LINK, address.address
    else:
        # IP6_RT_PRIO_ADDRCONF (net/ipv6/addrconf.h) is the metric of an address that names none.
        family, metric, scope, source = Family.INET6, address.metric or 256, rt.RT_SCOPE_UNIVERSE, ""
    raw = rt.ROUTE.pack(
        family,
        network.prefixlen,
        0,
        0,
        rt.RT_TABLE_MAIN,
        rt.RTPROT_KERNEL,
        scope,
        rt.RTN_UNICAST,
        0,
    )
    raw += rt.attribute(Rta.DST, network.network_address.packed) + rt.u32(Rta.OIF, address.link)
    raw += rt.u32(Rta.PRIORITY, metric)
    return Route(
        link=address.link,
        destination=str(network),
        kind="unicast",
        table=rt.RT_TABLE_MAIN,
        protocol=rt.RTPROT_KERNEL,
        scope=scope,
        source=source,
        metric=metric,
        raw=raw,
    )


def _same(one: Route, other: Route) -> bool:
    def key(route: Route) -> tuple[object, ...]:
        return (
            route.link,
            route.destination,
            route.table,
            route.protocol,
            route.gateway,
            route.source,
            route.metric,
            route.kind,
            route.hops,
        )

    return key(one) == key(other)
