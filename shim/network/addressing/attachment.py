"""From a layout to one NIC: both families' views, the MTU, and what must be done at its edge. Pure."""

from __future__ import annotations

import msgspec

from shim.network.addressing import view4, view6
from shim.network.addressing.mac import derived_mac
from shim.network.addressing.routing import ways
from shim.network.addressing.told import Told
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, Link
from shim.network.programs.edge import Edge

#: What a stack takes for granted that is not told (RFC 894, RFC 2464); no less than IPv6 demands (RFC 8200).
_ETHERNET_MTU, _LEAST_MTU = 1500, 1280


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """How a guest takes an interface over: what it is told of each family, None where it has no address of that; the
    MTU in bytes; what is done at the edge; in sentences, what of the layout it sees differently or not at all."""

    link: Link
    mtu: int
    four: Told | None
    six: Told | None
    edge: Edge
    notes: tuple[str, ...] = ()


def attach(layout: Layout, link: Link, seed: str) -> Attachment:
    """Decide; `seed` is the sandbox's id. Raises NetworkFault where the interface cannot be handed over."""
    router = derived_mac(seed, f"{link.name}/router")
    notes: list[str] = []
    views: list[Told | None] = []
    mtu = link.mtu
    for module in (view4, view6):
        address = module.identity(layout, link)
        if address is None:
            views.append(None)
            continue
        notes += [
            f"address {other} is not the guest's: it is given {address}"
            for other in layout.addresses
            if other.link == link.index
            and other.version == address.version
            and other != address
            and other.scope != rt.RT_SCOPE_LINK
        ]
        found = ways(layout, link, address.address)
        if found.default is not None and found.default.mtu:
            mtu = min(mtu, found.default.mtu if address.version == 4 else max(found.default.mtu, _LEAST_MTU))
        told = module.view(layout, link, address, found, router)
        notes += told.notes
        views.append(told)
    four, six = views
    if four is None and six is None:
        notes.append(f"{link.name} has no address, so the guest is told none")
    return Attachment(link=link, mtu=mtu, four=four, six=six, edge=_edge(four, six, mtu), notes=tuple(notes))


def _edge(four: Told | None, six: Told | None, mtu: int) -> Edge:
    told = [view for view in (four, six) if view is not None]
    before = len(four.hops) if four is not None else 0
    later = [
        steer if steer.hop is None else msgspec.structs.replace(steer, hop=steer.hop + before)
        for steer in (six.steers if six is not None else ())
    ]
    return Edge(
        own=tuple(view.address.partition("/")[0] for view in told),
        router=next((view.router for view in told if view.router), ""),
        answers=tuple(answer for view in told for answer in view.answers),
        hops=tuple(hop for view in told for hop in view.hops),
        steers=(*(four.steers if four is not None else ()), *later),
        mtu=mtu if mtu < _ETHERNET_MTU else 0,
    )
