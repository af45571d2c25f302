"""What one family's view of an interface comes to, and the parts that both families make alike. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from shim.network.addressing.routing import Way, Ways
from shim.network.layout import Layout, Link
from shim.network.programs.edge import Answer, Hop, Steer


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One family as the guest is told it, and what must be done to make it true.

    `address` carries the prefix; `gateway` is "" for none; `next_hop` is the pod's real one. `router` is the virtual
    router's MAC where the gateway is that. `steers` count `hops` from 0. `beyond` are the networks that the gateway
    leads to, where that is not everything.
    """

    address: str
    gateway: str = ""
    next_hop: str = ""
    router: str = ""
    answers: tuple[Answer, ...] = ()
    hops: tuple[Hop, ...] = ()
    steers: tuple[Steer, ...] = ()
    beyond: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def hops(layout: Layout, link: Link, gateways: tuple[str, ...]) -> tuple[Hop, ...]:
    """The next hops with what the pod knows of their MACs already."""
    known = {entry.address: entry for entry in layout.neighbours if entry.link == link.index and entry.valid}
    return tuple(
        Hop(address=gateway, mac=known[gateway].mac, pinned=known[gateway].permanent)
        if gateway in known
        else Hop(address=gateway)
        for gateway in gateways
    )


def steers(found: Ways, gateways: tuple[str, ...], everywhere: str) -> tuple[Steer, ...]:
    """Each way's next hop, by its place in `gateways`; what is on the link goes to the first, since the virtual router
    cannot ask for its neighbours, or to itself where it is a next hop; what no way leads to, of `everywhere`, goes
    nowhere. A way that says what the default says already is left out, where all do."""

    def hop(way: Way) -> int | None:
        if way.refuses or not gateways:
            return None
        gateway = way.gateway or way.network.partition("/")[0]
        return gateways.index(gateway) if gateway in gateways else 0

    made = [Steer(network=way.network, hop=hop(way)) for way in found.ways]
    if not any(steer.network == everywhere for steer in made):
        made.append(Steer(network=everywhere, hop=None))
    return tuple(made[-1:] if len({steer.hop for steer in made}) == 1 else made)


def pinned(layout: Layout, link: Link, network: IPv4Network | IPv6Network | None, also: str = "") -> tuple[Answer, ...]:
    """Permanent neighbour entries of `network`, and of the address `also`: a CNI plugin made them because nobody
    answers there."""
    return tuple(
        Answer(network=f"{entry.address}/{ip_address(entry.address).max_prefixlen}", mac=entry.mac)
        for entry in layout.neighbours
        if entry.link == link.index
        and entry.permanent
        and entry.mac
        and (entry.address == also or (network is not None and ip_address(entry.address) in network))
    )


def beyond(found: Ways) -> tuple[str, ...]:
    """What a gateway leads to where there is no default route."""
    return () if found.default is not None else tuple(way.network for way in found.ways if way.gateway)
