"""From a layout to what a simple guest stack can be told: an address, a prefix, and a gateway inside it.

What is on-link is what a route says, never what a prefix suggests. Where the pod's own truth cannot be expressed (a
/32, a gateway off the link, a prefix whose connected route was taken away), the guest gets the smallest prefix in which
its address is a host, or its own prefix where that can be answered for, and the dataplane answers for every other
address of it with the next hop's MAC (`Attachment.proxied`). What can be neither expressed nor carried is refused with
the reason.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from shim.errors import NetworkFault
from shim.network import rtnetlink as rt
from shim.network.layout import Address, Layout, Link, Route

#: The alias by which our own bridge is recognised; the sandbox's id follows.
MARK = "unikernel-shim:"
_NONE = "a unikernel that needs no network takes the annotation io.unikernel.network=none"
#: Drivers whose interface takes only frames for a MAC that the bridge would have to give to the guest.
_SHARED_MAC = {
    "macvlan": "the parent device delivers only frames for the interface's own MAC, which a bridge keeps to itself",
    "macvtap": "the parent device delivers only frames for the interface's own MAC, which a bridge keeps to itself",
    "ipvlan": "it shares its parent's MAC, so a guest behind a bridge cannot have one of its own",
    "ipvtap": "it shares its parent's MAC, so a guest behind a bridge cannot have one of its own",
    "netkit": "it carries no Ethernet frames that a guest could exchange",
}
_REFUSING = ("blackhole", "unreachable", "prohibit", "throw")
#: The shortest prefix for which answering address by address is reasonable: 1021 permanent entries.
_SHORTEST = 22
_LONGEST = 30


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """How a guest takes the pod's interface over.

    `address` and `gateway` are what it is told; `next_hop` is the pod's real one. Where `proxied`, every other host of
    the prefix is to be answered for with the next hop's MAC; `pinned` are addresses to be answered for with a MAC of
    their own. `mtu` is in bytes; `notes` say in sentences what of the layout the guest will see differently or not at
    all.
    """

    link: Link
    address: IPv4Interface
    gateway: IPv4Address | None
    next_hop: IPv4Address | None
    proxied: bool
    pinned: dict[IPv4Address, str]
    mtu: int
    notes: tuple[str, ...] = ()


def attach(layout: Layout, interface: str = "eth0") -> Attachment:
    """Decide. Pure. Raises NetworkFault where the pod's network cannot be handed over, saying why."""
    _refuse_plumbed(layout)
    link = _usable_link(layout, interface)
    identity, notes = _identity(layout, link)
    routes = [
        route for route in layout.routes if route.version == 4 and route.table == rt.RT_TABLE_MAIN and _matters(route)
    ]
    _refuse_policies(routes, link)
    mine = [route for route in routes if route.through(link.index)]
    default = _default(mine, link)
    next_hop = IPv4Address(default.gateway) if default else None
    own = IPv4Address(identity.address)
    network = _on_link_network(identity, mine)
    if network is not None and _expressible(own, next_hop, network):
        address, gateway = IPv4Interface((own, network.prefixlen)), next_hop
        proxied, pinned = False, _pinned(layout, link, network)
    elif next_hop is None:
        raise NetworkFault(
            f"{link.name} has {identity} and no default route, so nothing could be a guest's gateway",
            subject=link.name,
            remedy=_NONE,
        )
    else:
        address, gateway = _proxied_view(identity, next_hop, link)
        proxied, pinned = True, {}
        if address.network.prefixlen != identity.prefix:
            edges = f"{address.network.network_address} and {address.network.broadcast_address}"
            notes.append(f"{edges} are out of the guest's reach: they are the edges of {address.network}")
        if network is not None:
            notes.append(f"neighbours in {network} are reached through the gateway")
    _refuse_or_note_routes(mine, address.network, next_hop, link, notes)
    for other in layout.links:
        if other.index != link.index and not other.flags & rt.IFF_LOOPBACK:
            notes.append(f"interface {other.name} is left alone: the guest gets {link.name} only")
    if any(route.through(link.index) and route.table not in (rt.RT_TABLE_MAIN, rt.RT_TABLE_LOCAL)
           for route in layout.routes if route.version == 4):  # fmt: skip
        notes.append(f"routes of {link.name} in tables other than main are not the guest's")
    mtu = min(link.mtu, default.mtu) if default and default.mtu else link.mtu
    return Attachment(
        link=link,
        address=address,
        gateway=gateway,
        next_hop=next_hop,
        proxied=proxied,
        pinned=pinned,
        mtu=mtu,
        notes=tuple(notes),
    )


