"""What a guest is told of IPv6: an address, its prefix, and a gateway. Pure.

Every IPv6 stack knows that link-local addresses are on the link, so a gateway is one, or in a prefix that a route says
is on the link. Where the pod's is neither, or not the whole truth, the virtual router is the gateway, by a link-local
address of its own.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface, IPv6Network

from shim.errors import NetworkFault
from shim.network.addressing.interfaces import layer3
from shim.network.addressing.mac import link_local
from shim.network.addressing.routing import Ways
from shim.network.addressing.told import Told, beyond, hops, pinned, steers
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Address, Layout, Link
from shim.network.programs.edge import Answer

_LINK = IPv6Network("fe80::/10")


def identity(layout: Layout, link: Link) -> Address | None:
    """The address that the guest takes: the first global one that is neither temporary nor on its way out."""
    mine = [
        address
        for address in layout.addresses
        if address.link == link.index and address.version == 6 and address.scope == rt.RT_SCOPE_UNIVERSE
    ]
    unwanted = rt.IFA_F_TEMPORARY | rt.IFA_F_DEPRECATED | rt.IFA_F_DADFAILED
    return next(iter([address for address in mine if not address.flags & unwanted] or mine), None)


def view(layout: Layout, link: Link, address: Address, found: Ways, router: str) -> Told:
    """Decide; `router` is the virtual router's MAC. Raises NetworkFault for what can be neither told nor carried."""
    notes = list(found.notes)
    default, gateways = found.default, found.gateways
    network = None
    if not (layer3(link) or address.peer or address.prefix == 128):
        network = found.on_link(IPv6Network((address.address, address.prefix), strict=False))
    told = str(IPv6Interface((address.address, network.prefixlen if network is not None else 128)))
    for way in found.ways:
        more = not (way.gateway or way.refuses or way.default or way.network.partition("/")[0] == address.address)
        if not more or (network is not None and IPv6Network(way.network).subnet_of(network)):
            continue
        if not gateways:
            raise NetworkFault(
                f"{way.network} is on {link.name}'s link and not in {told}, "
                "which without a gateway a guest cannot express",
                subject=link.name,
                remedy="give the interface a prefix with a connected route, or a route with a gateway",
            )
        if IPv6Network(way.network).prefixlen < 128:
            notes.append(f"{way.network} is reached through the gateway, not directly")
    next_hop = gateways[0] if gateways else ""
    refusing = [way for way in found.ways if way.refuses]
    if not layer3(link) and len(gateways) <= 1 and not refusing and (default is not None or not gateways):
        if default is not None and not default.gateway:
            notes.append("the IPv6 default route has no gateway, so the guest has none")
        known = not next_hop or IPv6Address(next_hop) in _LINK or (network and IPv6Address(next_hop) in network)
        if known and next_hop != address.address:
            return Told(
                address=told,
                gateway=next_hop,
                next_hop=next_hop,
                answers=pinned(layout, link, network, next_hop),
                notes=tuple(notes),
            )
    notes += [f"what the guest sends to {way.network} is dropped, as a route says" for way in refusing]
    alias = str(link_local(router))
    made = steers(found, gateways, "::/0")
    return Told(
        address=told,
        gateway=alias,
        next_hop=next_hop,
        router=router,
        answers=(Answer(network=f"{alias}/128", mac=router), *pinned(layout, link, network)),
        hops=() if layer3(link) else hops(layout, link, gateways),
        steers=() if layer3(link) else made,
        beyond=beyond(found),
        notes=tuple(notes),
    )
