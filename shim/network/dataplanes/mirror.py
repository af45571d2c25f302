"""The `mirror` dataplane: what either of the pod's interface and the guest's tap receives, the other sends.

Two programs redirect every frame at the devices' ingress; there is no bridge, no learning, and the interface keeps its
MAC, which the guest has too. So it suits interfaces that get frames for one MAC only. An interface that gets frames
only for addresses it has (ipvlan) keeps its configuration as well: what arrives never reaches the pod's own stack.
"""

from __future__ import annotations

from shim.network.addressing.interfaces import keeps_addresses
from shim.network.dataplanes.vacate import disable_ipv6, quiet_ipv6, vacate
from shim.network.dataplanes.wiring import Phases, Wiring
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Link
from shim.network.operations import SetAllMulticast, SetMtu, SetUp, Step


def wire(wiring: Wiring) -> Phases:
    """All steps."""
    link, layout, tap = wiring.link, wiring.layout, wiring.tap_index
    with_tap = f"goes with {wiring.tap}"
    kept = keeps_addresses(link)
    return Phases(
        prepare=(*([] if kept else quiet_ipv6(layout, link)), *wiring.create_tap()),
        vacate=(wiring.mark(), *_hear_all(link), *([] if kept else vacate(layout, link))),
        settle=() if kept else tuple(disable_ipv6(layout, link)),
        join=(
            *wiring.filters_of_link(),
            wiring.on_wire(onward=tap),
            wiring.filters_of_tap(),
            wiring.on_guest(onward=link.index),
            Step(do=SetMtu(index=tap, link=wiring.tap, mtu=wiring.attachment.mtu), lapses=with_tap),
            Step(do=SetUp(index=tap, link=wiring.tap), lapses=with_tap),
        ),
    )


def _hear_all(link: Link) -> list[Step]:
    """Nobody in the namespace joins the guest's groups. A veth has no filter that would mind."""
    if link.kind == "veth" or link.flags & rt.IFF_ALLMULTI:
        return []
    return [
        Step(
            do=SetAllMulticast(index=link.index, link=link.name, on=True),
            undo=(SetAllMulticast(index=link.index, link=link.name, on=False),),
        )
    ]