def smallest_prefix(own: IPv4Address) -> IPv4Network | None:
    """The smallest prefix in which `own` is neither the network's nor the broadcast address and another host fits;
    None where that would be shorter than can be answered for."""
    for length in range(_LONGEST, _SHORTEST - 1, -1):
        network = IPv4Network((own, length), strict=False)
        if own not in (network.network_address, network.broadcast_address):
            return network
    return None


def _refuse_plumbed(layout: Layout) -> None:
    for link in layout.links:
        if link.alias.startswith(MARK):
            raise NetworkFault(
                f"the namespace is already plumbed for sandbox {link.alias.removeprefix(MARK)}",
                subject=link.name,
                remedy="a pod has one address, so one unikernel: give the second its own pod",
            )


def _usable_link(layout: Layout, interface: str) -> Link:
    link = layout.link(interface)
    if link is None:
        names = ", ".join(link.name for link in layout.links) or "no interface at all"
        raise NetworkFault(f"the pod has no {interface}, only {names}", subject=interface, remedy=_NONE)
    reason = _SHARED_MAC.get(link.kind, "")
    if not reason and (link.hardware != rt.ARPHRD_ETHER or link.flags & rt.IFF_NOARP):
        reason = "it is not Ethernet, and a guest speaks nothing else"
    if reason:
        raise NetworkFault(
            f"{link.name} is {link.kind or 'a device'} that cannot be bridged: {reason}",
            subject=link.name,
            remedy="use a CNI plugin that gives pods a veth",
        )
    if link.master:
        raise NetworkFault(f"{link.name} is already a port of another device", subject=link.name)
    if not link.up:
        raise NetworkFault(f"{link.name} is down", subject=link.name, remedy="look at the CNI plugin's log")
    return link


def _identity(layout: Layout, link: Link) -> tuple[Address, list[str]]:
    addresses = [address for address in layout.addresses if address.link == link.index]
    fourth = [address for address in addresses if address.version == 4]
    sixth = [address for address in addresses if address.version == 6 and address.scope == rt.RT_SCOPE_UNIVERSE]
    if not fourth:
        if sixth:
            raise NetworkFault(
                f"the pod has IPv6 addresses only ({sixth[0]}), and guests are given IPv4 only",
                subject=link.name,
                remedy="run the pod in a network with IPv4",
            )
        raise NetworkFault(f"{link.name} has no IPv4 address", subject=link.name, remedy=_NONE)
    identity = next(
        (
            address
            for address in fourth
            if address.scope == rt.RT_SCOPE_UNIVERSE and not address.flags & rt.IFA_F_SECONDARY
        ),
        fourth[0],
    )
    notes = [f"address {other} is not the guest's: it is given {identity}" for other in fourth if other != identity]
    notes += [f"address {other} is not the guest's: guests are given IPv4 only" for other in sixth]
    return identity, notes


def _matters(route: Route) -> bool:
    return route.kind == "unicast" or route.kind in _REFUSING


def _refuse_policies(routes: list[Route], link: Link) -> None:
    for route in routes:
        if route.kind in _REFUSING:
            raise NetworkFault(
                f"the pod refuses traffic by a route ({route}), which a guest cannot express and a bridge cannot carry",
                subject=link.name,
            )


