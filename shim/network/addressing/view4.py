"""What a guest is told of IPv4: an address, a prefix, and a gateway inside it. Pure.

What is on-link is what a route says, never what a prefix suggests. Three cases:

- it is true as it stands: address, prefix and gateway are handed over;
- the prefix is true, but one gateway in it is not the whole truth (static routes by other next hops, routes that
  refuse, a gateway off the link): the virtual router answers for the gateway and sends on by the pod's routes;
- the prefix is not true (a /32, a connected route that was taken away): the guest keeps its prefix where its address
  is a host of it, else gets the smallest in which it is, and the virtual router answers for every other address.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from shim.errors import NetworkFault
from shim.network.addressing.interfaces import layer3
from shim.network.addressing.routing import Ways
from shim.network.addressing.told import Told, beyond, hops, pinned, steers
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Address, Layout, Link
from shim.network.programs.edge import Answer

#: The longest prefix with room for another host.
_LONGEST = 30
#: Whom a default route without a gateway is asked of: whoever answers for everything answers for this one too.
_ANYBODY = "169.254.1.1"


def identity(layout: Layout, link: Link) -> Address | None:
    """The address that the guest takes: the first that is global and primary, else the first."""
    mine = [address for address in layout.addresses if address.link == link.index and address.version == 4]
    good = [each for each in mine if each.scope == rt.RT_SCOPE_UNIVERSE and not each.flags & rt.IFA_F_SECONDARY]
    return next(iter(good or mine), None)


def smallest_prefix(own: IPv4Address, others: Iterable[IPv4Address] = ()) -> IPv4Network:
    """The smallest prefix in which `own` is neither the network's nor the broadcast address and another host fits, and
    none of `others` is either of the two."""
    wanted = {own, *others}
    for length in range(_LONGEST, 0, -1):
        network = IPv4Network((own, length), strict=False)
        if not wanted & {network.network_address, network.broadcast_address}:
            return network
    return IPv4Network((0, 0))


def view(layout: Layout, link: Link, address: Address, found: Ways, router: str) -> Told:
    """Decide; `router` is the virtual router's MAC. Raises NetworkFault for what can be neither told nor carried."""
    own = IPv4Address(address.address)
    notes = list(found.notes)
    default, gateways = found.default, found.gateways
    if default is not None and not default.gateway:
        notes.append(f"the default route has no gateway: whoever answers for {_ANYBODY} is taken for one")
        gateways = (_ANYBODY, *gateways)
    next_hop = gateways[0] if gateways else ""
    network = None
    if not (layer3(link) or address.peer):
        network = found.on_link(IPv4Network((own, address.prefix), strict=False))
    refusing = [way for way in found.ways if way.refuses]
    if network is not None and _host(own, network):
        true = next_hop if _expressible(next_hop, own, network) else ""
        if true == next_hop and len(gateways) <= 1 and not refusing and (default is not None or not gateways):
            _note_links(found, network, bool(gateways), link, notes)
            return Told(
                address=str(IPv4Interface((own, network.prefixlen))),
                gateway=true,
                next_hop=true,
                answers=pinned(layout, link, network),
                notes=tuple(notes),
            )
        true = next((gateway for gateway in gateways if _expressible(gateway, own, network)), "")
    else:
        true = ""
    if not gateways and not layer3(link):
        return _isolated(address, found, link, notes)

    _note_refusals(found, gateways, default is not None, notes)
    if network is not None and _host(own, network):
        told, gateway = network, true or str(_alias(own, network))
        answers = (Answer(network=f"{gateway}/32", mac=router),)
        if not true:
            notes.append(f"{gateway} is out of the guest's reach: it stands for the gateway {next_hop}")
    else:
        told = _answered_prefix(address, [IPv4Address(each) for each in gateways if ":" not in each])
        others = [host for host in (told.network_address + 1, told.network_address + 2) if host != own]
        gateway = next_hop if _expressible(next_hop, own, told) else str(others[0])
        answers = (Answer(network=str(told), mac=router),)
        if told.prefixlen != address.prefix:
            edges = f"{told.network_address} and {told.broadcast_address}"
            notes.append(f"{edges} are out of the guest's reach: they are the edges of {told}")
    _note_links(found, told, True, link, notes)
    exceptions = tuple(
        answer for answer in pinned(layout, link, told) if answer.network.partition("/")[0] not in (*gateways, gateway)
    )
    return Told(
        address=str(IPv4Interface((own, told.prefixlen))),
        gateway=gateway,
        next_hop=next_hop,
        router=router,
        answers=(*answers, *exceptions),
        hops=() if layer3(link) else hops(layout, link, gateways),
        steers=() if layer3(link) else steers(found, gateways, "0.0.0.0/0"),
        beyond=beyond(found),
        notes=tuple(notes),
    )


def _isolated(address: Address, found: Ways, link: Link, notes: list[str]) -> Told:
    """No way leads beyond the link, and the prefix cannot be told as it is."""
    direct = [way for way in found.ways if not way.refuses]
    if direct:
        raise NetworkFault(
            f"{direct[0].network} is on {link.name}'s link and not in {address}'s own prefix, "
            "which without a gateway a guest cannot express",
            subject=link.name,
            remedy="give the interface a prefix with a connected route, or a route with a gateway",
        )
    notes.append(f"{link.name} has {address} and no route, so the guest reaches nobody there")
    return Told(address=f"{address.address}/32", notes=tuple(notes))


def _note_refusals(found: Ways, gateways: tuple[str, ...], anywhere: bool, notes: list[str]) -> None:
    notes += [f"what the guest sends to {way.network} is dropped, as a route says" for way in found.ways if way.refuses]
    if gateways and not anywhere:
        notes.append("there is no default route: what no route leads to is dropped")


def _note_links(found: Ways, told: IPv4Network, gateway: bool, link: Link, notes: list[str]) -> None:
    """Routes that put more on the link than the guest's prefix says."""
    for way in found.ways:
        destination = IPv4Network(way.network)
        if way.gateway or way.refuses or way.default or destination.subnet_of(told):
            continue
        if not gateway:
            raise NetworkFault(
                f"route {way.network} leads out of {told}, and without a gateway a guest cannot express it",
                subject=link.name,
            )
        if destination.prefixlen < 32 and not told.subnet_of(destination):
            notes.append(f"{destination} is reached through the gateway, not directly")


def _host(own: IPv4Address, network: IPv4Network) -> bool:
    return network.prefixlen <= _LONGEST and own not in (network.network_address, network.broadcast_address)


def _expressible(gateway: str, own: IPv4Address, network: IPv4Network) -> bool:
    """Whether a guest with that address and prefix can have that gateway."""
    if not gateway or ":" in gateway:
        return False
    other = IPv4Address(gateway)
    return other in network and _host(other, network) and other != own


def _alias(own: IPv4Address, network: IPv4Network) -> IPv4Address:
    """An address for the virtual router among real neighbours: the one that is given out last."""
    last = network.broadcast_address - 1
    return last if last != own else last - 1


def _answered_prefix(address: Address, gateways: Iterable[IPv4Address]) -> IPv4Network:
    """The pod's own prefix if the guest's address is a host of it: then its edges are nobody's address. Else the
    smallest one whose edges are no next hop's; they may be other pods', and those two the guest cannot reach."""
    own = IPv4Address(address.address)
    declared = IPv4Network((own, 32 if address.peer else address.prefix), strict=False)
    return declared if _host(own, declared) else smallest_prefix(own, gateways)