def _default(mine: list[Route], link: Link) -> Route | None:
    defaults = sorted((route for route in mine if route.default), key=lambda route: route.metric)
    if not defaults:
        return None
    best = defaults[0]
    if best.hops or any(other.metric == best.metric and other.gateway != best.gateway for other in defaults[1:]):
        raise NetworkFault("the default route has several next hops, and a guest takes one", subject=link.name)
    if not best.gateway:
        raise NetworkFault(
            "the default route has no gateway: everything would be on the guest's link, which it cannot express",
            subject=link.name,
        )
    if ":" in best.gateway:
        raise NetworkFault(
            f"the default route's next hop is {best.gateway}, and guests speak IPv4 only", subject=link.name
        )
    return best


def _on_link_network(identity: Address, mine: list[Route]) -> IPv4Network | None:
    """The address's prefix, if the routes say that all of it is on the link."""
    network = IPv4Network(f"{identity.address}/{identity.prefix}", strict=False)
    if identity.peer:
        return None
    unicast = [(route, IPv4Network(route.destination)) for route in mine if not route.default]
    connected = any(
        network.subnet_of(destination) for route, destination in unicast if not route.gateway and not route.hops
    )
    contradicted = any(destination.subnet_of(network) for route, destination in unicast if route.gateway or route.hops)
    return network if connected and not contradicted else None


def _expressible(own: IPv4Address, gateway: IPv4Address | None, network: IPv4Network) -> bool:
    reserved = (network.network_address, network.broadcast_address)
    if network.prefixlen > _LONGEST or own in reserved:
        return False
    return gateway is None or (gateway in network and gateway not in reserved and gateway != own)


def _proxied_view(identity: Address, next_hop: IPv4Address, link: Link) -> tuple[IPv4Interface, IPv4Address]:
    """The pod's own prefix if it can be answered for (its edges are nobody's address), else the smallest one, whose
    edges may be other pods' addresses: those two the guest cannot reach."""
    own = IPv4Address(identity.address)
    declared = IPv4Network((own, 32 if identity.peer else identity.prefix), strict=False)
    answerable = _SHORTEST <= declared.prefixlen <= _LONGEST
    if answerable and own not in (declared.network_address, declared.broadcast_address):
        network: IPv4Network | None = declared
    else:
        network = smallest_prefix(own)
    if network is None:
        raise NetworkFault(
            f"the smallest prefix in which {own} is a host's address is too large to answer for",
            subject=link.name,
            remedy="delete the pod, so that it is made anew with another address",
        )
    hosts = [host for host in network.hosts() if host != own]
    return IPv4Interface((own, network.prefixlen)), next_hop if next_hop in hosts else hosts[0]


def _pinned(layout: Layout, link: Link, network: IPv4Network) -> dict[IPv4Address, str]:
    """Entries a CNI plugin put there because nobody answers for those addresses."""
    found: dict[IPv4Address, str] = {}
    for entry in layout.neighbours:
        if entry.link == link.index and entry.permanent and entry.mac and ":" not in entry.address:
            address = IPv4Address(entry.address)
            if address in network:
                found[address] = entry.mac
    return found


def _refuse_or_note_routes(
    mine: list[Route], network: IPv4Network, next_hop: IPv4Address | None, link: Link, notes: list[str]
) -> None:
    for route in mine:
        destination = IPv4Network(route.destination)
        if route.default:
            if IPv4Address(route.gateway or 0) != next_hop:
                notes.append(f"route {route} is a spare one that the guest does not have")
        elif route.hops or (route.gateway and (next_hop is None or route.gateway != str(next_hop))):
            raise NetworkFault(
                f"route {route} has another next hop than the default route, and a guest takes one gateway",
                subject=link.name,
            )
        elif not route.gateway and not destination.subnet_of(network):
            if next_hop is None:
                raise NetworkFault(
                    f"route {route} leads out of {network}, and without a gateway a guest cannot express it",
                    subject=link.name,
                )
            if destination != IPv4Network(next_hop) and not network.subnet_of(destination):
                notes.append(f"{destination} is reached through the gateway, not directly")
